"""One train step for every objective."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sftrl_jax import trees
from sftrl_jax.metrics import Mean, merge, zeros_like_metrics
from sftrl_jax.objectives.batches import LOGPROBS
from sftrl_jax.training.state import TrainState
from sftrl_jax.training.updates.hold import without_policy
from sftrl_jax.training.updates.lengths import RowLengths, gradient_by_length

Loss = Callable[[dict, object], tuple[Mean, dict]]


def accumulate(loss: Loss, params: dict, batch: Any, microbatches: int, lengths: RowLengths | None = None
               ) -> tuple[dict, Mean, dict]:
  """(gradient of the loss total, loss Mean, metrics), summed over microbatches by a scan: exact, whatever the masks.

  lengths: of a batch of right-padded rows, each of whose microbatches is computed at the length that it needs
  """

  def total(params: dict, piece: Any) -> tuple:
    value, metrics = loss(params, piece)
    return value.total, (value, metrics)

  gradient = jax.grad(total, has_aux=True)
  gradient = gradient_by_length(gradient, lengths) if lengths else gradient
  if microbatches == 1:
    grads, (value, metrics) = gradient(params, batch)
    return grads, value, metrics
  pieces = deal(batch, microbatches)
  by_row = lambda metrics: {name: metrics[name] for name in (LOGPROBS,) if name in metrics}   # which have no sum
  sums = lambda metrics: {name: metric for name, metric in metrics.items() if name != LOGPROBS}

  def add(carry: tuple, piece: Any) -> tuple:
    grads, value, metrics = carry
    more, (more_value, more_metrics) = gradient(params, piece)
    carry = jax.tree.map(jnp.add, grads, more), value + more_value, merge(metrics, sums(more_metrics))
    return carry, by_row(more_metrics)

  shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], pieces))[1]
  zeros = (jax.tree.map(jnp.zeros_like, params), *zeros_like_metrics((shapes[0], sums(shapes[1]))))
  (grads, value, metrics), rows = jax.lax.scan(add, zeros, pieces)
  return grads, value, metrics | gather(rows)


def deal(tree: Any, microbatches: int) -> Any:
  """Arrays [B, ...] as [microbatches, B / microbatches, ...]: row i goes to microbatch i mod n, so that each device
  keeps the rows it has."""
  split = lambda x: jnp.swapaxes(x.reshape(x.shape[0] // microbatches, microbatches, *x.shape[1:]), 0, 1)
  return jax.tree.map(split, tree)


def gather(pieces: Any) -> Any:
  """The inverse of `deal`."""
  return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), pieces)


def make_train_step(loss: Loss, optimizer: optax.GradientTransformation, schedule: Callable, microbatches: int = 1,
                    full_params: Callable[[dict, Any], dict] | None = None,
                    at_share: Callable[[jax.Array], tuple] | None = None, warmup: int = 0,
                    lengths: RowLengths | None = None) -> Callable:
  """train_step(state, batch, frozen, spent) -> (state, metrics): gradient of sums, divided once by the global weight,
  then optax.

  Objectives differ in `loss` and in nothing else. A step whose loss, gradient or update is not finite changes nothing
  and counts in `nonfinite_steps`: so parameters and optimizer state stay finite. `schedule` is for the metrics alone:
  the optimizer has its own.
  full_params: (params, frozen) -> the parameters that the loss reads, None for those of the state; `frozen` has no
    gradient
  at_share: spent -> (optimizer, schedule), of a run whose rate follows the share of its FLOPs that are spent; `spent`
    is None in all others
  warmup: first updates in which the policy has no gradient, see `hold.hold_policy`
  lengths: see `accumulate`; the metrics then have lengths.COUNTS
  """

  def train_step(state: TrainState, batch: Any, frozen: Any = None,
                 spent: jax.Array | None = None) -> tuple[TrainState, dict]:
    rule, rate = (optimizer, schedule) if spent is None else at_share(spent)
    of_state = loss if full_params is None else lambda params, piece: loss(full_params(params, frozen), piece)
    grads, value, metrics = accumulate(of_state, state.params, batch, microbatches, lengths)
    weight = jnp.maximum(value.weight, 1.0)
    grads = jax.tree.map(lambda g: g / weight.astype(g.dtype), grads)
    grads = without_policy(grads, state.step < warmup) if warmup else grads
    grad_norm = trees.norm(grads)
    updates, opt_state = rule.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # A finite gradient may give an update that is none: 0 / 0 without an epsilon, or slots that overflow.
    finite = jnp.isfinite(value.total) & jnp.isfinite(grad_norm) & trees.stays_finite(
        (state.params, state.opt_state), (params, opt_state))
    keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
    after = TrainState(state.step + 1, keep(params, state.params), keep(opt_state, state.opt_state))
    # A loss that is no mean over tokens reports the number of its tokens itself.
    metrics = {"label_tokens": value.weight, **metrics, "loss": value, "grad_norm": grad_norm,
               "learning_rate": rate(state.step), "nonfinite_steps": 1.0 - finite.astype(jnp.float32)}
    return after, metrics

  return train_step
