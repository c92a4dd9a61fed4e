"""An update without an advantage leaves the policy as it is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sftrl_jax import trees
from sftrl_jax.objectives.batches import GroupBatch, PolicyBatch, has_advantage
from sftrl_jax.training.state import TrainState

POLICY = {"model", "lora"}   # roots of parameters that are the policy's


def hold_policy(step: Callable) -> Callable:
  """A train step that changes nothing of the policy where no token of the minibatch has an advantage.

  Its gradient is then 0, but momentum, weight decay and a value loss that reaches the trunk would move it all the same:
  parameters and the optimizer's arrays of them stay bit for bit. The value head learns, and the schedule goes on.
  step: (state, batch, ...) -> (state, metrics)
  """

  def train_step(state: TrainState, batch: PolicyBatch | GroupBatch, *rest: Any) -> tuple[TrainState, dict]:
    after, metrics = step(state, batch, *rest)
    learns, before = has_advantage(batch), trees.leaves((state.params, state.opt_state))

    def held(path: str, new: jax.Array) -> jax.Array:
      return jnp.where(learns, new, before[path]) if POLICY.intersection(path.split("/")) else new

    params, opt_state = trees.map_with_path(held, (after.params, after.opt_state))
    return TrainState(after.step, params, opt_state), metrics

  return train_step
