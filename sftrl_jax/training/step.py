"""One train step for every objective."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from sftrl_jax import trees
from sftrl_jax.metrics import Mean, merge, zeros_like_metrics
from sftrl_jax.training.state import TrainState

Loss = Callable[[dict, object], tuple[Mean, dict]]


def accumulate(loss: Loss, params, batch, microbatches: int):
  """(gradient of the loss total, loss Mean, metrics), summed over microbatches by a scan: exact, whatever the masks.

  Rows are dealt out like cards (row i goes to microbatch i mod n), so that each device keeps the rows it has.
  """

  def total(params, piece):
    value, metrics = loss(params, piece)
    return value.total, (value, metrics)

  one = jax.grad(total, has_aux=True)
  if microbatches == 1:
    grads, (value, metrics) = one(params, batch)
    return grads, value, metrics
  deal = lambda x: jnp.swapaxes(x.reshape(x.shape[0] // microbatches, microbatches, *x.shape[1:]), 0, 1)
  pieces = jax.tree.map(deal, batch)

  def add(carry, piece):
    grads, value, metrics = carry
    more, (more_value, more_metrics) = one(params, piece)
    return (jax.tree.map(jnp.add, grads, more), value + more_value, merge(metrics, more_metrics)), None

  told = jax.eval_shape(one, params, jax.tree.map(lambda x: x[0], pieces))[1]
  (grads, value, metrics), _ = jax.lax.scan(add, (jax.tree.map(jnp.zeros_like, params), *zeros_like_metrics(told)), pieces)
  return grads, value, metrics


def make_train_step(loss: Loss, optimizer: optax.GradientTransformation, schedule: Callable, microbatches: int = 1,
                    whole: Callable | None = None):
  """train_step(state, batch, frozen) -> (state, metrics): gradient of sums, divided once by the global weight, then
  optax.

  SFT, PPO and the rest differ in `loss` and in nothing else. A step whose loss or gradient is not finite changes
  nothing and is counted in `nonfinite_steps`; `schedule` is only reported.
  whole: (params, frozen) -> what the loss reads; without it, the parameters themselves. `frozen` has no gradient.
  """

  def train_step(state: TrainState, batch, frozen=None) -> tuple[TrainState, dict]:
    reads = loss if whole is None else lambda params, piece: loss(whole(params, frozen), piece)
    grads, value, metrics = accumulate(reads, state.params, batch, microbatches)
    weight = jnp.maximum(value.weight, 1.0)
    grads = jax.tree.map(lambda g: g / weight.astype(g.dtype), grads)
    grad_norm = trees.norm(grads)
    finite = jnp.isfinite(value.total) & jnp.isfinite(grad_norm)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
    after = TrainState(state.step + 1, keep(params, state.params), keep(opt_state, state.opt_state))
    # A loss that is no mean over tokens says itself how many it was computed on.
    metrics = {"label_tokens": value.weight, **metrics, "loss": value, "grad_norm": grad_norm,
               "learning_rate": schedule(state.step), "nonfinite_steps": 1.0 - finite.astype(jnp.float32)}
    return after, metrics

  return train_step
