"""Supervised fine-tuning: cross-entropy on the target tokens, and its variants DFT, PSFT and distillation."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from sftrl_jax.metrics import Mean, masked_mean, masked_peak, row_sum
from sftrl_jax.objectives.batches import Score, TokenBatch
from sftrl_jax.objectives.groups import refuse_choices


@dataclasses.dataclass(frozen=True)
class SFTConfig:
  """What a target token is worth.

  loss: "nll" is cross-entropy; "dft" weighs a token by its own probability (Wu et al. 2025); "psft" clips its ratio to
    the policy before the step, as if every target had advantage 1 (Zhu et al. 2025); "distill" learns the whole
    distribution of the model of config.teacher in the place of the target (Hinton et al. 2015)
  minibatches: of "psft": updates a step, each on batch / minibatches rows; ratios are to the policy before the first
  clip_high: of "psft": epsilon above 1, beyond which a token pulls no more; with advantage 1 none is clipped below 1
  """

  loss: Literal["nll", "dft", "psft", "distill"] = "nll"
  minibatches: int = 8
  clip_high: float = 0.28

  def __post_init__(self):
    refuse_choices(self)
    if self.minibatches < 2:
      raise ValueError(f"minibatches is {self.minibatches}; it must be at least 2: in the first of them every ratio is "
                       "1, and psft is nll.")
    if not self.clip_high > 0:  # so that nan is refused too
      raise ValueError(f"clip_high is {self.clip_high}; it must be positive, for example 0.28.")


def sft_loss(params: dict, batch: TokenBatch, *, score: Score, sft: SFTConfig = SFTConfig()
             ) -> tuple[Mean, dict]:
  """L = sum_t w_t l_t / sum_t w_t over the global batch; the train step divides.

    nll   l_t = -log p_t, with p_t = p(y_t | y_<t)
    dft   l_t = -sg(p_t) log p_t, with sg the stop-gradient (arXiv 2508.05629)
    psft  l_t = -min(rho_t, clip(rho_t, 1 - e, 1 + e_high)) = -min(rho_t, 1 + e_high), with rho_t = p_t / p_old,t of the
          policy before the first minibatch of the step (arXiv 2508.17784)
    distill  l_t = sum_v q(v) (log q(v) - log p(v)), the forward KL to the teacher q, exact over the vocabulary; nll is
          that of a teacher which is sure of y_t. On-policy distillation (imitation/distill.py) differs twice: states
          that the policy reached, and the reverse KL

  score: (params, inputs, targets_BT) -> Scores; of distill with a KL, the forward one.
  """
  scores, weights_BT = score(params, batch.inputs, batch.targets_BT), batch.weights_BT
  hide = lambda x_BT: jnp.where(weights_BT > 0, x_BT, 0.0)  # before any arithmetic: off the weights may be NaN
  logprobs_BT = hide(scores.logprobs_BT)
  mean = lambda x_BT: Mean(row_sum(x_BT * weights_BT), jnp.sum(weights_BT))
  segments_BT = batch.inputs.segments_BT
  metrics = {"entropy": masked_mean(scores.entropy_BT, weights_BT),
             "mean_token_accuracy": masked_mean(scores.correct_BT, weights_BT),
             "compute/real_share": Mean(jnp.sum(segments_BT > 0, dtype=jnp.float32), float(segments_BT.size))}
  if sft.loss == "nll":
    return mean(-logprobs_BT), metrics
  metrics["loss/nll"] = mean(-logprobs_BT)
  if sft.loss == "distill":
    return mean(hide(scores.kl_BT)), metrics
  if sft.loss == "dft":
    return mean(-jax.lax.stop_gradient(jnp.exp(logprobs_BT)) * logprobs_BT), metrics
  gap_BT = hide(scores.logprobs_BT - batch.old_logprobs_BT)
  ratio_BT = jnp.exp(jnp.clip(gap_BT, -20.0, 20.0))
  metrics |= {"policy/clipfrac_avg": masked_mean(ratio_BT > 1 + sft.clip_high, weights_BT),
              "policy/approxkl_avg": masked_mean(0.5 * jnp.square(gap_BT), weights_BT),
              "val/ratio": masked_mean(ratio_BT, weights_BT), "val/ratio_max": masked_peak(ratio_BT, weights_BT)}
  return mean(-jnp.minimum(ratio_BT, 1 + sft.clip_high)), metrics
