"""Rewards to advantages, on a grid of episodes before they become rows.

A grid has one line an episode and one column a step; a step is a turn or a token. Columns where the policy did nothing
are not live and are stepped over: what an environment says between two turns can change no advantage.

How an episode ends decides what follows its last step:
  terminated   nothing: V = 0
  truncated    stopped from outside while it could have gone on: V of the state after the last step
  boundary     the rollout stopped in the middle: V of that state likewise, and never the next episode's

Group methods have no V: one reward an episode is compared with the others of its group, which stand next to it.
"""

import jax
import jax.numpy as jnp

from sftrl_jax.metrics import row_sum
from sftrl_jax.shapes import check


def gae(rewards_EL, values_EL, discounts_EL, live_EL, last_values_E, gae_lambda: float):
  """Generalised advantage estimation (Schulman et al. 2016, eq. 16), skipping columns that are not live.

    delta_l = r_l + g_l V_next(l) - V_l        A_l = delta_l + g_l lambda A_next(l)        return_l = A_l + V_l

  discounts_EL: g_l between a step and the next live one (gamma within a turn, turn_gamma at its end).
  last_values_E: V after the last live step; 0 for a terminated episode.
  Returns (advantages_EL, returns_EL), both 0 where not live.
  """
  check(rewards_EL=rewards_EL, values_EL=values_EL, discounts_EL=discounts_EL, live_EL=live_EL,
        last_values_E=last_values_E)

  def back(carry, column):
    next_value_E, next_advantage_E = carry
    reward_E, value_E, discount_E, live_E = column
    delta_E = reward_E + discount_E * next_value_E - value_E
    advantage_E = delta_E + discount_E * gae_lambda * next_advantage_E
    on = live_E > 0
    carry = jnp.where(on, value_E, next_value_E), jnp.where(on, advantage_E, next_advantage_E)
    return carry, jnp.where(on, advantage_E, 0.0)

  columns = tuple(x.T.astype(jnp.float32) for x in (rewards_EL, values_EL, discounts_EL, live_EL))
  start = (last_values_E.astype(jnp.float32), jnp.zeros_like(last_values_E, jnp.float32))
  _, advantages_LE = jax.lax.scan(back, start, columns, reverse=True)
  advantages_EL = advantages_LE.T
  return advantages_EL, jnp.where(live_EL > 0, advantages_EL + values_EL, 0.0)


def whiten(advantages, mask, epsilon: float = 1e-5):
  """(A - mean) / (std + epsilon) over the mask, biased variance; zeros where fewer than two are counted."""
  mask = mask.astype(jnp.float32)
  advantages = jnp.where(mask > 0, advantages, 0.0)  # what is not counted may be NaN
  count = jnp.sum(mask)
  mean = row_sum(advantages * mask) / jnp.maximum(count, 1.0)
  variance = row_sum(jnp.square(advantages - mean) * mask) / jnp.maximum(count, 1.0)
  white = (advantages - mean) / (jnp.sqrt(variance) + epsilon) * mask
  return jnp.where(count >= 2, white, 0.0)


def group_relative(rewards_E, group: int, scale: bool = True, epsilon: float = 1e-4):
  """R - mean of the group, over its standard deviation (n - 1, as all peers have it) + epsilon with `scale`.

  Exactly 0 where all rewards of a group are equal, whatever the mean was rounded to.
  """
  rewards_GE, alike_1E = _in_groups(rewards_E, group)
  advantages_GE = rewards_GE - jnp.mean(rewards_GE, axis=0, keepdims=True)
  if scale:
    advantages_GE = advantages_GE / (jnp.std(rewards_GE, axis=0, ddof=1, keepdims=True) + epsilon)
  return _in_line(advantages_GE, alike_1E)


def leave_one_out(rewards_E, group: int):
  """R - mean of the group's other rewards; exactly 0 where all of them are equal."""
  rewards_GE, alike_1E = _in_groups(rewards_E, group)
  others_GE = (jnp.sum(rewards_GE, axis=0, keepdims=True) - rewards_GE) / (group - 1)
  return _in_line(rewards_GE - others_GE, alike_1E)


def _in_groups(rewards_E, group: int):
  """(a column a group, which of them are constant)."""
  rewards_GE = rewards_E.astype(jnp.float32).reshape(-1, group).T
  return rewards_GE, jnp.max(rewards_GE, axis=0, keepdims=True) == jnp.min(rewards_GE, axis=0, keepdims=True)


def _in_line(advantages_GE, alike_1E):
  return jnp.where(alike_1E, 0.0, advantages_GE).T.reshape(-1)
