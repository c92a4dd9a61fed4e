"""The key/value cache: one pair of arrays per layer, one write index shared by all rows."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import struct

from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.models.layout import HEADS, constrain, spread


@struct.dataclass
class Pictures:
  """Of models whose blocks attend to pictures: keys and values of their features, which are made once.

  F: room for the features of config.images pictures a row. The last three are of the tokens read so far.
  """

  keys_BKFC: tuple[jax.Array, ...]   # one array for each block that attends to pictures
  values_BKFC: tuple[jax.Array, ...]
  numbers_BF: jax.Array  # int32: the number of a feature's picture in its row, from 1 on; 0 = empty
  count_B: jax.Array  # int32: pictures whose placeholders have been read
  first_B: jax.Array  # int32: the first of those that the next token attends to
  position_B: jax.Array  # int32: the position of the last placeholder


@struct.dataclass
class Cache:
  """Keys and values of the tokens read so far, one array per layer: XLA copies a stacked cache whole at every layer's
  update. [B, K, S, C] is the order that decoding multiplies fastest in on every backend measured."""

  keys_BKSC: tuple[jax.Array, ...]
  values_BKSC: tuple[jax.Array, ...]
  positions_BS: jax.Array  # int32
  segments_BS: jax.Array  # int32, 0 = empty
  index: jax.Array  # int32 scalar: the column of the next token, the same for every row
  pictures: Pictures | None = None  # None for a model whose rows hold everything that it attends to


def empty(config: DecoderConfig, rows: int, length: int) -> Cache:
  """An empty cache for `rows` rows of `length` tokens."""
  shape = (rows, config.kv_heads, length, config.head_dim)
  zeros = lambda: tuple(constrain(jnp.zeros(shape, config.dtype), HEADS) for _ in range(config.layers))
  ints = lambda: jnp.zeros((rows, length), jnp.int32)
  return Cache(zeros(), zeros(), ints(), ints(), jnp.zeros((), jnp.int32), _no_pictures(config, rows))


def _no_pictures(config: DecoderConfig, rows: int) -> Pictures | None:
  features = getattr(config, "picture_columns", 0)
  if not features:
    return None
  shape = (rows, config.kv_heads, features, config.head_dim)
  zeros = lambda: tuple(constrain(jnp.zeros(shape, config.dtype), HEADS) for _ in config.cross)
  ints = lambda *sizes: jnp.zeros((rows, *sizes), jnp.int32)
  return Pictures(zeros(), zeros(), ints(features), ints(), ints(), ints())


def _of_rows(pick: Callable[..., jax.Array], *pictures: Pictures | None) -> Pictures | None:
  """pick(array, ...) of each array of pictures, with channels split instead of rows as in `take`."""
  move = lambda *arrays: (constrain(spread(pick(*map(spread, arrays))), HEADS) if arrays[0].ndim == 4
                          else pick(*arrays))
  return jax.tree.map(move, *pictures)


def grow(cache: Cache, length: int) -> Cache:
  """The same cache with room for `length` tokens."""
  more = length - cache.positions_BS.shape[1]
  if more < 0:
    raise ValueError(f"A cache of {cache.positions_BS.shape[1]} tokens cannot grow to {length}.")
  pad = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0)))
  pad2 = lambda x: jnp.pad(x, ((0, 0), (0, more)))
  return Cache(tuple(map(pad, cache.keys_BKSC)), tuple(map(pad, cache.values_BKSC)),
               pad2(cache.positions_BS), pad2(cache.segments_BS), cache.index, cache.pictures)


def take(cache: Cache, rows_B: jax.Array) -> Cache:
  """The given rows, in that order, so that finished conversations leave the batch.

  Where rows are split over devices, channels are split instead while rows are taken: XLA would otherwise gather the
  whole cache on every device.
  """
  pick = lambda x: jnp.take(x, rows_B, axis=0)
  move = lambda x_BKSC: constrain(spread(pick(spread(x_BKSC))), HEADS)
  return Cache(tuple(map(move, cache.keys_BKSC)), tuple(map(move, cache.values_BKSC)),
               pick(cache.positions_BS), pick(cache.segments_BS), cache.index, _of_rows(pick, cache.pictures))


def layers_of(cache: Cache) -> list[Cache]:
  """A cache of one layer for every layer, so that a program that moves rows holds one layer twice and not all. Pictures
  are with the last one, and have no room in the others."""
  cut = lambda x: x[:, :, :0] if x.ndim == 4 else x[:, :0] if x.ndim == 2 else x
  elsewhere = jax.tree.map(cut, cache.pictures)
  layers = [cache.replace(keys_BKSC=(keys,), values_BKSC=(values,), pictures=elsewhere)
            for keys, values in zip(cache.keys_BKSC, cache.values_BKSC, strict=True)]
  return [*layers[:-1], layers[-1].replace(pictures=cache.pictures)]


def of_layers(layers: Sequence[Cache]) -> Cache:
  """The cache of these layers, each a cache of one layer."""
  return layers[-1].replace(keys_BKSC=tuple(layer.keys_BKSC[0] for layer in layers),
                            values_BKSC=tuple(layer.values_BKSC[0] for layer in layers))


def put(cache: Cache, rows_B: jax.Array, newer: Cache) -> Cache:
  """The cache with its rows rows_B as they are in `newer`, in that order; a row beyond the last one is left out.

  Both have room for as many tokens, and the index is that of `newer`. Channels are split instead of rows, as in `take`.
  """
  put_rows = lambda old, new: old.at[rows_B].set(new, mode="drop")
  move = lambda old, new: constrain(spread(put_rows(spread(old), spread(new))), HEADS)
  return Cache(tuple(map(move, cache.keys_BKSC, newer.keys_BKSC)),
               tuple(map(move, cache.values_BKSC, newer.values_BKSC)),
               put_rows(cache.positions_BS, newer.positions_BS), put_rows(cache.segments_BS, newer.segments_BS),
               newer.index, _of_rows(put_rows, cache.pictures, newer.pictures))


def wrapped(ring: Cache) -> Cache:
  """The cache with its index at the first column, where it is behind the last one."""
  return ring.replace(index=ring.index % ring.positions_BS.shape[1])


def enter(ring: Cache, rows_B: jax.Array, newer: Cache) -> Cache:
  """A ring with its rows rows_B replaced by those of `newer`, in that order; a row beyond the last one is left out.

  `newer` is full or a ring, and no longer than this one. Its column before its index comes to stand before the index of
  the ring. Every device is sent all of `newer`, which is small, and rows of the ring stay where they are.
  """
  fill = ring.positions_BS.shape[1] - newer.positions_BS.shape[1]

  def put_rows(old: jax.Array, new: jax.Array, axis: int) -> jax.Array:
    widths = [(fill if i == axis else 0, 0) for i in range(new.ndim)]
    laid = jnp.roll(jnp.pad(jnp.roll(new, -newer.index, axis), widths), ring.index, axis)
    return old.at[rows_B].set(laid, mode="drop")

  whole = lambda new: constrain(new, ("width", "across", "tokens", "channels"))
  move = lambda old, new: constrain(put_rows(old, whole(new), 2), HEADS)
  ints = lambda old, new: put_rows(old, constrain(new, ("width", "tokens")), 1)
  put = lambda old, new: old.at[rows_B].set(new, mode="drop")
  return Cache(tuple(map(move, ring.keys_BKSC, newer.keys_BKSC)), tuple(map(move, ring.values_BKSC, newer.values_BKSC)),
               ints(ring.positions_BS, newer.positions_BS), ints(ring.segments_BS, newer.segments_BS), ring.index,
               _of_rows(put, ring.pictures, newer.pictures))


def reserve(cache: Cache, positions_BT: jax.Array, segments_BT: jax.Array) -> Cache:
  """Enters the positions and segments of the next T tokens and moves the index; layers write the keys and values."""
  put = lambda old, new: jax.lax.dynamic_update_slice(old, new, (0, cache.index))
  return cache.replace(positions_BS=put(cache.positions_BS, positions_BT),
                       segments_BS=put(cache.segments_BS, segments_BT),
                       index=cache.index + positions_BT.shape[1])


def write_at(index: jax.Array, keys_BKSC: jax.Array, values_BKSC: jax.Array, k_BKTC: jax.Array, v_BKTC: jax.Array
             ) -> tuple[jax.Array, jax.Array]:
  """(keys, values) of a layer's cache with those of T more tokens, from column `index` on."""
  put = lambda old, new: jax.lax.dynamic_update_slice(old, new.astype(old.dtype), (0, 0, index, 0))
  return put(keys_BKSC, k_BKTC), put(values_BKSC, v_BKTC)
