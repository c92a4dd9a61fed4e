"""A projection as one product of two matrices."""

import math
import re

import jax
import jax.numpy as jnp

from sftrl_jax.models import layout


def flattened(choice: bool | str) -> bool:
  """Whether products have rows and tokens as one axis: config.flatten, with "auto" decided.

  Not on a mesh of several devices, which may split rows and tokens each in its own way.
  """
  return layout.platform() == "cpu" and layout.devices() == 1 if choice == "auto" else bool(choice)


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
