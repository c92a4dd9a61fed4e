"""What group methods share: several answers to one prompt, each judged against the others, and no value function."""

import dataclasses
from typing import Literal, get_args, get_origin, get_type_hints

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class GroupConfig:
  """How a policy learns from groups of episodes that begin alike. The reward of an episode is the sum of its turns'.

  group: episodes of one prompt; at least 2, and it divides batch and rollout.rows
  epochs: passes over the episodes of an iteration
  minibatches: optimizer updates an epoch
  clip: epsilon of the policy ratio
  kl_coef: weight of the KL to the start (0: the reference is not even loaded)
  turn_gamma: discount from a turn's reward to the next in the sum
  truncated: "keep", or "mask": episodes with a response cut at rollout.max_new_tokens, or whose chat no longer fitted,
    leave the loss, but not their group's mean
  overlong_buffer: the last tokens before max_new_tokens, over which a response loses up to overlong_penalty of its
    reward, linearly (0: none does)
  overlong_penalty: what a response of max_new_tokens loses
  max_rounds: rounds of episodes an iteration may play until the batch is full of groups that do not all fare alike
    (dynamic sampling); what is missing then is filled with groups whose advantage is 0 (1: the first round is taken)
  filter_by: what tells whether a group fares alike: "success", or its "reward" before any penalty
  """

  group: int = 8
  epochs: int = 1
  minibatches: int = 4
  clip: float = 0.2
  kl_coef: float = 0.0
  turn_gamma: float = 1.0
  truncated: Literal["keep", "mask"] = "keep"
  overlong_buffer: int = 0
  overlong_penalty: float = 1.0
  max_rounds: int = 1
  filter_by: Literal["success", "reward"] = "success"


def refuse(section: GroupConfig) -> None:
  """ValueError, beginning with the key, for a field that makes no sense."""
  for name, kind in get_type_hints(type(section)).items():
    if get_origin(kind) is Literal and getattr(section, name) not in get_args(kind):
      raise ValueError(f"{name} is {getattr(section, name)!r}; it must be one of {', '.join(get_args(kind))}.")
  if section.group < 2:
    raise ValueError(f"group is {section.group}; it must be at least 2: an episode is judged against the others of its "
                     "group, and alone it has none.")
  for name in ("epochs", "minibatches", "max_rounds"):
    if getattr(section, name) < 1:
      raise ValueError(f"{name} is {getattr(section, name)}; it must be at least 1.")
  if not 0 < section.clip < 1:
    raise ValueError(f"clip is {section.clip}; it must lie between 0 and 1, for example 0.2.")
  if not 0 <= section.turn_gamma <= 1:
    raise ValueError(f"turn_gamma is {section.turn_gamma}; it must lie in [0, 1].")
  for name in ("kl_coef", "overlong_buffer", "overlong_penalty"):
    if not getattr(section, name) >= 0:  # so that nan is refused too
      raise ValueError(f"{name} is {getattr(section, name)}; it must not be negative.")


def weigh(mask_BT, mean: str, longest: int):
  """(weights_BT, count): a mean is sum(weights x) / count, and sums of either over pieces of a batch are exact.

  mean: "token": over all tokens alike. "sequence": over tokens of an episode, then over episodes, so that a token of a
  long episode weighs less. "constant": sums over episodes, divided by `longest` tokens each, however long they are.
  """
  tokens_B1 = jnp.sum(mask_BT, axis=1, keepdims=True)
  if mean == "sequence":
    return mask_BT / jnp.maximum(tokens_B1, 1.0), jnp.sum((tokens_B1 > 0).astype(jnp.float32))
  count = jnp.sum(mask_BT) if mean == "token" else jnp.float32(mask_BT.shape[0] * longest)
  return mask_BT, count
