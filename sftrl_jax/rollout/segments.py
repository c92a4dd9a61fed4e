"""One turn on the compiled shapes of an actor: a whole response a row, or a first token, then segments of tokens.

Between two segments the host reads which responses have ended. The rows that go on move to the smallest compiled number
of rows, and the cache grows to the next compiled length. Where the cache is carried over turns, the rows that have left
are put back when the turn ends.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from sftrl_jax.inputs import Inputs
from sftrl_jax.models import flops
from sftrl_jax.models.cache import Cache, layers_of, of_layers
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.rollout.actor import Actor, Cost, Shape
from sftrl_jax.rollout.sample import SampledTokens, SegmentInputs, TurnInputs


@dataclasses.dataclass(frozen=True)
class TurnBatch:
  """The conversations of this process in one turn. Sequences have an entry a conversation.

  rows, group: of the compiled shape
  columns: of the cache that are written before the turn
  slots: rows of the conversations
  inputs: what is read, of all rows; conversations of a group share a row
  next_positions: of the first sampled token in its chat
  lengths: where responses end in place of stop tokens, to measure with; or None
  """

  turn: int
  rows: int
  group: int
  columns: int
  slots: Sequence[int]
  inputs: Inputs
  next_positions: Sequence[int]
  live: Sequence[bool]
  episodes: Sequence[int]
  key: jax.Array
  temperature: float
  lengths: Sequence[int] | None = None


@dataclasses.dataclass
class SampledResponse:
  """One response as sampled, over all segments so far."""

  tokens: list[int] = dataclasses.field(default_factory=list)
  logprobs: list[float] = dataclasses.field(default_factory=list)
  stopped: bool = False


@dataclasses.dataclass
class _Progress:
  """Where a turn stands between two segments.

  rows, cache_len: of the cache; columns: of it that are written
  going_on, slots: the conversations of this process that go on, and their rows
  left: (cache, its length, rows_B) of each time that rows left: the cache before, and where its rows went from
  """

  cache: Cache
  rows: int
  cache_len: int
  columns: int
  going_on: list[int]
  slots: list[int]
  cost: Cost
  left: list[tuple[Cache, int, np.ndarray]] = dataclasses.field(default_factory=list)


def sample_turn(actor: Actor, params: dict, cache: Cache | None, batch: TurnBatch,
                ended: Callable[[list[int], list[SampledResponse]], None] = lambda rows, responses: None
                ) -> tuple[Cache | None, int, list[SampledResponse], Cost]:
  """(cache with the turn in it, or None where none is carried; its written columns; the responses; the cost).

  cache: with room for what is read and the first segment, or None if the turn begins with nothing; it is taken over.
  ended: is called with the conversations whose responses have ended in a segment, before the others go on
  """
  responses = [SampledResponse(stopped=not live) for live in batch.live]
  progress = _begin(actor, params, cache, batch, responses)
  for first, end in zip(actor.ends, actor.ends[1:], strict=False):
    pairs = [(row, slot) for row, slot in zip(progress.going_on, progress.slots, strict=True)
             if not responses[row].stopped]
    rows = [row for row in progress.going_on if responses[row].stopped]
    progress.going_on, progress.slots = [row for row, _ in pairs], [slot for _, slot in pairs]
    slots_of_processes = hosts.gathered(progress.slots)
    if not any(slots_of_processes):
      break
    if rows:
      ended(rows, [responses[row] for row in rows])
    if first >= actor.segment:   # few end before
      _leave(actor, progress, slots_of_processes)
    _go_on(actor, params, progress, batch, responses, range(first, end))
  return _whole_cache(actor, batch.turn, progress), progress.columns, responses, progress.cost


def _begin(actor: Actor, params: dict, cache: Cache | None, batch: TurnBatch, responses: list[SampledResponse]
           ) -> _Progress:
  """After what is read, and the first token of every response or, where there are no segments, all of them."""
  rows, slots, read = batch.rows, batch.slots, actor.read_len(batch.turn)
  cache_len = actor.cache_len_for(batch.turn, batch.columns + read + actor.segment - 1)
  inputs = TurnInputs(
      batch.inputs, to_rows(rows, slots, batch.next_positions, np.int32), to_rows(rows, slots, batch.live, bool),
      to_rows(rows, slots, batch.episodes, np.uint32), batch.key, np.int32(batch.turn), np.float32(batch.temperature),
      None if batch.lengths is None else to_rows(rows, slots, batch.lengths, np.int32))
  cache, sampled = actor.compiled.turn(params, cache, on_mesh(actor.mesh, inputs), cache_len=cache_len,
                                       group=batch.group)
  going_on = [row for row, live in enumerate(batch.live) if live]
  slots = [slots[row] for row in going_on]
  steps, live = append(sampled, responses, going_on, slots)
  cost = Cost(actor.flops(batch.turn, rows, steps, batch.group, cache_len),
              steps * flops.decode_bytes(actor.decoder.config, params, rows, cache_len), live, rows * steps)
  return _Progress(cache, rows, cache_len, batch.columns + read + steps - 1, going_on, slots, cost)


def _leave(actor: Actor, progress: _Progress, slots_of_processes: Sequence[Sequence[int]]) -> None:
  """Moves the rows that go on to the smallest compiled number of rows, if it is smaller."""
  size, keep = smallest_size(actor, slots_of_processes), actor.carries and actor.turns > 1
  if size >= progress.rows:
    return
  rows_B, before = taken_rows(actor, size, slots_of_processes), progress.cache
  progress.cache = regrouped(actor, before, np.maximum(rows_B, 0), progress.cache_len, keep)
  if keep:   # a blank row is put back nowhere
    progress.left.append((before, progress.cache_len, np.where(rows_B < 0, progress.rows, rows_B)))
  progress.rows, progress.slots = size, actor.share.slots(size)[: len(progress.slots)]


def _go_on(actor: Actor, params: dict, progress: _Progress, batch: TurnBatch, responses: list[SampledResponse],
           tokens: range) -> None:
  """One more segment. tokens: the numbers of its tokens in the responses."""
  first, most = tokens.start, len(tokens)
  cache_len = actor.cache_len_for(batch.turn, progress.columns + most)
  cache = grown(actor, batch.turn, progress.cache, progress.cache_len, cache_len)
  rows, slots, going_on = progress.rows, progress.slots, progress.going_on
  by_row = lambda values, kind: to_rows(rows, slots, [values[row] for row in going_on], kind)
  inputs = SegmentInputs(
      to_rows(rows, slots, [responses[row].tokens[-1] for row in going_on], np.int32),
      by_row([position + first for position in batch.next_positions], np.int32), by_row(batch.live, bool),
      by_row(batch.episodes, np.uint32), batch.key, np.int32(batch.turn), np.float32(batch.temperature),
      np.int32(first), np.int32(most), None if batch.lengths is None else by_row(batch.lengths, np.int32))
  progress.cache, sampled = actor.compiled.segment(params, cache, on_mesh(actor.mesh, inputs))
  steps, live = append(sampled, responses, going_on, slots)
  progress.cache_len, progress.columns = cache_len, progress.columns + steps
  progress.cost += Cost(actor.segment_flops(rows, steps, cache_len),
                        steps * flops.decode_bytes(actor.decoder.config, params, rows, cache_len), live, rows * steps)


def _whole_cache(actor: Actor, turn: int, progress: _Progress) -> Cache | None:
  """The cache at the end of a turn, with all rows of its beginning in their places; None where none is carried."""
  if not actor.carries:
    return None
  cache = progress.cache
  for before, cache_len, rows_B in reversed(progress.left):
    before = grown(actor, turn, before, cache_len, progress.cache_len)
    cache = _layer_by_layer(lambda old, new, rows_B=rows_B: actor.compiled.put_back(old, rows_B, new), before, cache)
  return cache


def append(sampled: SampledTokens, responses: Sequence[SampledResponse], going_on: Sequence[int], slots: Sequence[int]
           ) -> tuple[int, int]:
  """Adds the tokens of a segment to the responses that go on. (Tokens computed for every row, tokens of the responses
  in all rows.)"""
  tokens_BR, logprobs_BR, lengths_B, stopped_B, steps, count = hosts.own_rows(
      (sampled.tokens_BR, sampled.logprobs_BR, sampled.lengths_B, sampled.stopped_B, sampled.steps, sampled.count))
  for row, slot in zip(going_on, slots, strict=True):
    length, response = lengths_B[slot], responses[row]
    response.tokens += tokens_BR[slot, :length].tolist()
    response.logprobs += logprobs_BR[slot, :length].tolist()
    response.stopped = bool(stopped_B[slot])
  return int(steps), int(count)


def to_rows(rows: int, slots: Sequence[int], values: Sequence, kind) -> np.ndarray:
  """The values at their rows, and zeros in all others. Unsigned ones are cut to their kind."""
  array_B = np.zeros(rows, kind)
  array_B[list(slots)] = [value & 0xFFFFFFFF for value in values] if kind is np.uint32 else values
  return array_B


def smallest_size(actor: Actor, slots_of_processes: Sequence[Sequence[int]]) -> int:
  """The smallest compiled size in which every process has room for its conversations that go on."""
  return next(size for size in reversed(actor.sizes) if all(
      len(slots) <= len(actor.share.slots(size, process)) for process, slots in enumerate(slots_of_processes)))


def taken_rows(actor: Actor, size: int, slots_of_processes: Sequence[Sequence[int]]) -> np.ndarray:
  """rows_B: for each of `size` rows the row that it is taken from, -1 for a blank one. Each process keeps its own."""
  rows_B = np.full(size, -1, np.int32)
  for process, slots in enumerate(slots_of_processes):
    rows_B[actor.share.slots(size, process)[: len(slots)]] = slots
  return rows_B


def regrouped(actor: Actor, cache: Cache, rows_B: np.ndarray | None, cache_len: int, keep: bool = False) -> Cache:
  """The cache of these rows, or of all, with room for cache_len tokens. keep: the cache that is given stays."""
  return _layer_by_layer(lambda layer: actor.compiled.regroup(layer, rows_B, cache_len=cache_len), cache, keep=keep)


def between_turns(actor: Actor, turn: int, cache: Cache, rows: int, columns: int,
                  slots_of_processes: Sequence[Sequence[int]]) -> Cache:
  """The cache with which a later turn begins, of `rows` rows: those of the conversations that go on, each process's
  first. In segments, rows stay in their places unless their number changes. columns: of the cache that are written."""
  before, cache_len = cache.positions_BS.shape
  rows_B = np.maximum(taken_rows(actor, rows, slots_of_processes), 0)
  if not actor.in_segments:
    return regrouped(actor, cache, rows_B, actor.cache_len(turn))
  cache = regrouped(actor, cache, rows_B, cache_len) if rows < before else cache
  longer = actor.cache_len_for(turn, columns + actor.read_len(turn) + actor.segment - 1)
  return grown(actor, turn, cache, cache_len, longer)


def grown(actor: Actor, turn: int, cache: Cache, cache_len: int, longer: int) -> Cache:
  """The cache with room for `longer` tokens, over all compiled lengths between; the cache that is given is gone."""
  for length in actor.cache_lens(turn):
    cache = regrouped(actor, cache, None, length) if cache_len < length <= longer else cache
  return cache


def _layer_by_layer(move: Callable[..., Cache], *caches: Cache, keep: bool = False) -> Cache:
  """move(a layer of each cache), of all layers. A layer is freed as soon as it has moved, unless the caches are kept:
  so the memory of one layer and not of a whole cache is needed beside them."""
  layers = []
  for given in zip(*map(layers_of, caches), strict=True):
    layers.append(move(*given))
    for layer in given if not keep else ():
      layer.keys_BKSC[0].delete()
      layer.values_BKSC[0].delete()
  return of_layers(layers)


def blank_inputs(actor: Actor, shape: Shape, key: jax.Array) -> TurnInputs | SegmentInputs:
  """What a program of this shape is called with besides parameters and cache: host arrays in which no row lives."""
  rows = shape.rows
  turn = np.zeros(rows, np.int32) if actor.rollout.refill else np.int32(shape.turn)
  by_row = np.zeros(rows, np.int32), np.zeros(rows, bool), np.zeros(rows, np.uint32)
  if shape.begins:
    blank = Inputs(*(np.zeros((rows // shape.group, actor.read_len(shape.turn)), np.int32) for _ in range(3)))
    blank = actor.with_pictures(blank, (), shape.turn)
    return TurnInputs(blank, *by_row, key, turn, np.float32(1.0))
  most, bounds = np.int32(actor.segment), (None, np.int32(1), np.int32(rows)) if actor.rollout.refill else ()
  first = np.zeros(rows, np.int32) if actor.rollout.refill else np.int32(0)
  return SegmentInputs(np.zeros(rows, np.int32), *by_row, key, turn, np.float32(1.0), first, most, *bounds)


def on_mesh(mesh: Mesh, inputs: TurnInputs | SegmentInputs) -> TurnInputs | SegmentInputs:
  """The same with its rows split over the mesh."""
  names = [field.name for field in dataclasses.fields(inputs)
           if any(np.ndim(leaf) for leaf in jax.tree.leaves(getattr(inputs, field.name)))]
  return inputs.replace(**dict(zip(names, shard_rows(mesh, [getattr(inputs, name) for name in names]), strict=True)))


def compile_all(actor: Actor, params: dict, after_each: Callable[[], None] = lambda: None) -> None:
  """Runs every shape of a rollout once on blank rows, so that nothing compiles later. params: decoding parameters.

  after_each: called after every program that is compiled.
  """

  def blank(rows: int, cache_len: int, layers: int = 0) -> Cache:
    zeros = lambda x: jax.make_array_from_callback(x.shape, x.sharding, lambda index: np.zeros(
        [len(range(*part.indices(size))) for part, size in zip(index, x.shape, strict=True)], x.dtype))
    return jax.tree.map(zeros, actor.blank_cache(rows, cache_len, layers))

  for shape in actor.shapes():
    inputs = on_mesh(actor.mesh, blank_inputs(actor, shape, jax.random.key(0)))
    starts_empty = shape.begins and actor.begins_empty(shape.turn)
    cache = None if starts_empty else blank(shape.rows, shape.cache_len)
    if shape.begins:
      static = dict(cache_len=shape.cache_len, group=shape.group)
      jax.block_until_ready(actor.compiled.turn(params, cache, inputs, **static))
    else:
      jax.block_until_ready(actor.compiled.segment(params, cache, inputs))
    after_each()
  for ring in actor.rings if actor.rollout.refill else ():
    jax.block_until_ready(actor.compiled.ring(ring.sizes[0], ring.cache_len))
  for move in actor.moves():
    if move.enters:
      rows_B = shard_rows(actor.mesh, np.full(move.rows, move.to_rows, np.int32))
      actor.compiled.admit(blank(move.to_rows, move.to_len), rows_B, blank(move.rows, move.cache_len))
      after_each()
      continue
    rows_B = np.zeros(move.rows if move.back else move.to_rows, np.int32)
    for which in (1, -1) if hasattr(actor.decoder.config, "picture_columns") else (1,):
      layer = blank(move.rows, move.cache_len, which)
      if move.back:
        actor.compiled.put_back(blank(move.to_rows, move.to_len, which), rows_B, layer)
      else:
        actor.compiled.regroup(layer, rows_B if move.takes else None, cache_len=move.to_len)
    after_each()
