"""A model as a policy: chats in, responses out, the cache carried from turn to turn.

All shapes are known beforehand: turn u reads at most `read_len(u)` tokens a row into a cache of `cache_len(u)`, and the
batch has one of a few sizes, so that conversations which have ended stop costing. `shapes` lists them, `compile_all`
runs each once. Conversations that begin alike, as those of a group do, read their prompt once.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from sftrl_jax.chat import Chat, continues
from sftrl_jax.envs.env import Rewriting
from sftrl_jax.inputs import Inputs, left_pad
from sftrl_jax.models import Model, flops
from sftrl_jax.models.cache import Cache, empty, grow, take
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import by_rows, replicated, rows as row_parts, shard_rows
from sftrl_jax.rollout import placement
from sftrl_jax.rollout.config import RolloutConfig
from sftrl_jax.rollout.episodes import Policy, Response, Trouble
from sftrl_jax.rollout.fitting import group_prompts, message_ids, prompt_ids
from sftrl_jax.rollout.sample import SampledTokens, Sampling, TurnInputs, respond
from sftrl_jax.text.pretrained import Pretrained
from sftrl_jax.text.render import refuse_reuse
from sftrl_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Memory:
  """What a policy keeps between two turns of the same conversations, those of this process."""

  turn: int
  cache: Cache | None  # None when it is not carried
  slots: tuple[int, ...]  # rows of these conversations
  ids: tuple[tuple[int, ...], ...]  # of every conversation so far: contexts and responses
  stopped: tuple[bool, ...]
  episodes: tuple[int, ...]
  rows: int  # rows of the compiled shape, dead ones included
  answered: tuple[tuple[Chat, str], ...] = ()  # chats and responses, where the environment rewrites its prompt


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of a turn on all devices together. bytes: reads of weights and cache while it samples."""

  flops: float
  bytes: float


class Compiled(NamedTuple):
  """The compiled functions of a rollout.

  turn: (params, cache or None, TurnInputs, cache_len, group) -> (cache, SampledTokens): samples a response a row
  regroup: (cache, rows_B, cache_len) -> the cache of these rows, with room for cache_len tokens
  to_decoding: training parameters of `model` -> decoding parameters, with the shardings of decoding
  """

  turn: Callable
  regroup: Callable
  to_decoding: Callable


@dataclasses.dataclass(frozen=True)
class Actor:
  """The compiled half of a policy; parameters come with each call. Hashable, so one compilation serves a whole run.

  turns: most turns of an episode
  group: conversations of training that begin with one prompt; it divides rollout.rows
  rewriting: bounds of an environment whose episodes have several chats; None where a chat only grows
  """

  model: Model
  tokenizer: Tokenizer | Pretrained
  rollout: RolloutConfig
  sampling: Sampling
  turns: int
  mesh: Mesh
  group: int = 1
  rewriting: Rewriting | None = None

  def __post_init__(self):
    if self.turns > 1 and self.carries:
      refuse_reuse(self.tokenizer)

  @property
  def carries(self) -> bool:
    """Whether the cache is kept from turn to turn: a rewritten prompt has nothing in it."""
    return self.rollout.carry and self.rewriting is None

  @property
  def row_turns(self) -> int:
    """Most turns of a row, which holds one chat."""
    return self.rewriting.row_attempts if self.rewriting else self.turns

  @property
  def episode_rows(self) -> int:
    """Rows of an episode in a batch, blank ones included."""
    return self.rewriting.rows if self.rewriting else 1

  @functools.cached_property
  def sizes(self) -> tuple[int, ...]:
    """Row counts that are compiled, largest first; multiples of the number of parts that the mesh splits rows into."""
    parts = row_parts(self.mesh)
    smaller = {max(parts, -(-int(self.rollout.rows * share) // parts) * parts) for share in self.rollout.shrink}
    return tuple(sorted({self.rollout.rows, *smaller}, reverse=True))

  @functools.cached_property
  def share(self) -> hosts.Share:
    """The rows of this process among those decoded together."""
    return hosts.share(self.mesh)

  def read_len(self, turn: int) -> int:
    """Tokens a row reads at the start of a turn: the prompt; later the last token, a missing <eos>, the feedback."""
    if turn == 0:
      return self.rollout.prompt_tokens
    if self.carries:
      return self.rollout.feedback_tokens + 2
    last = self.row_turns - 1
    return self.rollout.prompt_tokens + last * (self.rollout.max_new_tokens + 1 + self.rollout.feedback_tokens)

  def cache_len(self, turn: int) -> int:
    """Tokens of the cache in a turn: the need of the first turn, and from the second on that of the last one, so that
    all turns but the first share their programs."""
    write = self.rollout.max_new_tokens - 1  # the last sampled token is not written
    if turn == 0 or not self.carries:
      return self.read_len(turn) + write
    return sum(self.read_len(u) + write for u in range(self.turns))

  def row_len(self, bootstrap: bool = False) -> int:
    """Columns of a row that holds any chat: prompt, responses, an <eos> and a message between. The last id is only a
    target and has no column.

    bootstrap: whether the verifier's last message of a truncated episode is read too
    """
    rollout, between = self.rollout, 1 + self.rollout.feedback_tokens
    length = rollout.prompt_tokens + self.row_turns * rollout.max_new_tokens + (self.row_turns - 1) * between - 1
    return length + (between + 1) * bootstrap

  def shapes(self) -> list[tuple[int, int, int]]:
    """(turn, rows, rows that share a prompt) of every compiled program. The first turn always has all rows; turn 1
    stands for all later turns. Evaluation has no groups, so the first turn is compiled with and without them."""
    first = [(0, self.rollout.rows, group) for group in sorted({1, self.group})]
    return [*first, *((1, size, 1) for size in self.sizes if self.turns > 1)]

  @functools.cached_property
  def decoder(self) -> Model:
    """The model as it decodes."""
    config = self.model.config
    return dataclasses.replace(self.model, config=dataclasses.replace(config, dtype=self.rollout.dtype or config.dtype))

  @functools.cached_property
  def compiled(self) -> Compiled:
    """The three compiled functions of a rollout."""
    return _compiled(self.decoder, self.sampling, self.tokenizer.stops, self.tokenizer.pad, self.mesh,
                     self.rollout.gather)

  def flops(self, turn: int, rows: int, steps: int, group: int = 1) -> float:
    """FLOPs of a turn: every row of the compiled shape, alive or not, at every step taken; a shared prompt once."""
    read, decode = self.read_len(turn) * rows // group, (steps - 1) * rows
    return flops.forward(self.model.config, read + decode, self.cache_len(turn), unembedded=rows * steps)


@functools.cache   # so that actors of one model share their traces
def _compiled(decoder: Model, sampling: Sampling, stops: tuple[int, ...], pad: int, mesh: Mesh, gather: bool
              ) -> Compiled:
  split, rows, whole = placement.cache_shardings(decoder.config, mesh), by_rows(mesh), replicated(mesh)
  sampled = SampledTokens(rows, rows, rows, rows, whole)  # so that each process can read those of its own rows

  @functools.partial(jax.jit, static_argnames=("cache_len", "group"), out_shardings=(split, sampled))
  @functools.partial(placement.with_decoding_rules, gather=gather)
  def turn(params: dict, cache: Cache | None, turn_inputs: TurnInputs, cache_len: int = 0, group: int = 1
           ) -> tuple[Cache, SampledTokens]:
    if cache is None:
      cache = empty(decoder.config, turn_inputs.inputs.tokens_BT.shape[0], cache_len)
    return respond(decoder, sampling, stops, pad, params, cache, turn_inputs, group)

  @functools.partial(jax.jit, static_argnames=("cache_len",), out_shardings=split)
  @functools.partial(placement.with_decoding_rules, gather=gather)
  def regroup(cache: Cache, rows_B: jax.Array, cache_len: int) -> Cache:
    return grow(take(cache, rows_B), cache_len)

  return Compiled(turn, regroup, placement.to_decoding_fn(decoder, mesh, gather))


def policy(actor: Actor, params: dict, key: jax.Array, temperature: float, episodes: Sequence[int],
           rollout_costs: list[Cost] | None = None, group: int = 1) -> Policy:
  """A Policy (rollout/episodes.py) that answers with `params`, which are decoding parameters.

  Of several processes each answers the chats of its own rows. All call it equally often, with no chats if need be
  (rollout/exchange.py), because the compiled turn runs on all devices.
  episodes: a number for each of the first call's chats, from which its random keys are folded.
  rollout_costs: the Cost of every turn is appended to it.
  group: so many of the first call's chats, standing together, are the same; 1, or the actor's group, which is compiled.
  """

  def answer(chats: Sequence[Chat | None], kept: Sequence[int] | None, memory: Memory | None
             ) -> tuple[list[Response], Memory]:
    reading = (_first_reading(actor, chats, episodes, group) if kept is None else
               _next_reading(actor, chats, kept, memory))
    return _turn(actor, params, key, temperature, reading, rollout_costs)

  return answer


@dataclasses.dataclass(frozen=True)
class _Reading:
  """What this process's conversations read in one turn."""

  turn: int
  rows: int  # of the compiled shape
  slots: tuple[int, ...]  # rows of the conversations
  contexts: list[list[int]]  # new ids of every conversation
  last_tokens: list[list[int]]  # ids read before them: the last sampled one, or with carry off the whole chat
  ids: list[tuple[int, ...]]  # of every conversation so far
  episodes: tuple[int, ...]
  cache: Cache | None
  refused: list[Trouble | None]  # why a conversation is not answered
  chats: Sequence[Chat | None]
  begins_row: list[bool]  # whether the chat is another one than that answered before
  group: int = 1  # conversations that stand together and read the same


def _first_reading(actor: Actor, chats: Sequence[Chat | None], episodes: Sequence[int], group: int) -> _Reading:
  if len(chats) > len(actor.share.slots(actor.rollout.rows)):
    raise ValueError(f"{len(chats)} conversations do not fit into config.rollout.rows = {actor.rollout.rows}.")
  contexts, refused = group_prompts(actor.tokenizer, chats, actor.rollout.prompt_tokens, group)
  blank, slots = [[] for _ in chats], tuple(actor.share.slots(actor.rollout.rows)[: len(chats)])
  return _Reading(0, actor.rollout.rows, slots, contexts, blank, [()] * len(chats), tuple(episodes), None, refused,
                  chats, [False] * len(chats), group)


def _next_reading(actor: Actor, chats: Sequence[Chat], kept: Sequence[int], memory: Memory) -> _Reading:
  turn = memory.turn + 1
  begins_row = [bool(actor.rewriting) and not continues(*memory.answered[place], chat)
                for chat, place in zip(chats, kept, strict=True)]
  ids = [() if anew else memory.ids[place] for place, anew in zip(kept, begins_row, strict=True)]
  contexts, refused = [], []
  for chat, read, anew in zip(chats, ids, begins_row, strict=True):
    context, trouble = (prompt_ids(actor.tokenizer, chat, actor.rollout.prompt_tokens, "cut/prompt") if anew else
                        message_ids(actor.tokenizer, chat, actor.rollout.feedback_tokens, read))
    contexts.append(context)
    refused.append(trouble)
  slots_of_processes = hosts.gathered([memory.slots[place] for place in kept])
  rows = min(_smallest_size(actor, slots_of_processes), memory.rows)
  cache = None
  if actor.carries:
    rows_B = np.zeros(rows, np.int32)
    for process, slots in enumerate(slots_of_processes):
      rows_B[actor.share.slots(rows, process)[: len(slots)]] = slots
    cache = actor.compiled.regroup(memory.cache, rows_B, cache_len=actor.cache_len(turn))
  last_tokens = [list(row[-1:]) for row in ids] if actor.carries else [list(row) for row in ids]
  slots, episodes = tuple(actor.share.slots(rows)[: len(kept)]), tuple(memory.episodes[place] for place in kept)
  return _Reading(turn, rows, slots, contexts, last_tokens, ids, episodes, cache, refused, chats, begins_row)


def _smallest_size(actor: Actor, slots_of_processes: Sequence[Sequence[int]]) -> int:
  """The smallest compiled size in which every process has room for its conversations that go on."""
  return next(size for size in reversed(actor.sizes) if all(
      len(slots) <= len(actor.share.slots(size, process)) for process, slots in enumerate(slots_of_processes)))


def _rows_of(actor: Actor, reading: _Reading) -> tuple[Inputs, np.ndarray, np.ndarray, np.ndarray]:
  """(inputs, next_positions_B, live_B, episodes_B) of a turn, on the mesh. Refused conversations read nothing."""
  new_ids: list[list[int]] = [[] for _ in range(reading.rows)]
  next_positions_B, live_B, episodes_B = (np.zeros(reading.rows, kind) for kind in (np.int32, bool, np.uint32))
  behind_B = np.zeros(reading.rows, np.int32)
  for row, slot in enumerate(reading.slots):
    unread = reading.turn and reading.refused[row]   # a first turn has the ids of the group, or none
    new_ids[slot] = [] if unread else reading.last_tokens[row] + reading.contexts[row]
    behind_B[slot] = len(reading.ids[row]) - len(reading.last_tokens[row])
    next_positions_B[slot] = behind_B[slot] + len(new_ids[slot])
    live_B[slot] = reading.refused[row] is None
    episodes_B[slot] = reading.episodes[row] & 0xFFFFFFFF
  inputs = left_pad(new_ids[:: reading.group], actor.read_len(reading.turn))
  if reading.turn:
    inputs.positions_BT[:] += behind_B[:, None] * inputs.segments_BT
  return shard_rows(actor.mesh, (inputs, next_positions_B, live_B, episodes_B))


def _turn(actor: Actor, params: dict, key: jax.Array, temperature: float, reading: _Reading,
          rollout_costs: list[Cost] | None) -> tuple[list[Response], Memory]:
  cache_len = actor.cache_len(reading.turn)
  turn_inputs = TurnInputs(*_rows_of(actor, reading), key, np.int32(reading.turn), np.float32(temperature))
  cache, sampled = actor.compiled.turn(params, reading.cache, turn_inputs, cache_len=cache_len, group=reading.group)
  tokens_BR, logprobs_BR, lengths_B, stopped_B, steps = hosts.own_rows(
      (sampled.tokens_BR, sampled.logprobs_BR, sampled.lengths_B, sampled.stopped_B, sampled.steps))
  if rollout_costs is not None:
    rollout_costs.append(Cost(
        actor.flops(reading.turn, reading.rows, int(steps), reading.group),
        int(steps) * flops.decode_bytes(actor.decoder.config, params, reading.rows, cache_len)))
  responses, ids = [], []
  tokens_BR, logprobs_BR, lengths_B, stopped_B = (
      x[list(reading.slots)].tolist() for x in (tokens_BR, logprobs_BR, lengths_B, stopped_B))
  rows = zip(tokens_BR, logprobs_BR, lengths_B, stopped_B, strict=True)
  for row, (tokens, logprobs, length, stopped) in enumerate(rows):
    tokens = tuple(tokens[:length])
    text = actor.tokenizer.decode(tokens[:-1] if stopped and length else tokens)
    context = tuple(reading.contexts[row])
    responses.append(Response(text, context, tokens, tuple(logprobs[:length]), stopped, reading.refused[row],
                              reading.begins_row[row]))
    ids.append(reading.ids[row] + context + tokens)
  answered = tuple((chat, response.text) for chat, response in zip(reading.chats, responses, strict=True))
  memory = Memory(reading.turn, cache if actor.carries else None, reading.slots, tuple(ids), tuple(stopped_B),
                  reading.episodes, reading.rows, answered if actor.rewriting else ())
  return responses, memory


def compile_all(actor: Actor, params: dict, after_each: Callable[[], None] = lambda: None) -> None:
  """Runs every shape of a rollout once on blank rows, so that nothing compiles later. params: decoding parameters.

  after_each: called after every program that is compiled.
  """
  turn, regroup = actor.compiled.turn, actor.compiled.regroup
  key = jax.random.key(0)
  caches: dict[tuple[int, int], Cache] = {}  # by (turn, rows); sizes descend
  for number, rows, group in actor.shapes():
    blank = Inputs(*(np.zeros((rows // group, actor.read_len(number)), np.int32) for _ in range(3)))
    cache, cache_len = None, actor.cache_len(number)
    if number and actor.carries:
      rows_B = np.zeros(rows, np.int32)
      for old in caches.values():  # of the first turn, and of later ones with more rows
        cache = regroup(old, rows_B, cache_len=cache_len)
      regroup(cache, rows_B, cache_len=cache_len)
    flags = (np.zeros(rows, np.int32), np.zeros(rows, bool), np.zeros(rows, np.uint32))
    turn_inputs = TurnInputs(*shard_rows(actor.mesh, (blank, *flags)), key, np.int32(number), np.float32(1.0))
    caches[number, rows], _ = turn(params, cache, turn_inputs, cache_len=cache_len, group=group)
    after_each()
  jax.block_until_ready(caches)
