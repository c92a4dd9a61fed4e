"""A checksum per array, the same however the array is sharded: restored bits are compared with those that were saved.

sum over elements i of bits(x_i) * odd(i) modulo 2^32, where i is the global index in row-major order and odd(i) is its
hash with the lowest bit set. A sum does not care in which order devices add; an odd factor is invertible modulo 2^32,
so that a change within one word always shows, and any other passes with a chance of 2^-32. Orbax has none of its
own: a byte flipped on disk is restored in silence.
"""

import hashlib
import json

import jax
import jax.numpy as jnp

from sftrl_jax import trees

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def _mixed(index):
  """A hash of 32 bits to 32 bits (Murmur3's last steps)."""
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


def checksums(tree) -> dict[str, int]:
  """{path: checksum} of every array; waits for them. One program a tree shape."""
  return {path: int(value) for path, value in trees.leaves(jax.device_get(_sums(tree))).items()}


def described(tree) -> dict[str, list]:
  """{path: [shape, dtype, checksum]} as it is written beside the arrays."""
  sums = checksums(tree)
  return {path: [list(leaf.shape), str(leaf.dtype), sums[path]] for path, leaf in trees.leaves(tree).items()}


def sha256(value) -> str:
  """Of anything JSON holds, the order of keys apart."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
