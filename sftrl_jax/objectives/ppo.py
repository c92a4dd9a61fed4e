"""Proximal policy optimisation, with a token or a whole turn as the action."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from sftrl_jax.metrics import Mean, masked_mean, masked_peak, row_sum
from sftrl_jax.objectives.batches import PolicyBatch, Score
from sftrl_jax.objectives.groups import refuse_choices, refuse_kl_target
from sftrl_jax.objectives.logprobs import entropy_bonus
from sftrl_jax.objectives.surrogate import clipped_surrogate, refuse_bounds


@dataclasses.dataclass(frozen=True)
class PPOConfig:
  """How a policy learns from its own episodes.

  level: "token": every token is an action with its own value; "turn": a whole response is one action (the paper)
  thought_weight: with level "turn", weight of the log-probabilities of a response's thought in those of the response
    (the paper 0.5): of the tokens before its action, as `action_start` of the environment has it. Only where it is not
    1 does the environment need that member
  epochs: passes over the episodes of an iteration
  minibatches: optimizer updates an epoch
  clip: epsilon of the policy ratio
  dual_clip: for a negative advantage, the ratio from which on an action pulls no more (0: none; Ye et al. 2020, 3.0)
  ratio_cap: the ratio above which an action has the clipped term alone, as in the paper's code (0: none; the paper 10).
    Its gradient is that of a dual_clip of the same number
  target_kl: the largest approximate KL, policy/approxkl_avg of a minibatch, to the policy that played (0: no limit). A
    minibatch with a larger one is not applied, and neither are those after it in the iteration; the first one always
    is. The schedule counts what is applied. Stable-Baselines3 and Spinning Up stop at 1.5 times the value of this name
  value_clip: epsilon of the value (0: not clipped)
  value_coef: weight of the value loss
  entropy_coef: weight of the entropy bonus, by the estimate -log p of the sampled tokens' gradient
  kl_coef: weight of the KL to the start, in units of the reward a nat (0: without a reward model, the reference is not
    even loaded). Where the rewards of all episodes of an iteration are alike, no action has an advantage, whatever its
    KL in the reward
  kl: where the KL is: in the "reward", k1 = log pi - log pi_ref of every token; or in the "loss", kl_coef times the
    mean over actions of k2 = (log pi - log pi_ref)^2 / 2, whose gradient is that of the KL. Advantages that are
    whitened have variance 1 there, whatever the unit of the reward
  kl_target: nats a response that the KL is held near, from kl_coef on (0: kl_coef is fixed). After an iteration it is
    multiplied by 1 + clip(KL / kl_target - 1, -0.2, 0.2) * episodes / kl_horizon (Ziegler et al. 2019)
  kl_horizon: episodes over which an error of 100% would double it, if more than 20% counted
  gamma: discount from one token of a turn to the next
  turn_gamma: discount from a turn to the next
  gae_lambda: of generalised advantage estimation
  whiten: advantages to mean 0 and variance 1 over the whole batch
  truncation: "end": being out of attempts is the task's own end, and V after it is 0: the chat tells how many attempts
    there were. "bootstrap": V of the state after it stands for the rest, in a task that goes on beyond its attempts; no
    response is trained in that state, so V there is a guess that is fed back into the returns, and it may run away
  critic: what the value head reads: the policy's trunk ("shared"), or one of its own ("own"), which the value loss
    trains. That begins as the start, or as the reward model where reward_model.critic is True, and costs as much memory
    and as many FLOPs an update as the policy. Its parameters are critic/model/*
  value_gradient: let the value loss move the trunk too (off: the value head reads it through stop_gradient)
  value_layers: widths of the value head's hidden layers (relu); () is a linear head, (1024, 512) the paper's, on a
    trunk of width 4096
  critic_warmup: first iterations, in which the value head alone is trained, without policy loss and entropy bonus; the
    trunk stays bit for bit, whatever value_gradient is
  """

  level: Literal["token", "turn"] = "token"
  thought_weight: float = 1.0
  epochs: int = 1
  minibatches: int = 4
  clip: float = 0.2
  dual_clip: float = 0.0
  ratio_cap: float = 0.0
  target_kl: float = 0.0
  value_clip: float = 0.0
  value_coef: float = 0.1
  entropy_coef: float = 0.0
  kl_coef: float = 0.0
  kl: Literal["reward", "loss"] = "reward"
  kl_target: float = 0.0
  kl_horizon: int = 10_000
  gamma: float = 1.0
  turn_gamma: float = 0.9
  gae_lambda: float = 1.0
  whiten: bool = True
  truncation: Literal["end", "bootstrap"] = "end"
  critic: Literal["shared", "own"] = "shared"
  value_gradient: bool = False
  value_layers: tuple[int, ...] = ()
  critic_warmup: int = 0

  def __post_init__(self):
    refuse_choices(self)
    for name in ("gamma", "turn_gamma", "gae_lambda"):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1].")
    for name in ("epochs", "minibatches"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
    if not 0 < self.clip < 1:
      raise ValueError(f"clip is {self.clip}; it must lie between 0 and 1, for example 0.2.")
    for name in ("thought_weight", "value_clip", "value_coef", "entropy_coef", "kl_coef", "kl_target"):
      if not getattr(self, name) >= 0:  # so that nan is refused too
        raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
    refuse_kl_target(self)
    if self.thought_weight != 1 and self.level != "turn":
      raise ValueError(f"thought_weight is {self.thought_weight}, but level is {self.level!r}, where every token is an "
                       "action: use level='turn', or thought_weight=1.")
    if self.critic == "own" and self.value_gradient:
      raise ValueError("value_gradient is True, but critic is 'own', and the policy's trunk gives no values: leave it "
                       "at False, or use critic='shared'.")
    refuse_bounds(self)
    if self.critic_warmup < 0:
      raise ValueError(f"critic_warmup is {self.critic_warmup}; it must be 0 (none) or some iterations.")
    if not all(isinstance(width, int) and width > 0 for width in self.value_layers):
      raise ValueError(f"value_layers is {self.value_layers}; it must hold positive widths, such as (1024, 512), or "
                       "nothing.")


def ppo_loss(params: dict, batch: PolicyBatch, *, ppo: PPOConfig, score: Score, turns: int) -> tuple[Mean, dict]:
  """Clipped surrogate (Schulman et al. 2017, eq. 7) plus the value loss, per token or per turn.

    rho = exp(log pi - log pi_old)      L_pi = -min(rho A, clip(rho, 1 - e, 1 + e) A)
    L_V = 1/2 max((V - R)^2, (V_old + clip(V - V_old, -e_v, e_v) - R)^2)
    L   = L_pi + c_v L_V - c_e H + beta k2, the last where the batch has reference log-probabilities

  With level "turn", log pi of a response is the weighted sum over its tokens, its k2 is of the plain sum, and V is read
  before its first token.
  score: (params, inputs, targets_BT) -> Scores at the rollout's temperature. turns: most turns of a row.
  """
  scores = score(params, batch.inputs, batch.targets_BT)
  mask_BT = batch.mask_BT
  hide = lambda x_BT: jnp.where(mask_BT > 0, x_BT, 0.0)  # before any arithmetic: off the mask may be NaN, as 0 * NaN is
  gap_BT = hide(scores.logprobs_BT - batch.old_logprobs_BT)
  if batch.weights_BT is not None:
    gap_BT = gap_BT * batch.weights_BT
  fields = (gap_BT, *map(hide, (scores.values_BT, batch.old_values_BT, batch.advantages_BT, batch.returns_BT)), mask_BT)
  gap, values, old_values, advantages, returns, mask = (
      fields if ppo.level == "token" else _by_turn(batch.turns_BT, turns, *fields))
  ratio = jnp.exp(jnp.clip(gap, -20.0, 20.0))
  policy = masked_mean(clipped_surrogate(ratio, advantages, 1 - ppo.clip, 1 + ppo.clip, ppo.dual_clip,
                                         ppo.ratio_cap), mask)
  error = jnp.square(values - returns)
  if ppo.value_clip:
    near = old_values + jnp.clip(values - old_values, -ppo.value_clip, ppo.value_clip)
    error = jnp.maximum(error, jnp.square(near - returns))
  value = masked_mean(0.5 * error, mask)
  total = policy.total + ppo.value_coef * value.total
  if ppo.entropy_coef:
    total = total - ppo.entropy_coef * row_sum(jnp.where(mask_BT > 0, entropy_bonus(scores.logprobs_BT), 0.0))
  kl = {}
  if batch.ref_logprobs_BT is not None:
    far = hide(scores.logprobs_BT - batch.ref_logprobs_BT)
    far = far if ppo.level == "token" else _by_turn(batch.turns_BT, turns, far, *fields[1:])[0]
    k2 = 0.5 * jnp.square(jnp.clip(far, -20.0, 20.0))
    total = total + masked_mean(batch.kl_coef_B[:, None] * k2, mask).total
    kl = {"loss/kl_avg": masked_mean(k2, mask)}
  metrics = {
      "loss/policy_avg": policy, "loss/value_avg": value, **kl,
      "policy/approxkl_avg": masked_mean(0.5 * jnp.square(gap), mask),
      "policy/clipfrac_avg": masked_mean(jnp.abs(ratio - 1.0) > ppo.clip, mask),
      "policy/entropy_avg": masked_mean(scores.entropy_BT, mask_BT),
      "val/ratio": masked_mean(ratio, mask),
      "val/ratio_max": masked_peak(ratio, mask)}
  return Mean(total, policy.weight), metrics


def _by_turn(turns_BT, turns: int, gap_BT, values_BT, old_values_BT, advantages_BT, returns_BT, mask_BT):
  """The same six arrays as [B, U]: the gap summed over a turn's tokens, the others at its first token."""
  member_BTU = (turns_BT[:, :, None] == jnp.arange(turns)[None, None, :]).astype(jnp.float32) * mask_BT[:, :, None]
  earlier_BTU = jnp.cumsum(member_BTU, axis=1) - member_BTU
  first_BTU = member_BTU * (earlier_BTU == 0)
  at_first = lambda x_BT: jnp.sum(first_BTU * x_BT[:, :, None], axis=1)
  gap_BU = jnp.sum(member_BTU * gap_BT[:, :, None], axis=1)
  return (gap_BU, *map(at_first, (values_BT, old_values_BT, advantages_BT, returns_BT)), jnp.sum(first_BTU, axis=1))


def explained_variance(values: jax.Array, returns: jax.Array, mask: jax.Array) -> jax.Array:
  """1 - Var(R - V) / Var(R) over the mask; 0 where the returns do not vary."""
  mean = lambda x: row_sum(jnp.where(mask > 0, x, 0.0) * mask) / jnp.maximum(jnp.sum(mask), 1.0)
  variance = lambda x: mean(jnp.square(x - mean(x)))
  spread = variance(returns)
  return jnp.where(spread > 1e-12, 1.0 - variance(returns - values) / jnp.maximum(spread, 1e-12), 0.0)

