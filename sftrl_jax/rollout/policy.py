"""A model as a policy: chats in, responses out, the cache carried from turn to turn.

All shapes are known beforehand: turn u reads at most `reads(u)` tokens a row into a cache of `room(u)`, and rows come
in a few sizes, so that conversations which have ended stop costing. `shapes` lists them, `compile_all` meets each once.
Conversations that begin alike, as those of a group do, read their prompt once.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from sftrl_jax.chat import Chat
from sftrl_jax.inputs import Inputs, left_pad
from sftrl_jax.models import Model, cache as caches, flops
from sftrl_jax.parallel import hosts, mesh as meshes
from sftrl_jax.rollout import placement
from sftrl_jax.rollout.episodes import Response
from sftrl_jax.rollout.sample import SampledTokens, Sampling, respond, row_keys
from sftrl_jax.text.pretrained import Pretrained
from sftrl_jax.text.render import continued, refuse_reuse, render
from sftrl_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
  """How episodes are played.

  rows: conversations decoded together
  prompt_tokens: longest prompt
  feedback_tokens: longest message of the verifier, with what the chat template puts around it
  max_new_tokens: longest response, its <eos> included
  temperature: of training rollouts and their log-probabilities
  carry: keep the cache from turn to turn; off reads the whole chat again every turn
  shrink: sizes, as shares of `rows`, to which the batch is cut once enough conversations have ended
  dtype: of decoding, weights and cache ("": as in training); bfloat16 halves both, and the sampler's log-probabilities
    then differ from the trainer's, see sampling/sampling_logp_difference
  gather: every device has whole matrices (but for tensor) while it decodes; off, they stay split over fsdp too
  """

  rows: int = 256
  prompt_tokens: int = 64
  feedback_tokens: int = 16
  max_new_tokens: int = 64
  temperature: float = 1.0
  carry: bool = True
  shrink: tuple[float, ...] = (0.75, 0.5)
  dtype: Literal["", "float32", "bfloat16"] = ""
  gather: bool = False

  def __post_init__(self):
    object.__setattr__(self, "shrink", tuple(self.shrink))
    for name in ("rows", "prompt_tokens", "feedback_tokens", "max_new_tokens"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
    if not 0 < self.temperature <= 100:
      raise ValueError(f"temperature is {self.temperature}; training rollouts need one above 0 and at most 100, for "
                       "example 1.0.")
    if any(not 0 < share < 1 for share in self.shrink):
      raise ValueError(f"shrink is {self.shrink}; its shares must lie between 0 and 1, for example (0.75, 0.5).")
    if self.dtype not in ("", "float32", "bfloat16"):
      raise ValueError(f"dtype is {self.dtype!r}; it must be float32, bfloat16, or '' for that of training.")


@dataclasses.dataclass(frozen=True)
class Memory:
  """What a policy keeps between two turns of the same conversations: this process's, of which `slots` are the rows."""

  turn: int
  cache: Any  # Cache, or None when it is not carried
  slots: tuple[int, ...]
  ids: tuple[tuple[int, ...], ...]  # of every row so far: contexts and responses
  stopped: tuple[bool, ...]
  episodes: tuple[int, ...]
  rows: int  # rows of the compiled shape, dead ones included


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a turn cost, on all devices together. bytes: that sampling its tokens had to read."""

  flops: float
  bytes: float


class Compiled(NamedTuple):
  """The compiled functions of a rollout.

  turn: (params, cache or None, inputs, next_positions_B, live_B, episodes_B, key, turn, temperature, cache_len, group)
    -> (cache, SampledTokens): reads what is new and samples a response a row
  regroup: (cache, rows_B, cache_len) -> the cache of these rows, with room for cache_len tokens
  to_decoding: training parameters of `model` -> decoding parameters, where decoding reads them
  """

  turn: Callable
  regroup: Callable
  to_decoding: Callable


@dataclasses.dataclass(frozen=True)
class Actor:
  """The compiled half of a policy; parameters come with each call. Hashable, so one compilation serves a whole run.

  group: conversations of training that begin with one prompt; it divides rollout.rows.
  """

  model: Model
  tokenizer: Tokenizer | Pretrained
  rollout: RolloutConfig
  sampling: Sampling
  turns: int
  mesh: Any
  group: int = 1

  def __post_init__(self):
    if self.turns > 1 and self.rollout.carry:
      refuse_reuse(self.tokenizer)

  @functools.cached_property
  def sizes(self) -> tuple[int, ...]:
    """Row counts that are compiled, largest first; multiples of what the mesh splits rows into."""
    parts = meshes.rows(self.mesh)
    smaller = {max(parts, -(-int(self.rollout.rows * share) // parts) * parts) for share in self.rollout.shrink}
    return tuple(sorted({self.rollout.rows, *smaller}, reverse=True))

  @functools.cached_property
  def share(self) -> hosts.Share:
    """Which conversations of those decoded together this process holds."""
    return hosts.share(self.mesh)

  def read_len(self, turn: int) -> int:
    """Tokens a row reads at the start of a turn: the prompt; later the last token, a missing <eos>, the feedback."""
    if turn == 0:
      return self.rollout.prompt_tokens
    if self.rollout.carry:
      return self.rollout.feedback_tokens + 2
    last = self.turns - 1
    return self.rollout.prompt_tokens + last * (self.rollout.max_new_tokens + 1 + self.rollout.feedback_tokens)

  def cache_len(self, turn: int) -> int:
    """Tokens of the cache in a turn: what the first needs, and from the second on what the last will need, so that
    all turns but the first share their programs."""
    write = self.rollout.max_new_tokens - 1
    if turn == 0 or not self.rollout.carry:
      return self.read_len(turn) + write
    return sum(self.read_len(u) + write for u in range(self.turns))

  def row_len(self, bootstrap: bool = False) -> int:
    """Columns that hold any episode: prompt, every response, an <eos> and a message between; the last only a target.

    bootstrap: whether the verifier's last message of a truncated episode is read too
    """
    rollout, between = self.rollout, 1 + self.rollout.feedback_tokens
    length = rollout.prompt_tokens + self.turns * rollout.max_new_tokens + (self.turns - 1) * between - 1
    return length + (between + 1) * bootstrap

  def shapes(self) -> list[tuple[int, int, int]]:
    """(turn, rows, rows that share a prompt) of every compiled program; the first turn always has all rows, 1 stands
    for all later turns. Evaluation has no groups, so both kinds of a first turn are there."""
    first = [(0, self.rollout.rows, group) for group in sorted({1, self.group})]
    return [*first, *((1, size, 1) for size in self.sizes if self.turns > 1)]

  @functools.cached_property
  def decoder(self) -> Model:
    """The model as it decodes."""
    config = self.model.config
    return dataclasses.replace(self.model, config=dataclasses.replace(config, dtype=self.rollout.dtype or config.dtype))

  @functools.cached_property
  def compiled(self):
    """The three compiled functions of a rollout."""
    words = (self.tokenizer.stops, self.tokenizer.pad)
    return _compiled(self.decoder, self.sampling, *words, self.mesh, self.rollout.gather)

  def flops(self, turn: int, rows: int, steps: int, group: int = 1) -> float:
    """What a turn cost: every row of the compiled shape, alive or not, at every step taken; a shared prompt once."""
    read, decode = self.read_len(turn) * rows // group, (steps - 1) * rows
    return flops.forward(self.model.config, read + decode, self.cache_len(turn), unembedded=rows * steps)


@functools.cache   # actors of one model share what is traced
def _compiled(decoder: Model, sampling: Sampling, stops: tuple[int, ...], pad: int, mesh, gather: bool):
  """The functions of an actor that decodes with this model."""
  split, rows, whole = placement.cache(decoder.config, mesh), meshes.by_rows(mesh), meshes.replicated(mesh)
  told = SampledTokens(rows, rows, rows, rows, whole)  # each process reads those of its own rows

  @functools.partial(jax.jit, static_argnames=("cache_len", "group"), out_shardings=(split, told))
  @functools.partial(placement.decoded, gather=gather)
  def turn(params, cache, inputs, next_positions_B, live_B, episodes_B, key, number, temperature, cache_len=0, group=1):
    cache = caches.empty(decoder.config, inputs.tokens_BT.shape[0], cache_len) if cache is None else cache
    keys_B = row_keys(key, episodes_B, number)
    return respond(decoder, sampling, stops, pad, params, cache, inputs.tokens_BT, inputs.positions_BT,
                   inputs.segments_BT, next_positions_B, live_B, keys_B, temperature, group)

  @functools.partial(jax.jit, static_argnames=("cache_len",), out_shardings=split)
  @functools.partial(placement.decoded, gather=gather)
  def regroup(cache, rows_B, cache_len):
    return caches.grow(caches.take(cache, rows_B), cache_len)

  return Compiled(turn, regroup, placement.mover(decoder, mesh, gather))


def policy(actor: Actor, params, key: jax.Array, temperature: float, episodes: Sequence[int],
           spent: list | None = None, group: int = 1):
  """A Policy (rollout/episodes.py) that answers with `params`, which are decoding parameters.

  Of several processes each answers the chats of its own rows, and all are to call it equally often, with no chats if
  need be (rollout/exchange.py).
  episodes: a number for each of the first call's chats, from which its random keys are folded.
  spent: the Cost of every turn is appended to it.
  group: so many of the first call's chats, standing together, are the same; 1 or the actor's own, which is compiled.
  """

  def answer(chats: Sequence[Chat], kept: Sequence[int] | None, memory: Memory | None):
    if kept is None:
      return _turn(actor, params, key, temperature, _opening(actor, chats, episodes, group), spent)
    return _turn(actor, params, key, temperature, _continued(actor, chats, kept, memory), spent)

  return answer


@dataclasses.dataclass(frozen=True)
class _Reading:
  """What one turn is about to read."""

  turn: int
  rows: int
  slots: tuple[int, ...]  # where the live rows of this process are
  contexts: list[list[int]]  # new ids of every live row
  leads: list[list[int]]  # ids read again or late: the last sampled token, or with carry off everything so far
  ids: list[tuple[int, ...]]
  episodes: tuple[int, ...]
  cache: Any
  group: int = 1  # live rows that stand together and read the same


def _opening(actor: Actor, chats, episodes, group: int) -> _Reading:
  if len(chats) > len(actor.share.slots(actor.rollout.rows)):
    raise ValueError(f"{len(chats)} conversations do not fit into config.rollout.rows = {actor.rollout.rows}.")
  if any(chat != chats[place - place % group] for place, chat in enumerate(chats)):
    raise ValueError("Episodes of one seed begin with different chats: reset(seed) of the environment must depend on "
                     "the seed alone, for config.rollout gives a group one prompt.")
  contexts = [ids for chat in chats[::group] for ids in [render(actor.tokenizer, chat)[0]] * group]
  longest = max(map(len, contexts), default=0)
  if longest > actor.rollout.prompt_tokens:
    raise ValueError(f"config.rollout.prompt_tokens is {actor.rollout.prompt_tokens}, but a prompt has {longest} "
                     f"tokens: use --config.rollout.prompt_tokens={longest} or more.")
  blank, slots = [[] for _ in chats], tuple(actor.share.slots(actor.rollout.rows)[: len(chats)])
  return _Reading(0, actor.rollout.rows, slots, contexts, blank, [()] * len(chats), tuple(episodes), None, group)


def _continued(actor: Actor, chats, kept, memory: Memory) -> _Reading:
  turn = memory.turn + 1
  contexts = []
  for chat, place in zip(chats, kept, strict=True):
    closed = memory.ids[place][-1:] == (actor.tokenizer.eos,)   # it may be cut off, or have stopped at another end id
    contexts.append([*(() if closed else (actor.tokenizer.eos,)), *continued(actor.tokenizer, chat)])
  ids = [memory.ids[place] for place in kept]
  going_on = hosts.gathered([memory.slots[place] for place in kept])
  rows = min(_fitting(actor, going_on), memory.rows)
  cache = None
  if actor.rollout.carry:
    chosen = np.zeros(rows, np.int32)
    for process, slots in enumerate(going_on):
      chosen[actor.share.slots(rows, process)[: len(slots)]] = slots
    cache = actor.compiled.regroup(memory.cache, chosen, cache_len=actor.cache_len(turn))
  leads = [list(row[-1:]) for row in ids] if actor.rollout.carry else [list(row) for row in ids]
  slots = tuple(actor.share.slots(rows)[: len(kept)])
  return _Reading(turn, rows, slots, contexts, leads, ids, tuple(memory.episodes[place] for place in kept), cache)


def _fitting(actor: Actor, going_on: Sequence[Sequence[int]]) -> int:
  """The smallest compiled size in which every process has room for its conversations that go on."""
  return next(size for size in reversed(actor.sizes) if all(
      len(slots) <= len(actor.share.slots(size, process)) for process, slots in enumerate(going_on)))


def _turn(actor: Actor, params, key, temperature, reading: _Reading, spent):
  width = actor.read_len(reading.turn)
  refused = [reading.turn > 0 and len(context) > actor.rollout.feedback_tokens + 1 for context in reading.contexts]
  spoken: list[list[int]] = [[] for _ in range(reading.rows)]
  next_positions_B, live_B, episodes_B = (np.zeros(reading.rows, kind) for kind in (np.int32, bool, np.uint32))
  behind_B = np.zeros(reading.rows, np.int32)
  for row, slot in enumerate(reading.slots):
    spoken[slot] = [] if refused[row] else reading.leads[row] + reading.contexts[row]
    behind_B[slot] = len(reading.ids[row]) - len(reading.leads[row])
    next_positions_B[slot] = behind_B[slot] + len(spoken[slot])
    live_B[slot] = not refused[row]
    episodes_B[slot] = reading.episodes[row] & 0xFFFFFFFF
  inputs = left_pad(spoken[:: reading.group], width)
  if reading.turn:
    inputs.positions_BT[:] += behind_B[:, None] * inputs.segments_BT
  placed = meshes.shard_rows(actor.mesh, (inputs, next_positions_B, live_B, episodes_B))
  cache, response = actor.compiled.turn(params, reading.cache, *placed, key, np.int32(reading.turn),
                                      np.float32(temperature), cache_len=actor.cache_len(reading.turn), group=reading.group)
  tokens_BR, logprobs_BR, lengths_B, stopped_B, steps = hosts.own_rows(
      (response.tokens_BR, response.logprobs_BR, response.lengths_B, response.stopped_B, response.steps))
  if spent is not None:
    cache_len = actor.cache_len(reading.turn)
    spent.append(Cost(actor.flops(reading.turn, reading.rows, int(steps), reading.group),
                      int(steps) * flops.decode_bytes(actor.decoder.config, params, reading.rows, cache_len)))
  replies, ids = [], []
  tokens_BR, logprobs_BR, lengths_B, stopped_B = (
      x[list(reading.slots)].tolist() for x in (tokens_BR, logprobs_BR, lengths_B, stopped_B))
  rows = zip(tokens_BR, logprobs_BR, lengths_B, stopped_B, strict=True)
  for row, (tokens, logprobs, length, stopped) in enumerate(rows):
    tokens = tuple(tokens[:length])
    text = actor.tokenizer.decode(tokens[:-1] if stopped and length else tokens)
    context = tuple(reading.contexts[row])
    replies.append(Response(text, context, tokens, tuple(logprobs[:length]), stopped, refused[row]))
    ids.append(reading.ids[row] + context + tokens)
  memory = Memory(reading.turn, cache if actor.rollout.carry else None, reading.slots, tuple(ids), tuple(stopped_B),
                  reading.episodes, reading.rows)
  return replies, memory


def compile_all(actor: Actor, params, told: Callable[[], None] = lambda: None) -> None:
  """Runs every shape of a rollout once on blank rows, so that nothing compiles later. params: decoding parameters.

  told: called after every one that is compiled.
  """
  turn, regroup = actor.compiled.turn, actor.compiled.regroup
  key = jax.random.key(0)
  made: dict[tuple[int, int], Any] = {}  # caches by shape; sizes descend
  for number, rows, group in actor.shapes():
    blank = Inputs(*(np.zeros((rows // group, actor.read_len(number)), np.int32) for _ in range(3)))
    cache = None
    if number and actor.rollout.carry:
      cache_len, nobody = actor.cache_len(number), np.zeros(rows, np.int32)
      for old in made.values():  # of the first turn, and of later ones with more rows
        cache = regroup(old, nobody, cache_len=cache_len)
      regroup(cache, nobody, cache_len=cache_len)
    zeros = (np.zeros(rows, np.int32), np.zeros(rows, bool), np.zeros(rows, np.uint32))
    placed = meshes.shard_rows(actor.mesh, (blank, *zeros))
    cache, _ = turn(params, cache, *placed, key, np.int32(number), np.float32(1.0), cache_len=actor.cache_len(number),
                    group=group)
    made[number, rows] = cache
    told()
  jax.block_until_ready(made)
