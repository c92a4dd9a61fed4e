"""Rewards to advantages, on a grid of episodes before they become rows.

A grid has one line an episode and one column a step; a step is a turn or a token. Columns where the policy did nothing
are not live and are skipped, so a message of the environment between two turns changes no advantage.

The end of an episode decides the value after its last step:
  terminated   0
  truncated    V of the state after the last step, for the episode could have gone on
  boundary     V of that state likewise, and never the next episode's: the rollout stopped in the middle

Group methods have no V: one reward an episode is compared with the others of its group, which stand next to it.
"""

import jax
import jax.numpy as jnp

from sftrl_jax.metrics import row_sum
from sftrl_jax.shapes import check

ROUNDING = 1e-6   # of a sum of rewards in f32, as a share of it


def gae(rewards_EL: jax.Array, values_EL: jax.Array, discounts_EL: jax.Array, live_EL: jax.Array,
        last_values_E: jax.Array, gae_lambda: float) -> tuple[jax.Array, jax.Array]:
  """Generalised advantage estimation (Schulman et al. 2016, eq. 16), skipping columns that are not live.

    delta_l = r_l + g_l V_next(l) - V_l        A_l = delta_l + g_l lambda A_next(l)        return_l = A_l + V_l

  discounts_EL: g_l between a step and the next live one (gamma within a turn, turn_gamma at its end).
  last_values_E: V after the last live step; 0 for a terminated episode.
  Returns (advantages_EL, returns_EL), both 0 where not live.
  """
  check(rewards_EL=rewards_EL, values_EL=values_EL, discounts_EL=discounts_EL, live_EL=live_EL,
        last_values_E=last_values_E)

  def step_back(carry: tuple, column: tuple) -> tuple[tuple, jax.Array]:
    next_value_E, next_advantage_E = carry
    reward_E, value_E, discount_E, live_E = column
    delta_E = reward_E + discount_E * next_value_E - value_E
    advantage_E = delta_E + discount_E * gae_lambda * next_advantage_E
    on = live_E > 0
    carry = jnp.where(on, value_E, next_value_E), jnp.where(on, advantage_E, next_advantage_E)
    return carry, jnp.where(on, advantage_E, 0.0)

  columns = tuple(x.T.astype(jnp.float32) for x in (rewards_EL, values_EL, discounts_EL, live_EL))
  start = (last_values_E.astype(jnp.float32), jnp.zeros_like(last_values_E, jnp.float32))
  _, advantages_LE = jax.lax.scan(step_back, start, columns, reverse=True)
  advantages_EL = advantages_LE.T
  return advantages_EL, jnp.where(live_EL > 0, advantages_EL + values_EL, 0.0)


def rewards_differ(rewards_EL: jax.Array, discounts_EL: jax.Array, live_EL: jax.Array) -> jax.Array:
  """Whether the rewards prefer one episode to another (bool scalar): at some step, what comes from it on differs
  between two episodes by more than rounding.

  Where they do not, returns minus values are nothing but the value function's own errors.
  discounts_EL: from a step to the next live one, as of `gae`
  """
  blank_EL = jnp.zeros_like(rewards_EL)
  _, sums_EL = gae(rewards_EL, blank_EL, discounts_EL, live_EL, blank_EL[:, 0], 1.0)
  most_L = jnp.max(jnp.where(live_EL > 0, sums_EL, -jnp.inf), axis=0)
  least_L = jnp.min(jnp.where(live_EL > 0, sums_EL, jnp.inf), axis=0)
  return jnp.any(most_L - least_L > ROUNDING * jnp.maximum(jnp.abs(most_L), jnp.abs(least_L)))


def whiten(advantages: jax.Array, mask: jax.Array, epsilon: float = 1e-5) -> jax.Array:
  """(A - mean) / (std + epsilon) over the mask, biased variance; zeros where the mask has fewer than two entries."""
  mask = mask.astype(jnp.float32)
  advantages = jnp.where(mask > 0, advantages, 0.0)  # off the mask may be NaN
  count = jnp.sum(mask)
  mean = row_sum(advantages * mask) / jnp.maximum(count, 1.0)
  variance = row_sum(jnp.square(advantages - mean) * mask) / jnp.maximum(count, 1.0)
  white = (advantages - mean) / (jnp.sqrt(variance) + epsilon) * mask
  return jnp.where(count >= 2, white, 0.0)


def group_relative(rewards_E: jax.Array, group: int, scale: bool = True, epsilon: float = 1e-4,
                   present_E: jax.Array | None = None, penalties_E: jax.Array | None = None) -> jax.Array:
  """advantages_E = R - mean of the group; with `scale`, divided by the group's standard deviation (n - 1) + epsilon.

  Exactly 0 where all rewards of a group are equal, whatever the rounding of the mean, and where one is alone.
  present_E: 0 for episodes that are left out (None: none are); the others of their group are compared
  penalties_E: subtracted, less their group's mean; never scaled, or else the noise of small penalties would be worth as
    much as a reward wherever the rewards of a group are equal
  """
  rewards_GQ, present_GQ, alike_1Q = _in_groups(rewards_E, present_E, group)
  count_1Q = jnp.sum(present_GQ, axis=0, keepdims=True)
  mean = lambda x_GQ, over_1Q: jnp.sum(x_GQ * present_GQ, axis=0, keepdims=True) / jnp.maximum(over_1Q, 1.0)
  # Whole groups by jnp.mean and jnp.std, whose rounding is not that of the sums over those who are there.
  whole = lambda x_1Q, part_1Q: jnp.where(count_1Q == group, x_1Q, part_1Q)
  advantages_GQ = rewards_GQ - whole(jnp.mean(rewards_GQ, axis=0, keepdims=True), mean(rewards_GQ, count_1Q))
  if scale:
    std_1Q = jnp.sqrt(mean(jnp.square(advantages_GQ), count_1Q - 1))
    std_1Q = whole(jnp.std(rewards_GQ, axis=0, ddof=1, keepdims=True), std_1Q)
    advantages_GQ = advantages_GQ / (std_1Q + epsilon)
  advantages_E = _in_order(advantages_GQ, present_GQ, alike_1Q)
  if penalties_E is None:
    return advantages_E
  return advantages_E - group_relative(penalties_E, group, scale=False, present_E=present_E)


def leave_one_out(rewards_E: jax.Array, group: int, present_E: jax.Array | None = None,
                  penalties_E: jax.Array | None = None) -> jax.Array:
  """advantages_E = R - mean of the group's other rewards; exactly 0 where all of a group are equal, or one is alone.

  present_E: 0 for episodes that are left out (None: none are)
  penalties_E: subtracted from the rewards
  """
  rewards_E = rewards_E if penalties_E is None else rewards_E - penalties_E
  rewards_GQ, present_GQ, alike_1Q = _in_groups(rewards_E, present_E, group)
  others_1Q = jnp.maximum(jnp.sum(present_GQ, axis=0, keepdims=True) - 1, 1.0)
  others_GQ = (jnp.sum(rewards_GQ, axis=0, keepdims=True) - rewards_GQ) / others_1Q
  return _in_order(rewards_GQ - others_GQ, present_GQ, alike_1Q)


def _in_groups(rewards_E, present_E, group: int):
  """(rewards with a column a group, 0 where left out; which are there; which columns are constant)."""
  present_E = jnp.ones_like(rewards_E) if present_E is None else present_E
  columns = lambda x_E: x_E.astype(jnp.float32).reshape(-1, group).T
  present_GQ = columns(present_E)
  rewards_GQ = jnp.where(present_GQ > 0, columns(rewards_E), 0.0)
  bound = lambda reduce, blank: reduce(jnp.where(present_GQ > 0, rewards_GQ, blank), axis=0, keepdims=True)
  return rewards_GQ, present_GQ, bound(jnp.max, -jnp.inf) <= bound(jnp.min, jnp.inf)


def _in_order(advantages_GQ, present_GQ, alike_1Q):
  return jnp.where(alike_1Q | (present_GQ == 0), 0.0, advantages_GQ).T.reshape(-1)
