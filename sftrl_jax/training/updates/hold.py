"""An update from which the policy has nothing to learn leaves it as it is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sftrl_jax import trees
from sftrl_jax.objectives.batches import GroupBatch, PolicyBatch, TokenBatch, has_advantage
from sftrl_jax.training.score import CRITIC
from sftrl_jax.training.state import TrainState

POLICY = {"model", "lora"}   # roots of parameters that are the policy's


def is_policy(path: str) -> bool:
  """Whether a parameter, or an optimizer's array of it, is the policy's and not the value function's."""
  names = path.split("/")
  return bool(POLICY.intersection(names)) and CRITIC not in names


def hold_policy(step: Callable, without_advantage: bool = True, warmup: int = 0) -> Callable:
  """A train step that changes nothing of the policy where it has nothing to learn.

  Momentum, weight decay and a value loss that reaches the trunk would move it all the same: parameters and the
  optimizer's arrays of them stay bit for bit. The value head learns, and the schedule goes on.
  step: (state, batch, ...) -> (state, metrics)
  without_advantage: hold it where no token of the minibatch has an advantage
  warmup: hold it in so many first updates, the critic's warm-up
  """

  def train_step(state: TrainState, batch: PolicyBatch | GroupBatch | TokenBatch, *rest: Any
                 ) -> tuple[TrainState, dict]:
    after, metrics = step(state, batch, *rest)
    learns, before = has_advantage(batch) if without_advantage else True, trees.leaves((state.params, state.opt_state))
    learns &= state.step >= warmup if warmup else True

    def held(path: str, new: jax.Array) -> jax.Array:
      return jnp.where(learns, new, before[path]) if is_policy(path) else new

    params, opt_state = trees.map_with_path(held, (after.params, after.opt_state))
    return TrainState(after.step, params, opt_state), metrics

  return train_step


def without_policy(grads: dict, drop: jax.Array) -> dict:
  """Gradients with zeros for the policy's where `drop`: in a norm that is clipped, the value head's count alone."""
  return trees.map_with_path(lambda path, g: jnp.where(drop, 0.0, g).astype(g.dtype) if is_policy(path) else g, grads)
