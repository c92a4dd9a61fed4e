"""Cross-entropy on responses at the states that the policy reached itself: self-SFT on its own right ones, DAgger on
the expert's. They differ in the rows that they learn from (rollout/imitated.py) and not in the loss."""

import dataclasses
from typing import ClassVar, Literal

from sftrl_jax.metrics import Mean
from sftrl_jax.objectives.batches import Score, TokenBatch
from sftrl_jax.objectives.sft import sft_loss


@dataclasses.dataclass(frozen=True)
class ImitationConfig:
  """Without advantages and ratios there is little to choose.

  epochs: passes over the episodes of an iteration
  minibatches: optimizer updates an epoch
  """

  epochs: int = 1
  minibatches: int = 4
  # Read of every algorithm: here are neither a KL to the start nor a ratio to limit.
  kl_coef: ClassVar[float] = 0.0
  kl_target: ClassVar[float] = 0.0
  target_kl: ClassVar[float] = 0.0

  def __post_init__(self):
    for name in ("epochs", "minibatches"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")


@dataclasses.dataclass(frozen=True)
class SelfSFTConfig(ImitationConfig):
  """Self-SFT: rejection sampling whose policy is renewed every iteration, expert iteration (Anthony et al. 2017; STaR,
  Zelikman et al. 2022; RAFT, Dong et al. 2023). Positives alone:

    L = -sum_t c_t log pi(y_t | y_<t) / sum_t c_t,  c_t = 1 on the tokens of responses that the verifier calls correct

  sampler: who plays: "policy", as it is in this iteration, or "start", the model that the run begins with (rejection
    sampling fine-tuning, Yuan et al. 2023). The episodes' seeds are the same.
  """

  sampler: Literal["policy", "start"] = "policy"


@dataclasses.dataclass(frozen=True)
class DAggerConfig(ImitationConfig):
  """DAgger (Ross et al. 2011), without a mixture of policies and with the data of one iteration: the policy plays, and
  the expert says what it would have answered.

    L = -mean_t log pi(e_t | s, e_<t),  e the expert's response to the chat s

  s is one of the states of each episode, drawn by the episode's seed: an episode is one row, as it is for PPO.
  """


def imitation_loss(params: dict, batch: TokenBatch, *, score: Score) -> tuple[Mean, dict]:
  """`sft_loss`, -sum_t w_t log pi(y_t | y_<t) / sum_t w_t, with the names that metrics have in RL.

  score: (params, inputs, targets_BT) -> Scores at the rollout's temperature
  """
  loss, metrics = sft_loss(params, batch, score=score)
  return loss, {"policy/entropy_avg": metrics["entropy"], "mean_token_accuracy": metrics["mean_token_accuracy"]}
