"""The slots of a decode batch: requests take free ones, are decoded, and leave.

All slots share one cache, a ring: it has one write index, which goes on from the first column after the last one.
Newcomers are read beside it in a batch of `Actor.newcomers` rows, and put into the ring right before its index. A row
lives for less than a turn of the ring, and its columns are replaced when the next one enters, so none meets others'.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from sftrl_jax.inputs import left_pad
from sftrl_jax.models import flops
from sftrl_jax.models.cache import Cache
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.rollout.actor import Actor, Cost, Ring
from sftrl_jax.rollout.policy import Lengths
from sftrl_jax.rollout.sample import SegmentInputs, TurnInputs
from sftrl_jax.rollout.segments import SampledResponse, append, on_mesh, regrouped, taken_rows, to_rows
from sftrl_jax.text.images import Pictures


@dataclasses.dataclass(eq=False)
class Request:
  """A response to sample.

  conversation: its number among those of this process
  episode, turn: from which, with the token, random numbers follow
  ids: that are read before it
  live: whether it is sampled at all; else it stands for a member of a group that never began
  images: the pictures among the ids
  """

  conversation: int
  episode: int
  turn: int
  ids: Sequence[int]
  live: bool = True
  images: Pictures = ()
  sampled: SampledResponse = dataclasses.field(default_factory=SampledResponse)

  @property
  def first(self) -> int:
    """The number of its next token."""
    return len(self.sampled.tokens)


@dataclasses.dataclass(frozen=True)
class Decoding:
  """What responses are sampled with.

  params: decoding parameters
  rollout_costs: gets the Cost of every call
  lengths: scripted lengths of responses, to measure with: stop tokens then end none
  """

  actor: Actor
  params: dict
  key: jax.Array
  temperature: float
  rollout_costs: list[Cost]
  lengths: Lengths | None = None

  def columns(self, rows: int, slots: Sequence[int], requests: Sequence[Request]) -> dict:
    """What TurnInputs and SegmentInputs have in common."""
    by_row = lambda values, kind: to_rows(rows, slots, values, kind)
    return dict(next_positions_B=by_row([len(request.ids) + request.first for request in requests], np.int32),
                live_B=by_row([request.live for request in requests], bool),
                episodes_B=by_row([request.episode for request in requests], np.uint32),
                turn=by_row([request.turn for request in requests], np.int32),
                lengths_B=None if self.lengths is None else by_row(
                    [self.lengths(request.episode, request.turn) for request in requests], np.int32),
                key=self.key, temperature=np.float32(self.temperature))

  def has_ended(self, request: Request) -> bool:
    """Whether a response has ended. Of the longest length, it has stopped only if its last token is a stop."""
    tokens, actor = request.sampled.tokens, self.actor
    request.sampled.stopped = bool(tokens) and bool(
        np.isin(tokens[-1], actor.tokenizer.stops) if self.lengths is None else
        self.lengths(request.episode, request.turn) <= len(tokens))
    return request.sampled.stopped or len(tokens) == actor.rollout.max_new_tokens

  def charge(self, count: float, rows: int, steps: int, columns: int, live: int) -> None:
    """Adds the Cost of `steps` tokens of so many rows and columns. count: its FLOPs. live: tokens of responses."""
    read = steps * flops.decode_bytes(self.actor.decoder.config, self.params, rows, columns)
    self.rollout_costs.append(Cost(count, read, live, rows * steps))

  def read(self, requests: Sequence[Request], turn: int, group: int) -> Cache:
    """Reads the ids of requests, and samples their first tokens: a cache of `Actor.newcomers` rows.

    turn: 0 for prompts, 1 for chats with a response in them. group: so many requests, standing together, have the same
    ids.
    """
    actor, rows, length = self.actor, self.actor.newcomers, self.actor.read_len(turn)
    slots, ids, images = actor.share.slots(rows)[: len(requests)], [[] for _ in range(rows)], [()] * rows
    for slot, request in zip(slots, requests, strict=True):
      ids[slot], images[slot] = request.ids, request.images
    read = actor.with_pictures(left_pad(ids[::group], length), images[::group], turn)
    inputs = TurnInputs(inputs=read, **self.columns(rows, slots, requests))
    newer, sampled = actor.compiled.turn(self.params, None, on_mesh(actor.mesh, inputs), cache_len=length, group=group)
    live = [(slot, request) for slot, request in zip(slots, requests, strict=True) if request.live]
    _, count = append(sampled, [request.sampled for _, request in live], range(len(live)), [slot for slot, _ in live])
    self.charge(actor.flops(turn, rows, 1, group, length), rows, 1, length, count)
    return newer


class Slots:
  """The slots of this process among those of a ring, which all devices decode together.

  Processes call its methods equally often and with the same sizes, because these run on all devices. What a process
  says of the rows of others is never read.
  rows: of the compiled shape
  """

  def __init__(self, decoding: Decoding, ring: Ring):
    self.ring, self.rows, self._decoding, self._actor = ring, ring.sizes[0], decoding, decoding.actor
    self._requests: dict[int, Request] = {}   # by slot
    self._cache = self._actor.compiled.ring(self.rows, ring.cache_len)

  @property
  def taken(self) -> list[int]:
    """Slots that are not free, ascending."""
    return sorted(self._requests)

  @property
  def free(self) -> int:
    """How many slots can be taken."""
    return len(self._actor.share.slots(self.rows)) - len(self._requests)

  @property
  def old(self) -> list[int]:
    """Slots whose response has as many tokens as the ring has room for, ascending."""
    return [slot for slot in self.taken if self._requests[slot].first == self.ring.tokens]

  @property
  def most(self) -> int:
    """Tokens of a segment, after which all old responses of this process are still whole."""
    left = [self.ring.tokens - request.first for request in self._requests.values()]
    return min([self._actor.segment, *(tokens + self.ring.slack for tokens in left if self.ring.slack)])

  def enter(self, requests: Sequence[Request | None], newer: Cache) -> None:
    """Lets the rows of a cache take free slots. requests: of this process's rows, None for one that takes none."""
    actor = self._actor
    free = iter(slot for slot in actor.share.slots(self.rows) if slot not in self._requests)
    rows_B = np.full(actor.newcomers, self.rows, np.int32)
    for row, request in zip(actor.share.slots(actor.newcomers), requests, strict=False):
      if request is not None:
        rows_B[row] = next(free)
        self._requests[int(rows_B[row])] = request
    self._cache = actor.compiled.admit(self._cache, shard_rows(actor.mesh, rows_B), newer)

  def leave(self, slots_of_processes: Sequence[Sequence[int]]) -> tuple[list[Request], Cache]:
    """(the requests in slots of this process, which are free then, the cache of those of all processes)."""
    rows_B = np.maximum(taken_rows(self._actor, self._actor.newcomers, slots_of_processes), 0)
    cache = regrouped(self._actor, self._cache, rows_B, self.ring.cache_len, keep=True)
    return [self._requests.pop(slot) for slot in slots_of_processes[hosts.index()]], cache

  def decode(self, enough: int, most: int) -> list[Request]:
    """Samples a segment of at most `most` tokens, which ends as soon as `enough` slots of all processes have no
    response that goes on. Returns those that have ended in it."""
    actor, rows, ring, old = self._actor, self.rows, self.ring, {*self.old}
    slots = [slot for slot in self.taken if slot not in old]
    requests = [self._requests[slot] for slot in slots]
    by_row = lambda values: to_rows(rows, slots, values, np.int32)
    inputs = SegmentInputs(
        tokens_B=by_row([request.sampled.tokens[-1] for request in requests]),
        first=by_row([request.first for request in requests]), most=np.int32(most),
        longest=np.int32(ring.tokens), enough=np.int32(enough), **self._decoding.columns(rows, slots, requests))
    self._cache, sampled = actor.compiled.segment(self._decoding.params, self._cache, on_mesh(actor.mesh, inputs))
    steps, count = append(sampled, [request.sampled for request in requests], range(len(requests)), slots)
    self._decoding.charge(actor.segment_flops(rows, steps, ring.cache_len), rows, steps, ring.cache_len, count)
    ended = [slot for slot, request in zip(slots, requests, strict=True) if self._decoding.has_ended(request)]
    return [self._requests.pop(slot) for slot in ended]

  def shrink(self, rows: int, taken_of_processes: Sequence[Sequence[int]]) -> None:
    """Moves to fewer rows, a compiled size. taken_of_processes: `taken` of every process."""
    rows_B = np.maximum(taken_rows(self._actor, rows, taken_of_processes), 0)
    self._cache = regrouped(self._actor, self._cache, rows_B, self.ring.cache_len)
    slots = self._actor.share.slots(rows)
    self.rows, self._requests = rows, {slot: self._requests[old] for slot, old in zip(slots, self.taken, strict=False)}
