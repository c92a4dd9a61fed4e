"""From hidden states to logits: the one formula of training, scoring and sampling."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Readout(NamedTuple):
  """How a model makes logits of the products h W of hidden states and its unembedding.

  ids: columns that have probability, where the table has more (0: all of them)
  divisor: products are divided by it
  softcap: they then become softcap * tanh(product / softcap) (0: they stay)
  """

  ids: int = 0
  divisor: float = 1.0
  softcap: float = 0.0

  def logits(self, products: jax.Array) -> jax.Array:
    """Logits of products [..., V], f32. Columns without probability are -1e9: finite, so that 0 * log 0 is 0 in entropy
    and KL."""
    logits = products if self.divisor == 1 else products / self.divisor
    logits = jnp.tanh(logits / self.softcap) * self.softcap if self.softcap else logits
    if not self.ids:
      return logits
    return jnp.where(jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) < self.ids, logits, -1e9)

  def backward(self, d_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """The gradient of products from that of logits, which is 0 in columns without probability."""
    if self.softcap:
      d_logits = d_logits * (1.0 - jnp.square(logits / self.softcap))
    return d_logits if self.divisor == 1 else d_logits / self.divisor


PLAIN = Readout()   # logits are the products
