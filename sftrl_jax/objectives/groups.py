"""Settings and weights of the group methods, which compare several answers to one prompt and have no value function."""

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp

from sftrl_jax.objectives.surrogate import refuse_bounds


@dataclasses.dataclass(frozen=True)
class GroupConfig:
  """How a policy learns from groups of episodes that begin alike. The reward of an episode is the sum of its turns'.

  group: episodes of one prompt; at least 2, and it divides batch and rollout.rows
  epochs: passes over the episodes of an iteration
  minibatches: optimizer updates an epoch
  clip: epsilon of the policy ratio
  dual_clip: for a negative advantage, the ratio from which on an action pulls no more (0: none; Ye et al. 2020, 3.0)
  target_kl: the largest approximate KL, policy/approxkl_avg of a minibatch, to the policy that played (0: no limit). A
    minibatch with a larger one is not applied, and neither are those after it in the iteration; the first one always
    is. The schedule counts what is applied
  kl_coef: weight of the KL to the start (0: the reference is not loaded)
  kl_target: nats a response that the KL is held near, from kl_coef on (0: kl_coef is fixed), as that of ppo
  kl_horizon: episodes over which an error of 100% would double the coefficient, if more than 20% counted
  turn_gamma: discount from a turn's reward to the next in the sum
  truncated: "keep", or "mask": episodes with a response cut at rollout.max_new_tokens, or with a chat that no longer
    fits, leave the loss, but not their group's mean
  overlong_buffer: the last tokens before max_new_tokens, over which a response loses up to overlong_penalty of its
    reward, linearly (0: no penalty)
  overlong_penalty: the loss of reward of a response of max_new_tokens
  max_rounds: most rounds of episodes of an iteration until the batch is full of groups whose episodes differ (dynamic
    sampling); groups with advantage 0 then fill the rest of the batch (1: the first round is the batch)
  filter_by: by what the episodes of a group differ: "success", or the "reward" before any penalty
  """

  group: int = 8
  epochs: int = 1
  minibatches: int = 4
  clip: float = 0.2
  dual_clip: float = 0.0
  target_kl: float = 0.0
  kl_coef: float = 0.0
  kl_target: float = 0.0
  kl_horizon: int = 10_000
  turn_gamma: float = 1.0
  truncated: Literal["keep", "mask"] = "keep"
  overlong_buffer: int = 0
  overlong_penalty: float = 1.0
  max_rounds: int = 1
  filter_by: Literal["success", "reward"] = "success"


def refuse_choices(config: Any) -> None:
  """ValueError, beginning with the key, for a Literal field of a dataclass that holds another value."""
  for name, kind in get_type_hints(type(config)).items():
    if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
      raise ValueError(f"{name} is {getattr(config, name)!r}; it must be one of {', '.join(get_args(kind))}.")


def refuse(config: GroupConfig) -> None:
  """ValueError, beginning with the key, for a field out of its range."""
  refuse_choices(config)
  if config.group < 2:
    raise ValueError(f"group is {config.group}; it must be at least 2: an episode is judged against the others of its "
                     "group.")
  for name in ("epochs", "minibatches", "max_rounds"):
    if getattr(config, name) < 1:
      raise ValueError(f"{name} is {getattr(config, name)}; it must be at least 1.")
  if not 0 < config.clip < 1:
    raise ValueError(f"clip is {config.clip}; it must lie between 0 and 1, for example 0.2.")
  refuse_bounds(config)
  if not 0 <= config.turn_gamma <= 1:
    raise ValueError(f"turn_gamma is {config.turn_gamma}; it must lie in [0, 1].")
  for name in ("kl_coef", "kl_target", "overlong_buffer", "overlong_penalty"):
    if not getattr(config, name) >= 0:  # so that nan is refused too
      raise ValueError(f"{name} is {getattr(config, name)}; it must not be negative.")
  refuse_kl_target(config)


def refuse_kl_target(config: Any) -> None:
  """ValueError, beginning with the key, for a target of the KL that cannot be held."""
  if config.kl_target and not config.kl_coef:
    raise ValueError(f"kl_target is {config.kl_target}, but kl_coef is 0, and no factor changes that: begin with a "
                     "coefficient above 0, or use kl_target=0.")
  if config.kl_horizon < 1:
    raise ValueError(f"kl_horizon is {config.kl_horizon}; it must be at least 1 episode.")


def by_episode(x_B: jax.Array, rows: int) -> jax.Array:
  """x_E: sums over the rows of each episode, where row s * E + e of rows * E is of episode e."""
  return x_B if rows == 1 else jnp.sum(x_B.reshape(rows, -1), axis=0)


def weigh(mask_BT: jax.Array, mean: str, longest: int, rows: int = 1) -> tuple[jax.Array, jax.Array]:
  """(weights_BT, count): the mean is sum(weights x) / count. Both sums add up exactly over pieces of a batch.

  mean: "token": over all tokens alike. "sequence": over the tokens of an episode, then over episodes, so that tokens of
  a long episode weigh less. "constant": sums over episodes, divided by `longest` tokens each, whatever their length.
  rows: of an episode, see `by_episode`
  """
  if mean == "sequence":
    tokens_E = by_episode(jnp.sum(mask_BT, axis=1), rows)
    tokens_B = tokens_E if rows == 1 else jnp.tile(tokens_E, rows)
    return mask_BT / jnp.maximum(tokens_B, 1.0)[:, None], jnp.sum((tokens_E > 0).astype(jnp.float32))
  count = jnp.sum(mask_BT) if mean == "token" else jnp.float32(mask_BT.shape[0] // rows * longest)
  return mask_BT, count
