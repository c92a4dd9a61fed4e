"""An update is not applied where the policy has gone too far from the one that played."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sftrl_jax.training.state import TrainState

APPLIED, STOPPED = "policy/updates", "policy/early_stops"   # metrics, which are counts


def limit_kl(step: Callable, target_kl: float, warmup: int = 0) -> Callable:
  """A train step that leaves the whole state as it is where policy/approxkl_avg of the minibatch is above `target_kl`.

  As in Stable-Baselines3 the minibatch that exceeds the target is not applied itself; its measure is that of CleanRL,
  the target itself and not 1.5 times it. Who calls it ends the iteration where the metric policy/early_stops is 1.
  step: (state, batch, ...) -> (state, metrics)
  warmup: updates of the critic's warm-up, in which the policy stays and is not judged

  The function that is returned has an argument `first`: whether this is the iteration's first minibatch, which is
  always applied. The policy is then the one that played, and its KL is rounding alone.
  """

  def train_step(state: TrainState, batch: Any, frozen: Any = None, spent: jax.Array | None = None,
                 first: jax.Array | bool = False) -> tuple[TrainState, dict]:
    after, metrics = step(state, batch, frozen, spent)
    exceeds = (metrics["policy/approxkl_avg"].value() > target_kl) & jnp.logical_not(first)
    exceeds &= state.step >= warmup
    kept = jax.tree.map(lambda new, old: jnp.where(exceeds, old, new), after, state)
    stopped = exceeds.astype(jnp.float32)
    finite = 1.0 - metrics["nonfinite_steps"]
    return kept, {**metrics, APPLIED: finite * (1.0 - stopped), STOPPED: stopped}

  return train_step
