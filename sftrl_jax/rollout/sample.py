"""Sampling a response: read the prompt into the cache, then one token at a time in one compiled loop."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import Model
from sftrl_jax.models.cache import Cache, wrapped
from sftrl_jax.shapes import check

WIDE = 4096  # vocabulary size from which probabilities are summed by blocks, and not at all when greedy
BLOCK = 256  # ids of a block


@dataclasses.dataclass(frozen=True)
class Sampling:
  """The distribution that tokens are drawn from; the temperature is an argument, so that one program serves all.

  max_new_tokens: most tokens of a response
  top_k: keep the k likeliest tokens (0: all)
  top_p: keep the likeliest tokens that make up this probability (1: all)
  """

  max_new_tokens: int
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    if self.max_new_tokens < 1:
      raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1.")
    if self.top_k < 0:
      raise ValueError(f"top_k is {self.top_k}; it must be 0 (all) or positive.")
    if not 0 < self.top_p <= 1:
      raise ValueError(f"top_p is {self.top_p}; it must lie in (0, 1].")


class ResponseEnd(NamedTuple):
  """stops: ids, or one id, at which a response ends. pad: the id after the end."""

  stops: Sequence[int] | int | jax.Array
  pad: int


@struct.dataclass
class TurnInputs:
  """What B conversations read before each samples a response, and what their random numbers follow from.

  Conversations that begin alike share a row of `inputs`, which then has B / group rows.
  """

  inputs: Inputs  # the tokens that are not in the cache yet
  next_positions_B: jax.Array  # int32: the position of the first sampled token in its chat
  live_B: jax.Array  # bool: rows that sample a response; the others fill the compiled shape
  episodes_B: jax.Array  # uint32: the number of each episode; keys are folded from it
  key: jax.Array
  turn: jax.Array  # int32 scalar, or one a row: keys are folded from it too
  temperature: jax.Array  # f32 scalar; 0 samples greedily
  lengths_B: jax.Array | None = None  # int32: where responses end in place of stop tokens, to measure with


@struct.dataclass
class SegmentInputs:
  """What B responses go on with after a first segment of tokens; other fields as of TurnInputs.

  Where slots are refilled, `turn` and `first` have an entry a row, and the last two fields are there: the cache is then
  a ring, which is written from its first column on again after its last.
  """

  tokens_B: jax.Array  # int32: the last sampled token, which is not in the cache yet
  next_positions_B: jax.Array  # int32: the position of the next one in its chat
  live_B: jax.Array
  episodes_B: jax.Array
  key: jax.Array
  turn: jax.Array
  temperature: jax.Array
  first: jax.Array  # int32 scalar: tokens of each response so far
  most: jax.Array  # int32 scalar: tokens to sample, at most
  lengths_B: jax.Array | None = None
  longest: jax.Array | None = None  # int32 scalar: tokens after which a response is cut
  enough: jax.Array | None = None  # int32 scalar: rows without a response, free ones included, that end the segment


@struct.dataclass
class SampledTokens:
  """The sampled tokens of a response, or of a segment of it. Off the response (after its end, on dead rows) tokens are
  `pad` and log-probabilities 0."""

  tokens_BR: jax.Array  # int32
  logprobs_BR: jax.Array  # f32, of the distribution that was sampled from; 0 when greedy
  lengths_B: jax.Array  # int32, the stop token included; of the segment
  stopped_B: jax.Array  # bool: ended by a stop token and not by max_new_tokens
  steps: jax.Array  # int32 scalar: tokens computed for every row
  count: jax.Array  # int32 scalar: tokens of all responses together; the others of rows x steps were computed for none


def truncate(logits_BV: jax.Array, top_k: int, top_p: float) -> jax.Array:
  """Logits with everything outside top-k and top-p at -inf; the likeliest token always stays."""
  if top_k and top_k < logits_BV.shape[-1]:
    floor_B1 = jax.lax.top_k(logits_BV, top_k)[0][:, -1:]
    logits_BV = jnp.where(logits_BV < floor_B1, -jnp.inf, logits_BV)
  if top_p < 1.0:
    sorted_BV = jnp.sort(logits_BV, axis=-1)[:, ::-1]
    weights_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(weights_BV, axis=-1) - weights_BV
    floor_B1 = jnp.min(jnp.where(before_BV < top_p, sorted_BV, jnp.inf), axis=-1, keepdims=True)
    logits_BV = jnp.where(logits_BV < floor_B1, -jnp.inf, logits_BV)
  return logits_BV


def draw(logits_BV: jax.Array, uniforms_B: jax.Array, temperature: jax.Array | float, sampling: Sampling
         ) -> tuple[jax.Array, jax.Array]:
  """(tokens_B, logprobs_B) from softmax(logits / temperature), truncated; the argmax with logprob 0 at temperature 0.

  It inverts the distribution function, which takes one random number a row instead of one a vocabulary entry.
  """
  check(logits_BV=logits_BV, uniforms_B=uniforms_B)
  if logits_BV.shape[-1] >= WIDE:
    return _draw_wide(logits_BV, uniforms_B, jnp.asarray(temperature, jnp.float32), sampling)
  greedy = temperature <= 0
  logits_BV = truncate(logits_BV / jnp.where(greedy, 1.0, temperature), sampling.top_k, sampling.top_p)
  log_BV = jax.nn.log_softmax(logits_BV, axis=-1)
  mass_BV = jnp.cumsum(jnp.exp(log_BV), axis=-1)
  # The first entry whose cumulative mass exceeds u * total has mass of its own; u * total may round up to the total.
  point_B1 = jnp.minimum(uniforms_B[:, None] * mass_BV[:, -1:], jnp.nextafter(mass_BV[:, -1:], 0.0))
  sampled_B = jnp.argmax(mass_BV > point_B1, axis=-1)
  tokens_B = jnp.where(greedy, jnp.argmax(logits_BV, axis=-1), sampled_B).astype(jnp.int32)
  chosen_B = jnp.take_along_axis(log_BV, tokens_B[:, None], axis=-1)[:, 0]
  return tokens_B, jnp.where(greedy, 0.0, chosen_B)


def _draw_wide(logits_BV, uniforms_B, temperature, sampling: Sampling):
  """`draw` for vocabularies where a running sum would cost as much as a layer."""

  def greedy(logits_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32), jnp.zeros(uniforms_B.shape)

  def random(logits_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
    log_BV = jax.nn.log_softmax(truncate(logits_BV / temperature, sampling.top_k, sampling.top_p), axis=-1)
    tokens_B = _invert(jnp.exp(log_BV), uniforms_B)
    return tokens_B, jnp.take_along_axis(log_BV, tokens_B[:, None], axis=-1)[:, 0]

  return jax.lax.cond(temperature <= 0, greedy, random, logits_BV)


def _invert(mass_BV, uniforms_B):
  """The first id whose cumulative mass exceeds u * total: first its block of ids, then the id in the block."""
  B, V = mass_BV.shape
  blocks_BJI = jnp.pad(mass_BV, ((0, 0), (0, -V % BLOCK))).reshape(B, -1, BLOCK)
  block_B, share_B = _first_beyond(jnp.sum(blocks_BJI, axis=-1), uniforms_B)
  mass_BI = jnp.take_along_axis(blocks_BJI, block_B[:, None, None], axis=1)[:, 0]
  return (block_B * BLOCK + _first_beyond(mass_BI, share_B)[0]).astype(jnp.int32)


def _first_beyond(mass_BJ, shares_B):
  """(the first entry whose cumulative mass exceeds share * total, how far into its mass that point is, in [0, 1]).

  The entry has mass of its own: the total and the running sum are rounded in different orders, and may differ beside an
  entry that has none.
  """
  upto_BJ = jnp.cumsum(mass_BJ, axis=-1)
  point_B1 = jnp.minimum(shares_B[:, None] * upto_BJ[:, -1:], jnp.nextafter(upto_BJ[:, -1:], 0.0))
  beyond_BJ = (upto_BJ > point_B1) & (mass_BJ > 0)
  first_B = jnp.where(jnp.any(beyond_BJ, -1), jnp.argmax(beyond_BJ, axis=-1), jnp.argmax(mass_BJ, axis=-1))
  first_B1 = first_B[:, None]
  own_B1 = jnp.take_along_axis(mass_BJ, first_B1, axis=-1)
  before_B1 = jnp.take_along_axis(upto_BJ, first_B1, axis=-1) - own_B1
  return first_B, jnp.clip((point_B1 - before_B1) / own_B1, 0.0, 1.0)[:, 0]


def row_keys(key: jax.Array, episodes_B: jax.Array, turn: jax.Array | int) -> jax.Array:
  """keys_B, folded from the episode and the turn and never from the row: any batch gives the same tokens."""
  turns_B = jnp.broadcast_to(turn, episodes_B.shape)
  return jax.vmap(lambda episode, turn: jax.random.fold_in(jax.random.fold_in(key, episode), turn))(episodes_B, turns_B)


def respond(model: Model, sampling: Sampling, end: ResponseEnd, params: dict, cache: Cache, turn: TurnInputs,
            group: int = 1, empty: bool = False) -> tuple[Cache, SampledTokens]:
  """Reads T more tokens a row, then samples until every live row has stopped.

  params: decoding parameters
  cache: with room for T + max_new_tokens - 1 more tokens. The last sampled token is not in the returned cache yet: it
  is the first that the next turn reads.
  group: rows that continue each row that is read, next to one another; what was read is computed once for them all.
  empty: whether nothing is in the cache
  """
  inputs, live_B = turn.inputs, turn.live_B
  check(tokens_BT=inputs.tokens_BT, positions_BT=inputs.positions_BT, segments_BT=inputs.segments_BT)
  rows = check(live_B=live_B, next_positions_B=turn.next_positions_B)["B"]
  if inputs.tokens_BT.shape[0] * group != rows:
    raise ValueError(f"{inputs.tokens_BT.shape[0]} rows are read in groups of {group}, but {rows} rows go on.")
  hidden_BTD, cache = (model.prefill if empty else model.extend)(params, cache, inputs)
  last_BD = hidden_BTD[:, -1]
  if group > 1:  # the write index is a scalar that all rows share
    last_BD, cache = jax.tree.map(lambda x: jnp.repeat(x, group, axis=0) if x.ndim else x, (last_BD, cache))
  sampler = _Sampler(model, sampling, end, params, turn)
  token_B, done_B, *written = sampler.write(0, ~live_B, last_BD, *sampler.blank())
  if sampling.max_new_tokens == 1:
    return cache, SampledTokens(*written, done_B, jnp.ones((), jnp.int32), jnp.sum(written[-1]))
  start = (jnp.ones((), jnp.int32), cache, token_B, done_B, *written)
  return sampler.loop(start, sampling.max_new_tokens)


def go_on(model: Model, sampling: Sampling, end: ResponseEnd, params: dict, cache: Cache, segment: SegmentInputs
          ) -> tuple[Cache, SampledTokens]:
  """Samples up to segment.most more tokens of each live response, of at most sampling.max_new_tokens columns.

  cache: with room for segment.most more tokens, or a ring with room for the longest row. Other arguments as of
  `respond`.
  """
  check(tokens_B=segment.tokens_B, live_B=segment.live_B, next_positions_B=segment.next_positions_B)
  sampler = _Sampler(model, sampling, end, params, segment, segment.first, segment.longest)
  start = (jnp.zeros((), jnp.int32), cache, segment.tokens_B, ~segment.live_B, *sampler.blank())
  return sampler.loop(start, segment.most, segment.enough)


class _Sampler:
  """One token a row and step, into arrays of sampling.max_new_tokens columns. Exists while a function is traced.

  first: tokens of the responses before column 0
  longest: tokens after which a response is cut, in a ring; None where the loop ends there
  """

  def __init__(self, model: Model, sampling: Sampling, end: ResponseEnd, params: dict,
               inputs: TurnInputs | SegmentInputs, first: jax.Array | int = 0, longest: jax.Array | None = None):
    self.model, self.sampling, self.pad, self.params, self.inputs, self.first, self.longest = (
        model, sampling, end.pad, params, inputs, first, longest)
    self.keys_B = row_keys(inputs.key, inputs.episodes_B, inputs.turn)
    self.ends = jnp.reshape(jnp.asarray(end.stops, jnp.int32), (1, -1))

  def blank(self) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(tokens_BR, logprobs_BR, lengths_B) with nothing in them."""
    rows, longest = self.inputs.live_B.shape[0], self.sampling.max_new_tokens
    return jnp.full((rows, longest), self.pad, jnp.int32), jnp.zeros((rows, longest)), jnp.zeros((rows,), jnp.int32)

  def sample(self, hidden_BD: jax.Array, step: jax.Array | int, done_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    numbers_B = jnp.broadcast_to(self.first + step, done_B.shape)
    uniforms_B = jax.vmap(lambda key, number: jax.random.uniform(jax.random.fold_in(key, number)))(
        self.keys_B, numbers_B)
    logits_BV = self.model.unembed(self.params, hidden_BD)
    tokens_B, logprobs_B = draw(logits_BV, uniforms_B, self.inputs.temperature, self.sampling)
    return jnp.where(done_B, self.pad, tokens_B), jnp.where(done_B, 0.0, logprobs_B)

  def write(self, step: jax.Array | int, done_B: jax.Array, hidden_BD: jax.Array, tokens_BR: jax.Array,
            logprobs_BR: jax.Array, lengths_B: jax.Array) -> tuple:
    """(token_B, done_B, tokens_BR, logprobs_BR, lengths_B) after one more token."""
    token_B, logprob_B = self.sample(hidden_BD, step, done_B)
    tokens_BR = jax.lax.dynamic_update_slice(tokens_BR, token_B[:, None], (0, step))
    logprobs_BR = jax.lax.dynamic_update_slice(logprobs_BR, logprob_B[:, None], (0, step))
    lengths_B = lengths_B + (~done_B).astype(jnp.int32)
    scripted_B = self.inputs.lengths_B
    ends_B = (jnp.any(token_B[:, None] == self.ends, axis=1) if scripted_B is None else
              self.first + step + 1 >= scripted_B)
    ends_B = ends_B if self.longest is None else ends_B | (self.first + step + 1 >= self.longest)
    return token_B, done_B | ends_B, tokens_BR, logprobs_BR, lengths_B

  def loop(self, start: tuple, most: jax.Array | int, enough: jax.Array | None = None
           ) -> tuple[Cache, SampledTokens]:
    """From (step, cache, token_B, done_B, tokens_BR, logprobs_BR, lengths_B) until `most` tokens, or no live row, or
    `enough` others."""

    def goes_on(carry: tuple) -> jax.Array:
      step, _, _, done_B, *_ = carry
      live = ~jnp.all(done_B) if enough is None else jnp.sum(done_B) < enough
      return (step < most) & live

    def body(carry: tuple) -> tuple:
      step, cache, token_B, done_B, *written = carry
      cache = cache if self.longest is None else wrapped(cache)
      positions_B1 = (self.inputs.next_positions_B + step - 1)[:, None]
      segments_B1 = (~done_B).astype(jnp.int32)[:, None]
      hidden_B1D, cache = self.model.extend(self.params, cache, Inputs(token_B[:, None], positions_B1, segments_B1))
      token_B, done_B, *written = self.write(step, done_B, hidden_B1D[:, 0], *written)
      return step + 1, cache, token_B, done_B, *written

    steps, cache, _, done_B, tokens_BR, logprobs_BR, lengths_B = jax.lax.while_loop(goes_on, body, start)
    return cache, SampledTokens(tokens_BR, logprobs_BR, lengths_B, done_B, steps, jnp.sum(lengths_B))
