"""REINFORCE++: PPO's clipped tokens without a value function and without groups."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from sftrl_jax.metrics import Mean, masked_mean, masked_peak, row_sum
from sftrl_jax.objectives.batches import PolicyBatch, Score, old_logprobs
from sftrl_jax.objectives.logprobs import entropy_bonus
from sftrl_jax.objectives.surrogate import clipped_surrogate, refuse_bounds


@dataclasses.dataclass(frozen=True)
class ReinforcePlusPlusConfig:
  """REINFORCE++ (Hu et al. 2025). A token's advantage is what is rewarded from it on, whitened over the whole batch.

  epochs: passes over the episodes of an iteration
  minibatches: optimizer updates an epoch
  clip: epsilon of the policy ratio
  dual_clip: for a negative advantage, the ratio from which on an action pulls no more (0: none; Ye et al. 2020, 3.0)
  target_kl: the largest approximate KL of a minibatch to the policy that played, as of ppo (0: no limit)
  kl_coef: weight of k1 = log pi - log pi_ref of every token, which lowers its reward (0: the reference is not loaded)
  turn_gamma: discount from a turn to the next
  entropy_coef: weight of the entropy bonus, by the estimate -log p of the sampled tokens' gradient
  """

  epochs: int = 1
  minibatches: int = 4
  clip: float = 0.2
  dual_clip: float = 0.0
  target_kl: float = 0.0
  kl_coef: float = 0.0
  turn_gamma: float = 1.0
  entropy_coef: float = 0.0
  kl_target: ClassVar[float] = 0.0   # read of every algorithm: kl_coef is fixed here

  def __post_init__(self):
    for name in ("epochs", "minibatches"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
    if not 0 < self.clip < 1:
      raise ValueError(f"clip is {self.clip}; it must lie between 0 and 1, for example 0.2.")
    if not 0 <= self.turn_gamma <= 1:
      raise ValueError(f"turn_gamma is {self.turn_gamma}; it must lie in [0, 1].")
    for name in ("kl_coef", "entropy_coef"):
      if not getattr(self, name) >= 0:  # so that nan is refused too
        raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
    refuse_bounds(self)


def reinforce_plus_plus_loss(params: dict, batch: PolicyBatch, *, config: ReinforcePlusPlusConfig, score: Score
                             ) -> tuple[Mean, dict]:
  """Clipped surrogate per token, rho_t = exp(log pi - log pi_old) (Schulman et al. 2017, eq. 7):

    A_t = whitened sum over l >= t of turn_gamma^(turn_l - turn_t) (r_l - beta k1_l)   (arXiv 2501.03262)
    L = mean_t -min(rho_t A_t, clip(rho_t, 1 - e, 1 + e) A_t) - c_e H

  score: (params, inputs, targets_BT) -> Scores at the rollout's temperature
  """
  scores = score(params, batch.inputs, batch.targets_BT)
  mask_BT, (old_BT, by_row) = batch.mask_BT, old_logprobs(batch, scores)
  hide = lambda x_BT: jnp.where(mask_BT > 0, x_BT, 0.0)  # before any arithmetic: off the mask may be NaN, as 0 * NaN is
  gap_BT = hide(scores.logprobs_BT - old_BT)
  ratio_BT = jnp.exp(jnp.clip(gap_BT, -20.0, 20.0))
  policy = masked_mean(clipped_surrogate(ratio_BT, hide(batch.advantages_BT), 1 - config.clip, 1 + config.clip,
                                         config.dual_clip), mask_BT)
  total = policy.total
  if config.entropy_coef:
    total = total - config.entropy_coef * row_sum(hide(entropy_bonus(hide(scores.logprobs_BT))))
  metrics = {
      "loss/policy_avg": policy, "label_tokens": jnp.sum(mask_BT),
      "policy/approxkl_avg": masked_mean(0.5 * jnp.square(gap_BT), mask_BT),
      "policy/clipfrac_avg": masked_mean(jnp.abs(ratio_BT - 1.0) > config.clip, mask_BT),
      "policy/entropy_avg": masked_mean(scores.entropy_BT, mask_BT),
      "val/ratio": masked_mean(ratio_BT, mask_BT), "val/ratio_max": masked_peak(ratio_BT, mask_BT), **by_row}
  return Mean(total, policy.weight), metrics
