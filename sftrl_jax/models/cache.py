"""The key/value cache: one pair of arrays a layer, one shared write index."""

import jax
import jax.numpy as jnp
from flax import struct

from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.models.layout import HEADS, constrain, spread


@struct.dataclass
class Cache:
  """Keys and values of the tokens read so far, per layer and not stacked: a stacked cache is copied whole by every
  layer's update. [B, K, S, C] because that is the order the decode matmuls want on every backend measured."""

  keys_BKSC: tuple[jax.Array, ...]
  values_BKSC: tuple[jax.Array, ...]
  positions_BS: jax.Array  # int32
  segments_BS: jax.Array  # int32, 0 = nothing here
  index: jax.Array  # int32 scalar: where the next token goes, the same for every row


def empty(config: DecoderConfig, rows: int, length: int) -> Cache:
  """A cache for `rows` rows of `length` tokens with nothing in it."""
  shape = (rows, config.kv_heads, length, config.head_dim)
  one = lambda: constrain(jnp.zeros(shape, config.dtype), HEADS)
  blank = lambda: tuple(one() for _ in range(config.layers))
  ints = lambda: jnp.zeros((rows, length), jnp.int32)
  return Cache(blank(), blank(), ints(), ints(), jnp.zeros((), jnp.int32))


def grow(cache: Cache, length: int) -> Cache:
  """The same cache with room for `length` tokens."""
  more = length - cache.positions_BS.shape[1]
  if more < 0:
    raise ValueError(f"A cache of {cache.positions_BS.shape[1]} tokens cannot grow to {length}.")
  pad = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0)))
  pad2 = lambda x: jnp.pad(x, ((0, 0), (0, more)))
  return Cache(tuple(map(pad, cache.keys_BKSC)), tuple(map(pad, cache.values_BKSC)),
               pad2(cache.positions_BS), pad2(cache.segments_BS), cache.index)


def take(cache: Cache, rows_B: jax.Array) -> Cache:
  """The chosen rows, in that order: finished conversations leave the batch.

  Where rows are split over devices, each has all rows of a few channels meanwhile; else XLA has it hold everything.
  """
  pick = lambda x: jnp.take(x, rows_B, axis=0)
  move = lambda x_BKSC: constrain(spread(pick(spread(x_BKSC))), HEADS)
  return Cache(tuple(map(move, cache.keys_BKSC)), tuple(map(move, cache.values_BKSC)),
               pick(cache.positions_BS), pick(cache.segments_BS), cache.index)


def reserve(cache: Cache, positions_BT: jax.Array, segments_BT: jax.Array) -> Cache:
  """Marks the next T places as these tokens' and moves the index; the layers write their keys there."""
  put = lambda old, new: jax.lax.dynamic_update_slice(old, new, (0, cache.index))
  return cache.replace(positions_BS=put(cache.positions_BS, positions_BT),
                       segments_BS=put(cache.segments_BS, segments_BT),
                       index=cache.index + positions_BT.shape[1])
