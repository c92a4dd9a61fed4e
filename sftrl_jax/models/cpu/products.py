"""A projection as one product of two matrices."""

import math
import re

import jax
import jax.numpy as jnp


def by_matrices(equation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
  """einsum(equation, x, kernel), to rounding, with rows and tokens as one axis, in the backward pass too.

  equation: every axis of `kernel` is one of x, which is summed over, or one of the result, as in "btd,dhc->bhtc"
  XLA's CPU backend is slow at products that sum over several axes, as the gradient of a kernel does over b and t.
  """
  inputs, read, out = re.split(",|->", equation)
  summed = [axis for axis in inputs if axis in read]
  rows, written = [axis for axis in inputs if axis not in read], [axis for axis in read if axis not in summed]
  sizes = dict(zip(inputs + read, (*x.shape, *kernel.shape), strict=True))
  matrix = jnp.einsum(f"{inputs}->{''.join(rows + summed)}", x).reshape(math.prod(sizes[axis] for axis in rows), -1)
  product = matrix @ kernel.reshape(matrix.shape[1], -1)
  return jnp.einsum(f"{''.join(rows + written)}->{out}", product.reshape([sizes[axis] for axis in rows + written]))
