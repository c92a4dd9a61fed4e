"""One formulation of the decoder for sampling and for training, whose results are equal to the bit.

Every token goes through a block in a tile of tokens (models/tiles.py), as a row of one token over a cache in which a
token's column is its position. Attention adds up keys in blocks of KEYS columns, in ascending order, and a block
without an allowed key changes nothing. So neither the length of rows or caches, nor padding, nor what else is in the
batch changes a bit; the trainer's rows are a prompt that is read into an empty cache. Gradients are those of the
ordinary decoder.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import kernels, tiles
from sftrl_jax.models.attention import CONSTANT, by_kind, may_attend
from sftrl_jax.models.cache import Cache, empty
from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.models.decoder import Block, Norm, Scanned, look_up, of_kind
from sftrl_jax.models.layout import platform
from sftrl_jax.shapes import check

KEYS = 32   # columns of a cache whose scores exist at once
PLATFORMS = ("cpu",)   # on which it was measured that sampler and trainer agree
ON, OFF = "config.compute.exact is True, which", "use --config.compute.exact=False"


def refuse(config: DecoderConfig, platform: str, devices: int, decoding_dtype: str, longest: int) -> None:
  """ValueError where sampler and trainer would not agree to the bit. Arguments as of models.exactly."""
  if platform not in PLATFORMS:
    raise ValueError(f"{ON} was measured on {', '.join(PLATFORMS)} alone, but the devices are of kind {platform}: set "
                     f"JAX_PLATFORMS=cpu, or {OFF}.")
  if devices > 1:
    raise ValueError(f"{ON} is for one device, but config.mesh splits the batch over {devices}: run on one, or {OFF}.")
  if decoding_dtype not in ("", config.dtype):
    raise ValueError(f"{ON} needs one dtype, but config.rollout.dtype is {decoding_dtype!r} and config.model.dtype "
                     f"{config.dtype!r}: leave config.rollout.dtype at '', or {OFF}.")
  if longest > CONSTANT:
    raise ValueError(f"{ON} has rotary tables of {CONSTANT} positions, but rows or caches have {longest} tokens: use "
                     f"shorter prompts, responses or fewer attempts, or {OFF}.")


def columns(length: int) -> int:
  """Columns of a cache with room for so many tokens: whole blocks of keys."""
  return -(-length // KEYS) * KEYS


def unstack(params: dict, layers: int) -> dict:
  """Training parameters (layers stacked) -> decoding parameters (a tuple of layers), otherwise as they are."""
  layer = lambda number: jax.tree.map(lambda x: x[number], params["layers"]["block"])
  return {**params, "layers": tuple(map(layer, range(layers)))}


def extend(config: DecoderConfig, params: dict, cache: Cache, inputs: Inputs) -> tuple[jax.Array, Cache]:
  """(hidden_BTD after the final norm, cache) after reading T more tokens a row; see decoder.extend.

  params: layers apart, with the kernels and adapters of training. The column of a token is its position, and tokens of
  padding are not in the cache. hidden_BTD is 0 for these.
  """
  tokens_BT, positions_BT, segments_BT = inputs.tokens_BT, inputs.positions_BT, inputs.segments_BT
  sizes = check(tokens_BT=tokens_BT, positions_BT=positions_BT, segments_BT=segments_BT)
  if cache.positions_BS.shape[1] % KEYS:
    raise ValueError(f"A cache has {cache.positions_BS.shape[1]} columns; in exact mode it must have a multiple of "
                     f"{KEYS}: ask Model.columns for their number.")
  if sizes["B"] == 1:
    hidden_BTD, cache = extend(config, params, *_with_blank_row((cache, inputs)))
    return hidden_BTD[:1], jax.tree.map(lambda x: x[:1] if x.ndim else x, cache)
  rows_B1 = jnp.arange(sizes["B"])[:, None]
  into = jnp.where(segments_BT > 0, positions_BT, cache.positions_BS.shape[1])   # beyond the last column: dropped
  enter = lambda old, new: old.at[rows_B1, into].set(new, mode="drop")
  cache = cache.replace(positions_BS=enter(cache.positions_BS, positions_BT),
                        segments_BS=enter(cache.segments_BS, segments_BT), index=cache.index + sizes["T"])
  read, x_BTD = _read(inputs, positions_BT, cache), look_up(config, params["embed"], tokens_BT)
  tables, _ = by_kind(config, positions_BT, segments_BT, cache.positions_BS, cache.segments_BS)
  keys, values = [], []
  for number, (kind, layer) in enumerate(zip(config.kinds, params["layers"], strict=True)):
    window = config.window if kind == "local" else 0
    x_BTD, k, v = _block(config, read, layer, x_BTD, tables[kind], window, cache.keys_BKSC[number],
                         cache.values_BKSC[number])
    keys.append(k)
    values.append(v)
  return _final_norm(config, read, params, x_BTD), cache.replace(keys_BKSC=tuple(keys), values_BKSC=tuple(values))


def hidden(config: DecoderConfig, params: dict, inputs: Inputs) -> jax.Array:
  """hidden_BTD after the final norm, of rows by the training parameters; 0 for padding. Differentiable.

  The column of a token is its place in the row. Where that is its position, results are those of `extend` to the bit.
  """
  positions_BT, segments_BT = inputs.positions_BT, inputs.segments_BT
  B, T = check(positions_BT=positions_BT, segments_BT=segments_BT).values()
  if B == 1:
    return hidden(config, params, _with_blank_row(inputs))[:1]
  room = columns(T)
  pad = lambda x_BT: jnp.pad(x_BT, ((0, 0), (0, room - T)))
  cache = empty(config, B, room).replace(positions_BS=pad(positions_BT), segments_BS=pad(segments_BT))
  places_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None, :], (B, T))
  read = _read(inputs, places_BT, cache)
  tables, allowed = by_kind(config, positions_BT, segments_BT, positions_BT, segments_BT)
  kernel = kernels.chosen(config, platform())
  mask = segments_BT if kernel == "splash" else allowed
  kinds = sorted(tables)
  kind_N = jnp.asarray([kinds.index(kind) for kind in config.kinds], jnp.int32) if len(kinds) > 1 else None
  window_N = jnp.asarray([config.window if kind == "local" else 0 for kind in config.kinds], jnp.int32)

  def block(context: tuple, layer: dict, x_BTD: jax.Array) -> jax.Array:
    read, tables, _, kind, window, keys_BKSC, values_BKSC = context
    return _block(config, read, layer, x_BTD, of_kind(kind, tables), window, keys_BKSC, values_BKSC)[0]

  def ordinary(context: tuple, layer: dict, x_BTD: jax.Array) -> jax.Array:
    _, tables, mask, kind, *_ = context
    return Scanned(config, kernel).apply({"params": {"block": layer}}, x_BTD, kind, tables, mask)[0]

  def step(x_BTD: jax.Array, layer: tuple) -> tuple[jax.Array, None]:
    leaves, kind, window = layer
    context = read, tables, mask, kind, window, cache.keys_BKSC[0], cache.values_BKSC[0]
    return tiles.value_and_gradient_of(block, ordinary)(context, leaves, x_BTD), None

  x_BTD = look_up(config, params["embed"], inputs.tokens_BT)
  x_BTD, _ = jax.lax.scan(step, x_BTD, (params["layers"]["block"], kind_N, window_N))
  return _final_norm(config, read, params, x_BTD)


def _with_blank_row(tree):
  """The same with two rows in place of one: XLA takes an index into one row for none, and computes otherwise."""
  return jax.tree.map(lambda x: jnp.pad(x, ((0, 1), *((0, 0),) * (x.ndim - 1))) if x.ndim else x, tree)


@struct.dataclass
class _Tokens:
  """A = B * T tokens of a batch, or those of a tile. columns_A: of the cache."""

  rows_A: jax.Array
  columns_A: jax.Array
  positions_A: jax.Array
  segments_A: jax.Array


@struct.dataclass
class _Read:
  """What is read, and in which order it is computed: the keys before a token are written before it attends to them.

  k_positions_BS, k_segments_BS: of the cache, these tokens included
  """

  tokens: _Tokens
  order: tiles.Order
  k_positions_BS: jax.Array
  k_segments_BS: jax.Array


def _read(inputs: Inputs, columns_BT: jax.Array, cache: Cache) -> _Read:
  rows_BT = jnp.broadcast_to(jnp.arange(columns_BT.shape[0], dtype=jnp.int32)[:, None], columns_BT.shape)
  arrays = rows_BT, columns_BT, inputs.positions_BT, inputs.segments_BT
  tokens = _Tokens(*(jnp.reshape(x_BT, columns_BT.size) for x_BT in arrays))
  order = tiles.ascending(tokens.columns_A, tokens.segments_A > 0)
  return _Read(tokens, order, cache.positions_BS, cache.segments_BS)


def _block(config: DecoderConfig, read: _Read, layer: dict, x_BTD: jax.Array, table: tuple, window: jax.Array | int,
           keys_BKSC: jax.Array, values_BKSC: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(x_BTD after a block, keys, values), tile after tile."""
  B, T, D = x_BTD.shape
  table = tuple(jnp.broadcast_to(x, (B, *x.shape[1:])).reshape(B * T, -1) for x in table)

  def tile(places_M: jax.Array, carry: tuple) -> tuple:
    x_AD, keys_BKSC, values_BKSC = carry
    take = functools.partial(tiles.take, places_M)
    tokens, S = jax.tree.map(take, read.tokens), keys_BKSC.shape[2]
    into_M = jnp.where(places_M < B * T, tokens.columns_A, S)   # beyond the last column: dropped
    write = lambda past, new_MK1C: past.at[tokens.rows_A, :, into_M].set(new_MK1C[:, :, 0], mode="drop")
    blocks = jnp.max(into_M, initial=0, where=into_M < S) // KEYS + 1
    attend_fn = functools.partial(_attend, config, read, tokens, window, blocks)
    x_M1D, (keys_BKSC, values_BKSC) = Block(config).apply(
        {"params": layer}, take(x_AD)[:, None], tuple(take(x)[:, None, None] for x in table), attend_fn,
        (lambda k, v: (write(keys_BKSC, k), write(values_BKSC, v)), False))
    return tiles.put(places_M, x_AD, x_M1D[:, 0]), keys_BKSC, values_BKSC

  x_AD, keys, values = tiles.loop(read.order, (x_BTD.reshape(B * T, D), keys_BKSC, values_BKSC), tile)
  return x_AD.reshape(B, T, D), keys, values


def _attend(config: DecoderConfig, read: _Read, tokens: _Tokens, window: jax.Array | int, blocks: jax.Array,
            q_MH1C: jax.Array, keys_BKSC: jax.Array, values_BKSC: jax.Array) -> jax.Array:
  """mixed_MH1C = softmax(q k) v over the cache, by a running maximum and sums over blocks of keys (Milakov & Gimelshein
  2018). tokens: of the tile. window: 0 for a global layer. blocks: so many are read."""
  M, H, _, C = q_MH1C.shape
  K, S = keys_BKSC.shape[1:3]
  q_MKXC = (q_MH1C * jnp.asarray(config.query_scale or C**-0.5, q_MH1C.dtype)).reshape(M, K, H // K, C)
  positions_M1, segments_M1 = tokens.positions_A[:, None], tokens.segments_A[:, None]

  def block(number: jax.Array, sums: tuple) -> tuple:
    top_MKX1, total_MKX1, mixed_MKXC = sums
    of_keys = lambda x_BS: x_BS.reshape(-1, S // KEYS, KEYS)[tokens.rows_A, number]
    of_heads = lambda x_BKSC: x_BKSC.reshape(-1, K, S // KEYS, KEYS, C)[tokens.rows_A, :, number]
    k_MKSC, v_MKSC, k_positions_MS = of_heads(keys_BKSC), of_heads(values_BKSC), of_keys(read.k_positions_BS)
    allowed_M1S = may_attend(positions_M1, k_positions_MS, segments_M1, of_keys(read.k_segments_BS))
    near_MS = (window == 0) | (positions_M1 - k_positions_MS < window)
    allowed_M11S = (allowed_M1S & near_MS[:, None])[:, None]
    scores = jnp.einsum("mkxc,mksc->mkxs", q_MKXC, k_MKSC, preferred_element_type=jnp.float32)
    if config.attention_softcap:
      scores = jnp.tanh(scores / config.attention_softcap) * config.attention_softcap
    scores = jnp.where(allowed_M11S, scores, -jnp.inf)
    new_top_MKX1 = jnp.maximum(top_MKX1, jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.where(allowed_M11S, jnp.exp(scores - new_top_MKX1), 0.0)
    shrink_MKX1 = jnp.exp(top_MKX1 - new_top_MKX1)
    more = jnp.einsum("mkxs,mksc->mkxc", weights.astype(v_MKSC.dtype), v_MKSC, preferred_element_type=jnp.float32)
    new = (new_top_MKX1, total_MKX1 * shrink_MKX1 + jnp.sum(weights, axis=-1, keepdims=True),
           mixed_MKXC * shrink_MKX1 + more)
    attends = jnp.any(allowed_M11S, axis=-1, keepdims=True)
    return tuple(jnp.where(attends, after, before) for after, before in zip(new, sums, strict=True))

  blank_MKX1 = jnp.zeros((M, K, H // K, 1))
  start = blank_MKX1 - jnp.inf, blank_MKX1, jnp.zeros(q_MKXC.shape)
  _, total_MKX1, mixed_MKXC = jax.lax.fori_loop(0, blocks, block, start)
  mixed_MKXC = mixed_MKXC / jnp.where(total_MKX1 > 0, total_MKX1, 1.0)   # what fills a tile may attend to nothing
  return mixed_MKXC.reshape(M, H, 1, C).astype(q_MH1C.dtype)


def _final_norm(config: DecoderConfig, read: _Read, params: dict, x_BTD: jax.Array) -> jax.Array:
  norm = lambda _, leaves, x: Norm(config.norm_eps, config.norm_plus_one).apply({"params": leaves}, x)
  in_tiles = lambda read, leaves, x: tiles.each(functools.partial(norm, read, leaves), read.order,
                                                x.reshape(-1, x.shape[-1])).reshape(x.shape)
  return tiles.value_and_gradient_of(in_tiles, norm)(read, params["final_norm"], x_BTD)
