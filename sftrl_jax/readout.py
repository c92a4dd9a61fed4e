"""From hidden states to logits: the one formula of training, scoring and sampling."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sftrl_jax import tiles


class Readout(NamedTuple):
  """How a model makes logits of the products h W of hidden states and its unembedding.

  ids: columns that have probability, where the table has more (0: all of them)
  divisor: products are divided by it
  softcap: they then become softcap * tanh(product / softcap) (0: they stay)
  exact: whether sampler and trainer are to agree to the bit: both then call `exact_logits` and `exact_log_softmax`
  """

  ids: int = 0
  divisor: float = 1.0
  softcap: float = 0.0
  exact: bool = False

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

  def exact_logits(self, hidden: jax.Array, kernel_DV: jax.Array) -> jax.Array:
    """logits [..., V], f32, of hidden states [..., D]: the same bits for a token in any batch."""
    product = lambda hidden_MD: self.logits(jnp.einsum("md,dv->mv", hidden_MD, kernel_DV.astype(hidden.dtype),
                                                       preferred_element_type=jnp.float32))
    return tiles.each_of_last_axis(product, hidden)


def exact_log_softmax(logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
  """log_softmax(logits / temperature) over the last axis, f32: the same bits for a token in any batch.

  It multiplies by the inverse, which XLA would do by itself, but only where the temperature is a constant.
  """
  inverse = jnp.float32(1.0) / jnp.asarray(temperature, jnp.float32)
  return tiles.each_of_last_axis(lambda logits_MV: jax.nn.log_softmax(logits_MV * inverse, axis=-1), logits)


PLAIN = Readout()   # logits are the products
