"""REINFORCE with the other episodes of a group as the baseline."""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from sftrl_jax.metrics import Mean, masked_mean, masked_peak
from sftrl_jax.objectives.batches import GroupBatch, Score, old_logprobs
from sftrl_jax.objectives.groups import GroupConfig, by_episode, refuse
from sftrl_jax.objectives.surrogate import clipped_surrogate


@dataclasses.dataclass(frozen=True)
class RLOOConfig(GroupConfig):
  """REINFORCE leave-one-out (Ahmadian et al. 2024). The KL to the start, k1 summed over an episode, lowers its reward.

  ratio: "sequence": an episode's answer is one action, its ratio the product over its tokens (TRL; the paper is
    on-policy and has no ratio); "token": clipped token by token and averaged over all tokens (verl)
  """

  ratio: Literal["sequence", "token"] = "sequence"

  def __post_init__(self):
    refuse(self)


def rloo_loss(params: dict, batch: GroupBatch, *, rloo: RLOOConfig, score: Score, rows: int = 1) -> tuple[Mean, dict]:
  """A clipped surrogate with the leave-one-out advantage, per episode or per token.

    rho = exp(sum_t log pi - log pi_old)       L = mean over episodes of -min(rho A, clip(rho, 1 - e, 1 + e) A)

  At ratio 1 its gradient is that of REINFORCE, -A sum_t grad log pi. With ratio "token", rho_t takes the place of rho,
  and the mean is over tokens.
  score: (params, inputs, targets_BT) -> Scores at the rollout's temperature. rows: of an episode in the batch, all of
  which are one action
  """
  scores = score(params, batch.inputs, batch.targets_BT)
  mask_BT, (old_BT, by_row) = batch.mask_BT, old_logprobs(batch, scores)
  gap_BL = jnp.where(mask_BT > 0, scores.logprobs_BT - old_BT, 0.0)  # L: actions, here tokens
  mask_BL, advantages_B1 = mask_BT, batch.advantages_B[:, None]
  if rloo.ratio == "sequence":
    gap_BL = by_episode(jnp.sum(gap_BL, axis=1), rows)[:, None]
    mask_BL = (by_episode(jnp.sum(mask_BT, axis=1), rows)[:, None] > 0).astype(jnp.float32)
    advantages_B1 = advantages_B1[: gap_BL.shape[0]]   # those of the episodes' first rows
  ratio_BL = jnp.exp(jnp.clip(gap_BL, -20.0, 20.0))
  loss = masked_mean(clipped_surrogate(ratio_BL, advantages_B1, 1 - rloo.clip, 1 + rloo.clip, rloo.dual_clip), mask_BL)
  metrics = {
      "loss/policy_avg": loss, "label_tokens": jnp.sum(mask_BT),
      "policy/approxkl_avg": masked_mean(0.5 * jnp.square(gap_BL), mask_BL),
      "policy/clipfrac_avg": masked_mean(jnp.abs(ratio_BL - 1.0) > rloo.clip, mask_BL),
      "policy/entropy_avg": masked_mean(scores.entropy_BT, mask_BT),
      "val/ratio": masked_mean(ratio_BL, mask_BL), "val/ratio_max": masked_peak(ratio_BL, mask_BL), **by_row}
  return loss, metrics
