"""The slots of a decode batch: requests take free ones, are decoded, and leave.

All slots share one cache, a ring: it has one write index, which goes on from the first column after the last one.
Newcomers are read beside it in a batch of `Actor.newcomers` rows, and put into the ring right before its index. A row
lives for less than a turn of the ring, and its columns are replaced when the next one enters, so none meets others'.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sftrl_jax.inputs import left_pad
from sftrl_jax.models import flops
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.rollout.actor import Actor, Cost
from sftrl_jax.rollout.policy import Lengths
from sftrl_jax.rollout.sample import SegmentInputs, TurnInputs
from sftrl_jax.rollout.segments import SampledResponse, append, on_mesh, regrouped, taken_rows, to_rows


@dataclasses.dataclass(eq=False)
class Request:
  """A response to sample.

  conversation: its number among those of this process
  episode, turn: from which, with the token, random numbers follow
  ids: that are read before it
  live: whether it is sampled at all; else it stands for a member of a group that never began
  """

  conversation: int
  episode: int
  turn: int
  ids: Sequence[int]
  live: bool = True
  sampled: SampledResponse = dataclasses.field(default_factory=SampledResponse)

  @property
  def first(self) -> int:
    """The number of its next token."""
    return len(self.sampled.tokens)


class Slots:
  """The slots of this process among those that all devices decode together.

  Processes call its methods equally often and with the same sizes, because these run on all devices. What a process
  says of the rows of others is never read.
  rows: of the compiled shape. params: decoding parameters. rollout_costs: gets the Cost of every call, or None.
  lengths: scripted lengths of responses, to measure with: stop tokens then end none.
  """

  def __init__(self, actor: Actor, params: dict, key: jax.Array, temperature: float,
               rollout_costs: list[Cost] | None = None, lengths: Lengths | None = None):
    self.actor, self.rows = actor, actor.rollout.rows
    self._params, self._key, self._temperature = params, key, np.float32(temperature)
    self._costs, self._lengths = [] if rollout_costs is None else rollout_costs, lengths
    self._requests: dict[int, Request] = {}   # by slot
    self._ring = actor.compiled.ring(self.rows, actor.ring_len)

  @property
  def taken(self) -> list[int]:
    """Slots in which a response is being sampled, ascending."""
    return sorted(self._requests)

  @property
  def free(self) -> list[int]:
    """Slots of this process that can be taken, ascending."""
    return [slot for slot in self.actor.share.slots(self.rows) if slot not in self._requests]

  @property
  def batch(self) -> int:
    """Most requests of this process in one call of `admit`."""
    return len(self.actor.share.slots(self.actor.newcomers))

  def admit(self, requests: Sequence[Request], turn: int = 0, group: int = 1) -> list[Request]:
    """Reads the ids of at most `batch` requests and samples their first tokens; those that go on take free slots.
    Returns those that have ended.

    turn: 0 for prompts, 1 for chats with a response in them. group: so many requests, standing together, have the same
    ids.
    """
    actor, rows, read = self.actor, self.actor.newcomers, self.actor.read_len(turn)
    slots, ids = actor.share.slots(rows)[: len(requests)], [[] for _ in range(rows)]
    for slot, request in zip(slots, requests, strict=True):
      ids[slot] = request.ids
    inputs = left_pad(ids[::group], read)
    by_row = lambda values, kind: to_rows(rows, slots, values, kind)
    positions_B, live_B, episodes_B, turns_B, lengths_B = self._columns(requests, by_row)
    inputs = TurnInputs(inputs, positions_B, live_B, episodes_B, self._key, turns_B, self._temperature, lengths_B)
    newer, sampled = actor.compiled.turn(self._params, None, on_mesh(actor.mesh, inputs), cache_len=read, group=group)
    live = [(slot, request) for slot, request in zip(slots, requests, strict=True) if request.live]
    _, count = append(sampled, [request.sampled for _, request in live], range(len(live)), [slot for slot, _ in live])
    self._charge(actor.flops(turn, rows, 1, group, read), rows, 1, read, count)
    ended, free, rows_B = [], iter(self.free), np.full(rows, self.rows, np.int32)
    for slot, request in live:
      if self._has_ended(request):
        ended.append(request)
      else:
        rows_B[slot] = next(free)
        self._requests[int(rows_B[slot])] = request
    self._ring = actor.compiled.admit(self._ring, shard_rows(actor.mesh, rows_B), newer)
    return ended

  def decode(self, enough: int) -> list[Request]:
    """Samples a segment, which ends as soon as `enough` slots of all processes are free. Returns those that have ended
    in it."""
    actor, rows, slots = self.actor, self.rows, self.taken
    requests = [self._requests[slot] for slot in slots]
    by_row = lambda values, kind: to_rows(rows, slots, values, kind)
    positions_B, live_B, episodes_B, turns_B, lengths_B = self._columns(requests, by_row)
    inputs = SegmentInputs(
        by_row([request.sampled.tokens[-1] for request in requests], np.int32), positions_B, live_B, episodes_B,
        self._key, turns_B, self._temperature, by_row([request.first for request in requests], np.int32),
        np.int32(actor.segment), lengths_B, np.int32(actor.rollout.max_new_tokens), np.int32(enough))
    self._ring, sampled = actor.compiled.segment(self._params, self._ring, on_mesh(actor.mesh, inputs))
    steps, count = append(sampled, [request.sampled for request in requests], range(len(requests)), slots)
    self._charge(actor.segment_flops(rows, steps, actor.ring_len), rows, steps, actor.ring_len, count)
    ended = [slot for slot, request in zip(slots, requests, strict=True) if self._has_ended(request)]
    return [self._requests.pop(slot) for slot in ended]

  def shrink(self, rows: int, taken_of_processes: Sequence[Sequence[int]]) -> None:
    """Moves to fewer rows, a compiled size. taken_of_processes: `taken` of every process."""
    rows_B = np.maximum(taken_rows(self.actor, rows, taken_of_processes), 0)
    self._ring = regrouped(self.actor, self._ring, rows_B, self.actor.ring_len)
    slots = self.actor.share.slots(rows)
    self.rows, self._requests = rows, {slot: self._requests[old] for slot, old in zip(slots, self.taken, strict=False)}

  def _columns(self, requests: Sequence[Request], by_row: Callable) -> tuple:
    """(next_positions_B, live_B, episodes_B, turns_B, lengths_B) of requests."""
    return (by_row([len(request.ids) + request.first for request in requests], np.int32),
            by_row([request.live for request in requests], bool),
            by_row([request.episode for request in requests], np.uint32),
            by_row([request.turn for request in requests], np.int32),
            None if self._lengths is None else by_row(
                [self._lengths(request.episode, request.turn) for request in requests], np.int32))

  def _has_ended(self, request: Request) -> bool:
    """Whether a response has ended. Of the longest length, it has stopped only if its last token is a stop."""
    tokens, longest = request.sampled.tokens, self.actor.rollout.max_new_tokens
    if len(tokens) < longest:
      return request.sampled.stopped
    request.sampled.stopped = bool(np.isin(tokens[-1], self.actor.tokenizer.stops) if self._lengths is None else
                                   self._lengths(request.episode, request.turn) <= longest)
    return True

  def _charge(self, count: float, rows: int, steps: int, columns: int, live: int) -> None:
    """Adds the Cost of `steps` tokens of so many rows and columns. count: its FLOPs. live: tokens of responses."""
    read = steps * flops.decode_bytes(self.actor.decoder.config, self._params, rows, columns)
    self._costs.append(Cost(count, read, live, rows * steps))
