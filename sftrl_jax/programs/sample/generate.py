"""A model that speaks in pieces. Prompts are read into the cache, then a few tokens at a time are sampled by the loop
that training samples with, and in between the host looks: at stop strings, at Ctrl-C, and at what can be shown already.

Few shapes are compiled: prompts are read in powers of two, caches come in four sizes an octave, and all pieces are
equally long.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.inputs import Inputs, left_pad
from sftrl_jax.models import Model, cache as caches
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.sample.stopping import Generation, StopConditions, append_tokens
from sftrl_jax.rollout import placement
from sftrl_jax.rollout.sample import Sampling, TurnInputs, respond

PIECE = 8   # tokens sampled between two looks of the host
WIDEST, NARROWEST = 256, 16   # tokens a row read at once
SMALLEST_ROOM = 128   # tokens of the smallest cache


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
  """A model with parameters as decoding wants them, and from which distribution it draws.

  mesh: one that does not split rows (`alone`)
  sampling: its max_new_tokens are those of a piece
  """

  model: Model
  tokenizer: Any
  params: dict
  mesh: Any
  sampling: Sampling = Sampling(PIECE)

  @functools.cached_property
  def compiled(self):
    """(blank, read, say, grow, rewind): caches are donated, so there is one of each conversation."""
    split = placement.cache(self.model.config, self.mesh)
    jit = functools.partial(jax.jit, out_shardings=split)
    experiment = (self.model, self.sampling, self.tokenizer.stops, self.tokenizer.pad)

    @functools.partial(jit, static_argnums=(0, 1))
    def blank(count, room):
      return caches.empty(self.model.config, count, room)

    @functools.partial(jit, donate_argnums=1)
    def read(params, cache, inputs):
      return self.model.extend(params, cache, inputs)[1]

    @functools.partial(jax.jit, donate_argnums=1, out_shardings=(split, None))
    def say(params, cache, leads: Inputs, live_B, numbers_B, key, piece, temperature):
      turn = TurnInputs(leads, leads.positions_BT[:, 0] + 1, live_B, numbers_B, key, piece, temperature)
      return respond(*experiment, params, cache, turn)

    @functools.partial(jit, static_argnums=1)
    def grow(cache, room):
      return caches.grow(cache, room)

    @functools.partial(jit, donate_argnums=0)
    def rewind(cache, index):
      before_1S = jnp.arange(cache.segments_BS.shape[1])[None] < index
      return cache.replace(index=index, segments_BS=jnp.where(before_1S, cache.segments_BS, 0))

    return blank, read, say, grow, rewind


@dataclasses.dataclass(frozen=True)
class Conversation:
  """Conversations side by side. The last id of each is its lead: not in the cache yet, it is read before the next.

  room: columns of the cache
  used: columns that are taken, gaps included
  counts: ids of each conversation so far
  leads: the last id of each
  """

  cache: Any
  room: int
  used: int
  counts: tuple[int, ...]
  leads: tuple[int, ...]


def alone(mesh: MeshConfig) -> MeshConfig:
  """The mesh of one conversation: rows are not split, heads and ffn are, over all devices."""
  return dataclasses.replace(mesh, data=1, fsdp=1, tensor=-1)


def widths(tokens: int) -> list[int]:
  """In which pieces that many tokens are read, padding on the left of the first one."""
  whole, rest = divmod(tokens, WIDEST)
  first = [max(NARROWEST, _power(rest))] if rest else []
  return first + [WIDEST] * whole


def start_conversation(speaker: Generator, contexts: Sequence[Sequence[int]], reserve: int, rows: int = 0) -> Conversation:
  """Conversations that begin with these ids. reserve: tokens of the response. rows: of the compiled shape."""
  if not all(contexts):
    raise ValueError("A prompt has no token: give it some text.")
  return _read(speaker, None, [list(context) for context in contexts], reserve, max(rows, len(contexts)))


def continue_conversation(speaker: Generator, thread: Conversation, contexts: Sequence[Sequence[int]], reserve: int) -> Conversation:
  """The conversations with some more ids said to each. The thread that is given is used up."""
  spoken = [[lead, *context] for lead, context in zip(thread.leads, contexts, strict=True)]
  return _read(speaker, thread, spoken, reserve, thread.cache.positions_BS.shape[0])


def _read(speaker: Generator, thread: Conversation | None, spoken, reserve: int, rows: int) -> Conversation:
  """spoken: what each conversation reads, a lead that was left included; its last id becomes the new lead."""
  blank, read, _, grow, _ = speaker.compiled
  pieces = widths(max(len(ids) for ids in spoken) - 1)
  used = thread.used if thread else 0
  behind = [count - 1 for count in thread.counts] if thread else [0] * len(spoken)
  length = speaker.sampling.max_new_tokens
  needed = used + sum(pieces) + -(-reserve // length) * length
  room = max(cache_len_of(needed), thread.room if thread else 0)
  if thread is None:
    cache = blank(rows, room)
  else:
    cache = thread.cache if room == thread.room else grow(thread.cache, room)
  inputs = left_pad([ids[:-1] for ids in spoken], sum(pieces), rows)
  inputs.positions_BT[:len(spoken)] += np.asarray(behind, np.int32)[:, None] * inputs.segments_BT[:len(spoken)]
  start = 0
  for width in pieces:
    piece = jax.tree.map(lambda x, start=start, width=width: x[:, start:start + width], inputs)
    cache = read(speaker.params, cache, meshes.shard_rows(speaker.mesh, piece))
    start += width
  counts = tuple(before + len(ids) for before, ids in zip(behind, spoken, strict=True))
  return Conversation(cache, room, used + sum(pieces), counts, tuple(ids[-1] for ids in spoken))


def responses(speaker: Generator, thread: Conversation, until: StopConditions, temperature: float, key: jax.Array,
              numbers: Sequence[int]) -> Iterator[tuple[Conversation, list[Generation]]]:
  """Yields (thread, responses so far) after every piece, until each has ended. The thread that is given is used up.

  numbers: a number for each conversation, from which its random keys are folded, whoever speaks beside it. A single
  conversation can go on from the thread, which then holds nothing behind the end; of several some have ended earlier.
  """
  _, _, say, _, rewind = speaker.compiled
  rows, count = thread.cache.positions_BS.shape[0], len(thread.leads)
  said, piece = [Generation()] * count, 0
  while not all(response.finish for response in said):
    leads = Inputs(*(np.zeros((rows, 1), np.int32) for _ in range(3)))
    live_B, numbers_B = np.zeros(rows, bool), np.zeros(rows, np.uint32)
    live_B[:count] = [not response.finish for response in said]
    numbers_B[:count] = [number & 0xFFFFFFFF for number in numbers]
    leads.tokens_BT[:count, 0] = thread.leads
    leads.positions_BT[:count, 0] = [number - 1 for number in thread.counts]
    leads.segments_BT[:, 0] = live_B
    placed = meshes.shard_rows(speaker.mesh, (leads, live_B, numbers_B))
    cache, response = say(speaker.params, thread.cache, *placed, key, np.int32(piece), np.float32(temperature))
    tokens_BR, logprobs_BR, lengths_B, steps = jax.device_get(
        (response.tokens_BR, response.logprobs_BR, response.lengths_B, response.steps))
    before = [len(row.tokens) for row in said]
    said = [old if old.finish else append_tokens(old, tokens[:length], logprobs[:length], speaker.tokenizer, until)
            for old, tokens, logprobs, length in zip(
                said, tokens_BR.tolist(), logprobs_BR.tolist(), lengths_B.tolist(), strict=False)]
    new = [len(row.tokens) - old for row, old in zip(said, before, strict=True)]
    used = thread.used + int(steps)
    if count == rows == 1 and new[0] < steps:
      used = thread.used + new[0]
      cache = rewind(cache, np.int32(used))
    thread = Conversation(cache, thread.room, used, tuple(a + b for a, b in zip(thread.counts, new, strict=True)),
                    tuple(row.tokens[-1] for row in said))
    piece += 1
    yield thread, said


def cache_len_of(tokens: int) -> int:
  """Columns of the cache that holds so many tokens: four sizes an octave, for every column costs at every step."""
  grain = max(SMALLEST_ROOM, _power(tokens)) // 8
  return max(SMALLEST_ROOM, -(-tokens // grain) * grain)


def _power(number: int) -> int:
  """The smallest power of two that is not below."""
  return 1 << max(0, number - 1).bit_length()
