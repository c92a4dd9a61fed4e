"""Metrics that stay sums until they are printed."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Mean:
  """A mean before its division; the sum of two is exact over microbatches, devices, hosts and steps."""

  total: jax.Array
  weight: jax.Array

  def __add__(self, more: "Mean") -> "Mean":
    return Mean(self.total + more.total, self.weight + more.weight)

  def value(self) -> jax.Array:
    """The mean; 0 where the weight is 0."""
    return jnp.where(self.weight > 0, self.total / jnp.where(self.weight > 0, self.weight, 1), 0.0)


@struct.dataclass
class Peak:
  """A running maximum; the sum of two is the larger one."""

  top: jax.Array

  def __add__(self, more: "Peak") -> "Peak":
    return Peak(jnp.maximum(self.top, more.top))

  def value(self) -> jax.Array:
    return self.top


def row_sum(values: jax.Array) -> jax.Array:
  """The sum over all entries, each row's first. In a single sum XLA adds thousands of numbers one after another, and
  their rounding depends on how many of them a device has. The barrier keeps XLA from merging the two sums."""
  return jnp.sum(jax.lax.optimization_barrier(jnp.sum(values, axis=-1)))


def masked_mean(values: jax.Array, mask: jax.Array) -> Mean:
  """Sum over the mask, and its weight. Values off it may be NaN, hence `where`: 0 * NaN is NaN."""
  weights = mask.astype(jnp.float32)
  values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
  return Mean(row_sum(jnp.where(mask != 0, values, 0.0) * weights), jnp.sum(weights))


def masked_peak(values: jax.Array, mask: jax.Array) -> Peak:
  """Maximum over the mask; -inf where the mask is empty."""
  return Peak(jnp.max(jnp.where(mask != 0, values.astype(jnp.float32), -jnp.inf), initial=-jnp.inf))


def merge(left: dict, right: dict) -> dict:
  """Adds two dictionaries of metrics key by key."""
  return {name: left[name] + right[name] for name in left}


def zeros_like_metrics(metrics: Any) -> Any:
  """The metrics of these shapes that change nothing when they are added: 0, and -inf for a Peak."""

  def zero(leaf: Any) -> Any:
    if isinstance(leaf, Peak):
      return Peak(jnp.full(leaf.top.shape, -jnp.inf, leaf.top.dtype))
    return jnp.zeros(leaf.shape, leaf.dtype)

  return jax.tree.map(zero, metrics, is_leaf=lambda x: isinstance(x, Peak))


def merge_host(fetched: list) -> Mean | Peak | float:
  """Metrics of one name from several steps, on the host: Means and Peaks merged, plain numbers averaged.

  In plain Python on fetched values, because a jnp operation would compile, and nothing compiles after the start.
  """
  if isinstance(fetched[0], Mean):
    return Mean(sum(float(m.total) for m in fetched), sum(float(m.weight) for m in fetched))
  if isinstance(fetched[0], Peak):
    return Peak(max(float(m.top) for m in fetched))
  return sum(map(float, fetched)) / len(fetched)


def to_json(metric: Any) -> dict | float:
  """A fetched metric as exact JSON; `from_json` reads it."""
  if isinstance(metric, Mean):
    return {"total": float(metric.total), "weight": float(metric.weight)}
  return {"top": float(metric.top)} if isinstance(metric, Peak) else float(metric)


def from_json(metric: dict | float) -> Mean | Peak | float:
  """The metric of `to_json`."""
  if isinstance(metric, dict):
    return Peak(**metric) if "top" in metric else Mean(**metric)
  return metric


def number(metric: Any) -> float:
  """A fetched metric as the number that is printed; 0 for a Mean of weight 0."""
  if isinstance(metric, Mean):
    return float(metric.total) / float(metric.weight) if float(metric.weight) > 0 else 0.0
  return float(metric.top if isinstance(metric, Peak) else metric)


def floats(metrics: dict) -> dict[str, float]:
  """Metrics as numbers to print, fetched in one transfer."""
  return {name: number(metric) for name, metric in jax.device_get(metrics).items()}
