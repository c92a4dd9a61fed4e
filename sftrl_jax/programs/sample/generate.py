"""Generates responses in pieces: prompts are read into the cache, then the loop that training samples with
(rollout/sample.py) samples a few tokens at a time. Between two pieces the host looks for stop strings and Ctrl-C, and
shows the text so far.

Few shapes are compiled: prompts are read in powers of two, caches come in four sizes an octave, and all pieces have the
same length.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sftrl_jax.inputs import Inputs, left_pad
from sftrl_jax.models import Model
from sftrl_jax.models.cache import Cache, empty, grow
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import MeshConfig, shard_rows
from sftrl_jax.programs.sample.stopping import Generation, StopConditions, append_tokens
from sftrl_jax.rollout.decoding import placement
from sftrl_jax.rollout.sample import ResponseEnd, Sampling, TurnInputs, respond
from sftrl_jax.text.images import Pictures, with_pictures

PIECE = 8   # tokens sampled between two looks of the host
WIDEST, NARROWEST = 256, 16   # tokens a row read at once
SHORTEST_CACHE = 128   # tokens of the smallest cache


class CompiledFunctions(NamedTuple):
  """Jitted functions of a generator. All but `empty` take over the cache they are given, except `grow`, which copies.

  empty: (rows, cache_len) -> cache
  read: (params, cache, inputs) -> cache, with the inputs in it
  sample: (params, cache, last tokens, live_B, numbers_B, key, piece, temperature) -> (cache, SampledTokens)
  grow: (cache, cache_len) -> cache
  rewind: (cache, index) -> cache, without what it holds from column `index` on
  """

  empty: Callable
  read: Callable
  sample: Callable
  grow: Callable
  rewind: Callable


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
  """A model with decoding parameters, and the distribution it samples from.

  mesh: one that does not split rows (`alone`)
  sampling: its max_new_tokens are those of a piece
  """

  model: Model
  tokenizer: Any
  params: dict
  mesh: Mesh
  sampling: Sampling = Sampling(PIECE)

  @property
  def compiled(self) -> CompiledFunctions:
    """Those of `compiled_functions`."""
    end = ResponseEnd(tuple(self.tokenizer.stops), self.tokenizer.pad)
    return compiled_functions(self.model, self.sampling, end, self.mesh)


@functools.cache
def compiled_functions(model: Model, sampling: Sampling, end: ResponseEnd, mesh: Mesh) -> CompiledFunctions:
  """The jitted functions of all generators that differ in their parameters alone. They donate the caches, so a
  conversation never holds two."""
  split = placement.cache_shardings(model.config, mesh)
  jit = functools.partial(jax.jit, out_shardings=split)

  @functools.partial(jit, donate_argnums=1)
  def read(params, cache, inputs):
    return model.extend(params, cache, inputs)[1]

  @functools.partial(jax.jit, donate_argnums=1, out_shardings=(split, None))
  def sample(params, cache, leads, live_B, numbers_B, key, piece, temperature):
    turn = TurnInputs(leads, leads.positions_BT[:, 0] + 1, live_B, numbers_B, key, piece, temperature)
    return respond(model, sampling, end, params, cache, turn)

  @functools.partial(jit, donate_argnums=0)
  def rewind(cache, index):
    before_1S = jnp.arange(cache.segments_BS.shape[1])[None] < index
    return cache.replace(index=index, segments_BS=jnp.where(before_1S, cache.segments_BS, 0))

  make_empty = jit(functools.partial(empty, model.config), static_argnums=(0, 1))
  return CompiledFunctions(make_empty, read, sample, jit(grow, static_argnums=1), rewind)


@dataclasses.dataclass(frozen=True, eq=False)
class ChatSettings:
  """How responses are generated: by which model, to which end, at which temperature (0: greedy), with which key.

  images: uint8 [Y, X, 3] each, with which every conversation begins
  """

  generator: Generator
  stop_conditions: StopConditions
  temperature: float
  key: jax.Array
  images: tuple[np.ndarray, ...] = ()


@dataclasses.dataclass(frozen=True)
class Conversation:
  """Conversations side by side in one cache. The cache does not hold the last token of each: the next reading begins
  with it.

  cache_len: columns of the cache
  used: columns that are written, padding included
  counts: tokens of each conversation so far
  last_tokens: the last token of each
  """

  cache: Cache
  cache_len: int
  used: int
  counts: tuple[int, ...]
  last_tokens: tuple[int, ...]


def alone(mesh: MeshConfig) -> MeshConfig:
  """Returns the mesh for one conversation: all devices split heads and mlp_dim, and none splits rows."""
  return dataclasses.replace(mesh, data=1, fsdp=1, tensor=-1)


def with_room(generator: Generator, images: int) -> Generator:
  """The generator whose cache keeps so many pictures of a row; as it is where pictures stand in the row alone."""
  config = generator.model.config
  if not hasattr(config, "picture_columns") or images <= config.images:
    return generator
  model = dataclasses.replace(generator.model, config=dataclasses.replace(config, images=images))
  return dataclasses.replace(generator, model=model, tokenizer=dataclasses.replace(
      generator.tokenizer, reader=dataclasses.replace(generator.tokenizer.reader, images=images)))


def widths(tokens: int) -> list[int]:
  """Returns the widths of the pieces in which that many tokens are read; the first one is padded on the left."""
  whole, rest = divmod(tokens, WIDEST)
  first = [max(NARROWEST, _power(rest))] if rest else []
  return first + [WIDEST] * whole


def start_conversation(generator: Generator, contexts: Sequence[Sequence[int]], reserve: int,
                       rows: int = 0, pictures: Sequence[Pictures] = ()) -> Conversation:
  """Reads the ids of each context into a new cache.

  reserve: tokens of the response that the cache has to have room for
  rows: of the compiled shape, at least; more than there are contexts are padding
  pictures: of each context, as the model reads them; () where none has any

  Raises ValueError for an empty context, and for pictures that are not those of the placeholders.
  """
  if not all(contexts):
    raise ValueError("A prompt has no token: give it some text.")
  return _read(generator, None, [list(context) for context in contexts], reserve, max(rows, len(contexts)), pictures)


def continue_conversation(generator: Generator, conversation: Conversation, contexts: Sequence[Sequence[int]],
                          reserve: int) -> Conversation:
  """Reads more ids into each conversation. `conversation` cannot be used afterwards: its cache is donated."""
  new_ids = [[last, *context] for last, context in zip(conversation.last_tokens, contexts, strict=True)]
  return _read(generator, conversation, new_ids, reserve, conversation.cache.positions_BS.shape[0])


def _read(generator: Generator, conversation: Conversation | None, new_ids: list[list[int]], reserve: int,
          rows: int, pictures: Sequence[Pictures] = ()) -> Conversation:
  """Reads all but the last of each conversation's new ids. The first of them is the last token it had, if it had any.
  """
  compiled = generator.compiled
  pieces = widths(max(len(ids) for ids in new_ids) - 1)
  if any(pictures):   # in one piece: it makes their features, which may stand anywhere in it
    pieces = [sum(pieces)]
  used = conversation.used if conversation else 0
  offsets = [count - 1 for count in conversation.counts] if conversation else [0] * len(new_ids)
  piece_len = generator.sampling.max_new_tokens
  needed = used + sum(pieces) + -(-reserve // piece_len) * piece_len
  cache_len = max(cache_len_of(needed), conversation.cache_len if conversation else 0)
  if conversation is None:
    cache = compiled.empty(rows, cache_len)
  elif cache_len == conversation.cache_len:
    cache = conversation.cache
  else:
    cache = compiled.grow(conversation.cache, cache_len)
  inputs = left_pad([ids[:-1] for ids in new_ids], sum(pieces), rows)
  inputs.positions_BT[:len(new_ids)] += np.asarray(offsets, np.int32)[:, None] * inputs.segments_BT[:len(new_ids)]
  inputs, start = _with_pictures(generator, inputs, pictures), 0
  for width in pieces:
    piece = inputs if any(pictures) else jax.tree.map(
        lambda x, start=start, width=width: x[:, start:start + width], inputs)
    cache = compiled.read(generator.params, cache, shard_rows(generator.mesh, piece))
    start += width
  counts = tuple(offset + len(ids) for offset, ids in zip(offsets, new_ids, strict=True))
  return Conversation(cache, cache_len, used + sum(pieces), counts, tuple(ids[-1] for ids in new_ids))


def _with_pictures(generator: Generator, inputs: Inputs, pictures: Sequence[Pictures]) -> Inputs:
  """The inputs with the pictures of each row, in as many places as the row with the most of them has."""
  reader = getattr(generator.tokenizer, "reader", None)
  if reader is not None and not any(pictures) and not (inputs.tokens_BT == reader.image_id).any():
    return inputs
  if reader is not None and not hasattr(generator.model.config, "picture_columns"):   # whose cache has no more places
    reader = dataclasses.replace(reader, images=max(map(len, pictures), default=1))
  return with_pictures(reader, inputs, pictures)


def responses(settings: ChatSettings, conversation: Conversation,
              numbers: Sequence[int]) -> Iterator[tuple[Conversation, list[Generation]]]:
  """Yields (conversation, the responses so far) after every piece, until all responses have ended.

  numbers: one for each conversation; its random keys are folded from it, so they do not depend on the rows beside it

  `conversation` cannot be used afterwards: its cache is donated, as is that of every pair but the last one. A single
  conversation can go on from the last pair, whose cache holds nothing behind the end of the response. Of several, those
  that ended earlier hold padding there.
  """
  generator = settings.generator
  rows, count = conversation.cache.positions_BS.shape[0], len(conversation.last_tokens)
  generations, piece = [Generation()] * count, 0
  while not all(generation.finish for generation in generations):
    leads, live_B, numbers_B = _piece_inputs(conversation, generations, numbers, rows)
    placed = shard_rows(generator.mesh, (leads, live_B, numbers_B))
    cache, sampled = generator.compiled.sample(generator.params, conversation.cache, *placed, settings.key,
                                               np.int32(piece), np.float32(settings.temperature))
    tokens_BR, logprobs_BR, lengths_B, steps = hosts.whole_arrays(
        (sampled.tokens_BR, sampled.logprobs_BR, sampled.lengths_B, sampled.steps))
    before = [len(generation.tokens) for generation in generations]
    generations = [
        old if old.finish else
        append_tokens(old, tokens[:length], logprobs[:length], generator.tokenizer, settings.stop_conditions)
        for old, tokens, logprobs, length in zip(
            generations, tokens_BR.tolist(), logprobs_BR.tolist(), lengths_B.tolist(), strict=False)]
    new = [len(generation.tokens) - old for generation, old in zip(generations, before, strict=True)]
    used = conversation.used + int(steps)
    if count == rows == 1 and new[0] < steps:   # tokens were sampled behind a stop string or the limit: forget them
      used = conversation.used + new[0]
      cache = generator.compiled.rewind(cache, np.int32(used))
    conversation = Conversation(
        cache, conversation.cache_len, used, tuple(a + b for a, b in zip(conversation.counts, new, strict=True)),
        tuple(generation.tokens[-1] for generation in generations))
    piece += 1
    yield conversation, generations


def _piece_inputs(conversation: Conversation, generations: Sequence[Generation], numbers: Sequence[int],
                  rows: int) -> tuple[Inputs, np.ndarray, np.ndarray]:
  """Returns the last tokens as Inputs of one column, live_B (responses that go on) and numbers_B, on the host."""
  count = len(generations)
  leads = Inputs(*(np.zeros((rows, 1), np.int32) for _ in range(3)))
  live_B, numbers_B = np.zeros(rows, bool), np.zeros(rows, np.uint32)
  live_B[:count] = [not generation.finish for generation in generations]
  numbers_B[:count] = [number & 0xFFFFFFFF for number in numbers]
  leads.tokens_BT[:count, 0] = conversation.last_tokens
  leads.positions_BT[:count, 0] = [tokens - 1 for tokens in conversation.counts]
  leads.segments_BT[:, 0] = live_B
  return leads, live_B, numbers_B


def cache_len_of(tokens: int) -> int:
  """Returns the columns of a cache for that many tokens: four sizes an octave, since every column costs at every step.
  """
  grain = max(SHORTEST_CACHE, _power(tokens)) // 8
  return max(SHORTEST_CACHE, -(-tokens // grain) * grain)


def _power(number: int) -> int:
  """Returns the smallest power of two that is at least `number`."""
  return 1 << max(0, number - 1).bit_length()
