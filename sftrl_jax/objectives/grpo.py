"""Group relative policy optimisation, with Dr. GRPO, DAPO, GSPO and CISPO as settings of it."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from sftrl_jax.metrics import Mean, masked_mean, masked_peak, row_sum
from sftrl_jax.objectives.batches import GroupBatch, Score, old_logprobs
from sftrl_jax.objectives.groups import GroupConfig, by_episode, refuse, weigh
from sftrl_jax.objectives.logprobs import entropy_bonus
from sftrl_jax.objectives.surrogate import clipped_surrogate


@dataclasses.dataclass(frozen=True)
class GRPOConfig(GroupConfig):
  """GRPO (Shao et al. 2024) with the mean over tokens. Its variants are settings:

    as published   mean="sequence", kl_coef=0.04
    Dr. GRPO       scale=False, mean="constant" (Liu et al. 2025)
    DAPO           clip_high=0.28, max_rounds=10, truncated="mask" or overlong_buffer (Yu et al. 2025)
    GSPO           ratio="sequence", mean="sequence", clip=3e-4, clip_high=4e-4 (Zheng et al. 2025, 2507.18071)
    CISPO          surrogate="cispo", clip_high=4.0 (MiniMax 2025, 2506.13585; the bound of Khatri et al. 2025)

  clip_high: epsilon of the ratio above 1 (0: the same as clip); a larger one lets rare tokens grow
  ratio: "token": each token has its own; "sequence": all tokens of an episode have the geometric mean of theirs
  surrogate: "clip", as of PPO: a token beyond the clip has no gradient. "cispo": -log p weighed by its ratio, at most
    1 + clip_high and without a gradient of its own, so that every token has one; there is no bound below 1
  scale: divide advantages by the standard deviation of their group
  mean: of the loss: "token", over all tokens; "sequence", over each episode's tokens and then over episodes, which
    favours short right and long wrong answers; "constant", the sum divided by the most tokens that an episode may have
  kl: where the KL to the start is added: to the "loss", or to the "reward" (k1, summed over the episode, less its
    group's mean); `scale` divides what the rewards give and not the KL, so kl_coef is its strength in every group
  kl_estimator: of the KL in the loss: "k3" is the usual one; its gradient is not that of the KL, while that of "k2" is
  entropy_coef: weight of the entropy bonus, by the estimate -log p of the sampled tokens' gradient
  """

  clip_high: float = 0.0
  ratio: Literal["token", "sequence"] = "token"
  surrogate: Literal["clip", "cispo"] = "clip"
  scale: bool = True
  mean: Literal["token", "sequence", "constant"] = "token"
  kl: Literal["loss", "reward"] = "loss"
  kl_estimator: Literal["k3", "k2"] = "k3"
  entropy_coef: float = 0.0

  def __post_init__(self):
    refuse(self)
    for name in ("clip_high", "entropy_coef"):
      if not getattr(self, name) >= 0:  # so that nan is refused too
        raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
    if self.dual_clip and self.surrogate == "cispo":
      raise ValueError(f"dual_clip is {self.dual_clip}, which has no effect on surrogate 'cispo': leave it out, or use "
                       "surrogate='clip'.")


def grpo_loss(params: dict, batch: GroupBatch, *, grpo: GRPOConfig, score: Score, longest: int, rows: int = 1
              ) -> tuple[Mean, dict]:
  """The clipped surrogate of PPO per token, all tokens of an episode with the advantage of the episode.

    rho_t = exp(log pi - log pi_old)    L = mean_t -min(rho_t A, clip(rho_t, 1 - e, 1 + e_high) A) + beta KL_t

  With ratio "sequence" rho = exp(mean over the episode's tokens of log pi - log pi_old) takes the place of rho_t. With
  surrogate "cispo" L = mean_t -sg(min(rho_t, 1 + e_high)) A log pi_t + beta KL_t, with sg the stop-gradient.
  On the first update of a batch every ratio is 1 and the advantages of a group sum to 0, so the loss is 0 where all
  episodes have one length, while its gradient is not.
  KL_t, with d = log pi - log pi_ref: k3 = exp(-d) - 1 + d, k2 = d^2 / 2.
  score: (params, inputs, targets_BT) -> Scores at the rollout's temperature. longest: most tokens of an episode.
  rows: of an episode in the batch
  """
  scores = score(params, batch.inputs, batch.targets_BT)
  mask_BT, (old_BT, by_row) = batch.mask_BT, old_logprobs(batch, scores)
  hide = lambda x_BT: jnp.where(mask_BT > 0, x_BT, 0.0)  # before any arithmetic: off the mask may be NaN, as 0 * NaN is
  gap_BT, advantages_B1 = hide(scores.logprobs_BT - old_BT), batch.advantages_B[:, None]
  cispo, high = grpo.surrogate == "cispo", 1 + (grpo.clip_high or grpo.clip)
  low = 0.0 if cispo else 1 - grpo.clip
  log_ratio_BT = gap_BT if grpo.ratio == "token" else _mean_of_episode(gap_BT, mask_BT, rows)
  ratio_BT = jnp.exp(jnp.clip(log_ratio_BT, -20.0, 20.0))
  if cispo:
    surrogate_BT = -jax.lax.stop_gradient(jnp.minimum(ratio_BT, high)) * advantages_B1 * hide(scores.logprobs_BT)
  else:
    surrogate_BT = clipped_surrogate(ratio_BT, advantages_B1, low, high, grpo.dual_clip)
  weights_BT, count = weigh(mask_BT, grpo.mean, longest, rows)
  mean = lambda x_BT: Mean(row_sum(weights_BT * hide(x_BT)), count)
  policy, kl = mean(surrogate_BT), None
  total = policy.total
  if batch.ref_logprobs_BT is not None:
    kl_BT = _estimate(hide(scores.logprobs_BT - batch.ref_logprobs_BT), grpo.kl_estimator)
    kl = mean(kl_BT)
    adapted = batch.kl_coef_B is not None
    total = total + (mean(batch.kl_coef_B[:, None] * kl_BT).total if adapted else grpo.kl_coef * kl.total)
  if grpo.entropy_coef:
    total = total - grpo.entropy_coef * mean(entropy_bonus(hide(scores.logprobs_BT))).total
  low_BT, high_BT = (ratio_BT < low) & (advantages_B1 < 0), (ratio_BT > high) & (advantages_B1 > 0)
  metrics = {
      "loss/policy_avg": policy, **({} if kl is None else {"loss/kl_avg": kl}), "label_tokens": jnp.sum(mask_BT),
      "policy/approxkl_avg": masked_mean(0.5 * jnp.square(gap_BT), mask_BT),
      "policy/clipfrac_avg": masked_mean((ratio_BT < low) | (ratio_BT > high), mask_BT),
      "policy/entropy_avg": masked_mean(scores.entropy_BT, mask_BT),
      "clip_ratio/low_mean": masked_mean(low_BT, mask_BT), "clip_ratio/high_mean": masked_mean(high_BT, mask_BT),
      "clip_ratio/region_mean": masked_mean(low_BT | high_BT, mask_BT),
      "val/ratio": masked_mean(ratio_BT, mask_BT), "val/ratio_max": masked_peak(ratio_BT, mask_BT), **by_row}
  return Mean(total, count), metrics


def _mean_of_episode(gap_BT, mask_BT, rows: int):
  """The mean over an episode's tokens, on every column of its rows."""
  sum_E, tokens_E = (by_episode(jnp.sum(x_BT, axis=1), rows) for x_BT in (gap_BT, mask_BT))
  mean_B = jnp.tile(sum_E / jnp.maximum(tokens_E, 1.0), rows)
  return jnp.broadcast_to(mean_B[:, None], gap_BT.shape)


def _estimate(gap_BT, estimator: str):
  gap_BT = jnp.clip(gap_BT, -20.0, 20.0)
  return 0.5 * jnp.square(gap_BT) if estimator == "k2" else jnp.expm1(-gap_BT) + gap_BT
