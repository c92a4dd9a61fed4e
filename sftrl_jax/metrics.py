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


def masked_mean(values, mask) -> Mean:
  """Sum over the mask, and its weight. Values off it may be anything, NaN included: 0 * NaN is NaN, hence `where`."""
  weights = mask.astype(jnp.float32)
  return Mean(jnp.sum(jnp.where(mask != 0, values.astype(jnp.float32), 0.0) * weights), jnp.sum(weights))


def masked_peak(values, mask) -> Peak:
  return Peak(jnp.max(jnp.where(mask != 0, values.astype(jnp.float32), -jnp.inf), initial=-jnp.inf))


def merge(left: dict, right: dict) -> dict:
  """Adds two dictionaries of metrics key by key."""
  return {name: left[name] + right[name] for name in left}


def floats(metrics: dict) -> dict[str, float]:
  """Metrics as numbers to print; call on fetched (host) values or pay a transfer each."""
  fetched = jax.device_get({name: m.value() if isinstance(m, Mean | Peak) else m for name, m in metrics.items()})
  return {name: float(value) for name, value in fetched.items()}
