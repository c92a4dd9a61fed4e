"""On-policy distillation: a teacher's whole distribution at the states that the policy reached itself."""

import dataclasses

from sftrl_jax.metrics import Mean, masked_mean
from sftrl_jax.objectives.batches import Score, TokenBatch
from sftrl_jax.objectives.imitation.responses import ImitationConfig


@dataclasses.dataclass(frozen=True)
class DistillConfig(ImitationConfig):
  """On-policy distillation (Agarwal et al. 2024, with the student's samples alone) from the model of config.teacher."""


def distill_loss(params: dict, batch: TokenBatch, *, score: Score) -> tuple[Mean, dict]:
  """L = mean over tokens of sum_v pi(v | s_t) (log pi(v | s_t) - log q(v | s_t)), q the teacher, s_t what was read
  before token t: the reverse KL, exact over the vocabulary. Where the batch has a prefix, the teacher has read a
  demonstration before, q(v | d, s_t), and the policy learns to do without (OPSD, SDFT).

  The states are constants: that a token changes the states after it has no gradient. A reward of log q - log pi for the
  sampled token has the same gradient in expectation, and the variance of that one sample.
  score: (params, inputs, targets_BT, prefix) -> Scores with a KL, at the rollout's temperature
  """
  scores = score(params, batch.inputs, batch.targets_BT, batch.prefix)
  return masked_mean(scores.kl_BT, batch.weights_BT), {
      "policy/entropy_avg": masked_mean(scores.entropy_BT, batch.weights_BT)}
