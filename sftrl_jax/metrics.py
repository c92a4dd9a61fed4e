"""Numbers with units stay sums until they are printed."""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Mean:
  """A mean that has not been divided yet; adding two is exact over microbatches, devices, hosts and steps."""

  total: jax.Array
  weight: jax.Array

  def __add__(self, other: "Mean") -> "Mean":
    return Mean(self.total + other.total, self.weight + other.weight)

  def value(self):
    """The mean, 0 where nothing was counted."""
    return jnp.where(self.weight > 0, self.total / jnp.where(self.weight > 0, self.weight, 1), 0.0)


@struct.dataclass
class Peak:
  """A running maximum; adding two keeps the larger."""

  top: jax.Array

  def __add__(self, other: "Peak") -> "Peak":
    return Peak(jnp.maximum(self.top, other.top))

  def value(self):
    return self.top


def row_sum(values) -> jax.Array:
  """The sum, each row's first: in one go XLA adds thousands of numbers one after another, and what is rounded off
  depends on how many of them a device has. The barrier keeps XLA from making one sum of the two."""
  return jnp.sum(jax.lax.optimization_barrier(jnp.sum(values, axis=-1)))


def masked_mean(values, mask) -> Mean:
  """Sum over the mask, and its weight. Values off it may be anything, NaN included: 0 * NaN is NaN, hence `where`."""
  weights = mask.astype(jnp.float32)
  return Mean(row_sum(jnp.where(mask != 0, values.astype(jnp.float32), 0.0) * weights), jnp.sum(weights))


def masked_peak(values, mask) -> Peak:
  return Peak(jnp.max(jnp.where(mask != 0, values.astype(jnp.float32), -jnp.inf), initial=-jnp.inf))


def merge(left: dict, right: dict) -> dict:
  """Adds two dictionaries of metrics key by key."""
  return {name: left[name] + right[name] for name in left}


def zeros_like_metrics(metrics):
  """What changes no metrics of these shapes, whatever it is added to."""
  zeros = lambda x: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x)
  one = lambda x: Peak(jnp.full(x.top.shape, -jnp.inf, x.top.dtype)) if isinstance(x, Peak) else zeros(x)
  return jax.tree.map(one, metrics, is_leaf=lambda x: isinstance(x, Peak))


def merge_host(fetched: list):
  """Metrics of one name from several steps, on the host: Means and Peaks merged, plain numbers averaged.

  Plain Python on fetched values: a jnp operation here would be compiled, and nothing may be after the start.
  """
  if isinstance(fetched[0], Mean):
    return Mean(sum(float(m.total) for m in fetched), sum(float(m.weight) for m in fetched))
  if isinstance(fetched[0], Peak):
    return Peak(max(float(m.top) for m in fetched))
  return sum(map(float, fetched)) / len(fetched)


def to_json(metric):
  """A fetched metric as JSON holds it, exactly; `read` makes it a metric again."""
  if isinstance(metric, Mean):
    return {"total": float(metric.total), "weight": float(metric.weight)}
  return {"top": float(metric.top)} if isinstance(metric, Peak) else float(metric)


def from_json(metric):
  if isinstance(metric, dict):
    return Peak(**metric) if "top" in metric else Mean(**metric)
  return metric


def number(metric) -> float:
  """A fetched metric as the number that is printed; 0 for a mean of nothing."""
  if isinstance(metric, Mean):
    return float(metric.total) / float(metric.weight) if float(metric.weight) > 0 else 0.0
  return float(metric.top if isinstance(metric, Peak) else metric)


def floats(metrics: dict) -> dict[str, float]:
  """Metrics as numbers to print, fetched in one transfer."""
  return {name: number(metric) for name, metric in jax.device_get(metrics).items()}
