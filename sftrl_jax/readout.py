"""From hidden states to logits: the one formula of training, scoring and sampling."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Readout(NamedTuple):
  """How a model makes logits of the products h W of hidden states and its unembedding.

  ids: columns that have probability, where the table has more (0: all of them)
  divisor: products are divided by it
  softcap: they then become softcap * tanh(product / softcap) (0: they stay)
  barred: ids without probability among the others, such as those that stand for pictures
  in_tiles: where sampler and trainer agree to the bit: (function of vectors [M, D], [..., D]) -> its results, the same
    bits for a vector in any batch (models/tiles.py). Both then call `exact_logits` and `exact_log_softmax`
  """

  ids: int = 0
  divisor: float = 1.0
  softcap: float = 0.0
  in_tiles: Callable | None = None
  barred: tuple[int, ...] = ()

  def logits(self, products: jax.Array) -> jax.Array:
    """Logits of products [..., V], f32. Columns without probability are -1e9: finite, so that 0 * log 0 is 0 in entropy
    and KL."""
    logits = products if self.divisor == 1 else products / self.divisor
    logits = jnp.tanh(logits / self.softcap) * self.softcap if self.softcap else logits
    if not self.ids and not self.barred:
      return logits
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    logits = jnp.where(ids < self.ids, logits, -1e9) if self.ids else logits
    for barred in self.barred:
      logits = jnp.where(ids == barred, -1e9, logits)
    return logits

  def backward(self, d_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """The gradient of products from that of logits, which is 0 in columns without probability."""
    if self.softcap:
      d_logits = d_logits * (1.0 - jnp.square(logits / self.softcap))
    return d_logits if self.divisor == 1 else d_logits / self.divisor

  def exact_logits(self, hidden: jax.Array, kernel_DV: jax.Array) -> jax.Array:
    """logits [..., V] in f32 of hidden states [..., D]."""
    product = lambda hidden_MD: self.logits(jnp.einsum("md,dv->mv", hidden_MD, kernel_DV.astype(hidden.dtype),
                                                       preferred_element_type=jnp.float32))
    return self.in_tiles(product, hidden)

  def exact_log_softmax(self, logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """log_softmax(logits / temperature) over the last axis, f32. It multiplies by the inverse: so XLA does by itself,
    but only where the temperature is a constant."""
    inverse = jnp.float32(1.0) / jnp.asarray(temperature, jnp.float32)
    return self.in_tiles(lambda logits_MV: jax.nn.log_softmax(logits_MV * inverse, axis=-1), logits)


PLAIN = Readout()   # logits are the products
