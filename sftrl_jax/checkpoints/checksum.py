"""A checksum per array that does not depend on its sharding, to compare restored arrays with saved ones bit by bit.

It is the sum over elements i of bits(x_i) * odd(i) modulo 2^32, where i is the global row-major index and odd(i) is
its hash with the lowest bit set. A sum is independent of the order in which devices add. An odd factor is invertible
modulo 2^32, so a change within one word always changes the sum; any other goes unnoticed with a chance of 2^-32. Orbax
has no checksums: it restores a byte flipped on disk without an error.
"""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp

from sftrl_jax import trees

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def _mixed(index):
  """A hash of 32 bits to 32 bits (the last steps of Murmur3)."""
  index = (index ^ (index >> 16)) * jnp.uint32(0x85EBCA6B)
  index = (index ^ (index >> 13)) * jnp.uint32(0xC2B2AE35)
  return index ^ (index >> 16)


def _sum(x) -> jax.Array:
  x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
  bits = jax.lax.bitcast_convert_type(x, _WORDS[x.dtype.itemsize]).astype(jnp.uint32)
  index, stride = jnp.zeros(bits.shape, jnp.uint32), 1
  for axis in reversed(range(bits.ndim)):
    index += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(stride % 2**32)
    stride *= bits.shape[axis]
  return jnp.sum(bits * (_mixed(index) | jnp.uint32(1)), dtype=jnp.uint32)


@jax.jit
def _sums(tree):
  return jax.tree.map(_sum, tree)


def checksums(tree: Any) -> dict[str, int]:
  """{path: checksum} of every array; blocks until they are computed. Compiles one program for each tree shape."""
  return {path: int(value) for path, value in trees.leaves(jax.device_get(_sums(tree))).items()}


def described(tree: Any) -> dict[str, list]:
  """{path: [shape, dtype, checksum]}, which checkpoints hold beside the arrays."""
  sums = checksums(tree)
  return {path: [list(leaf.shape), str(leaf.dtype), sums[path]] for path, leaf in trees.leaves(tree).items()}


def sha256(value: Any) -> str:
  """The SHA-256 of a JSON value, whatever the order of its keys."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
