"""What is compiled of a rollout: by which functions, and in which shapes, all of which are known beforehand.

Turn u reads at most `read_len(u)` tokens a row. The batch has one of a few sizes, so that conversations which have
ended stop costing. The cache has one of a few lengths: that of a whole turn or, where a turn is sampled in segments,
lengths that double in response tokens. `shapes` and `moves` list the programs; rollout/segments.py calls them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from sftrl_jax.envs.env import Rewriting
from sftrl_jax.models import Model, flops, kernels
from sftrl_jax.models.cache import Cache, empty, grow, put, take
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import by_rows, replicated, rows as row_parts
from sftrl_jax.rollout import placement
from sftrl_jax.rollout.config import RolloutConfig
from sftrl_jax.rollout.sample import ResponseEnd, SampledTokens, Sampling, SegmentInputs, TurnInputs, go_on, respond
from sftrl_jax.text.pretrained import Pretrained
from sftrl_jax.text.render import refuse_reuse
from sftrl_jax.text.tokenizer import Tokenizer

SMALLEST = 1 / 8   # of rollout.rows: fewer rows cost hardly less


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of a turn on all devices together. bytes: reads of weights and cache while it samples."""

  flops: float
  bytes: float


class Compiled(NamedTuple):
  """The compiled functions of a rollout. `turn` and `segment` take over the cache they are given; those that move rows
  are called with a cache of one layer.

  turn: (params, cache or None, TurnInputs, cache_len, group) -> (cache, SampledTokens): a response a row; in segments
    its first token, so that reading, which differs by turn and group, has no copy of the loop
  segment: (params, cache, SegmentInputs) -> (cache, SampledTokens): up to a segment of tokens more
  regroup: (cache, rows_B or None, cache_len) -> the cache of these rows, or of all, with room for cache_len tokens
  put_back: (cache, rows_B, newer cache) -> the cache with these rows as they are in the newer one
  to_decoding: training parameters of `model` -> decoding parameters, with the shardings of decoding
  """

  turn: Callable
  segment: Callable
  regroup: Callable
  put_back: Callable
  to_decoding: Callable


class Shape(NamedTuple):
  """One compiled program that samples.

  turn: 0, or 1 for all later ones
  group: rows that share a prompt
  begins: whether it reads a prompt or a message; else it goes on with a response
  """

  turn: int
  rows: int
  group: int
  cache_len: int
  begins: bool = True


class Move(NamedTuple):
  """One compiled program that moves the rows of a layer's cache.

  takes: whether rows are chosen, or all of them stay
  back: whether the first `rows` rows are put back into a cache of to_rows, where they came from
  """

  rows: int
  cache_len: int
  to_rows: int
  to_len: int
  takes: bool = True
  back: bool = False


@dataclasses.dataclass(frozen=True)
class Actor:
  """The compiled half of a policy; parameters come with each call. Hashable, so one compilation serves a whole run.

  turns: most turns of an episode
  group: conversations of training that begin with one prompt; it divides rollout.rows
  rewriting: bounds of an environment whose episodes have several chats; None where a chat only grows
  ungrouped: whether conversations begin without a group too, as those of evaluations do
  """

  model: Model
  tokenizer: Tokenizer | Pretrained
  rollout: RolloutConfig
  sampling: Sampling
  turns: int
  mesh: Mesh
  group: int = 1
  rewriting: Rewriting | None = None
  ungrouped: bool = True

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
    """Row counts that are compiled, largest first; multiples of the number of parts that the mesh splits rows into. In
    segments each is half of the one before, from the smallest of `shrink` on: every size costs several programs."""
    parts = row_parts(self.mesh)
    shares, rows = list(self.rollout.shrink), self.rollout.rows
    if self.in_segments and shares:
      shares = [min(shares) / 2**i for i in range(8) if not i or min(shares) / 2**i >= SMALLEST]
    smaller = {max(parts, -(-int(rows * share) // parts) * parts) for share in shares}
    return tuple(sorted({self.rollout.rows, *smaller}, reverse=True))

  @property
  def in_segments(self) -> bool:
    """Whether a response is sampled in several segments."""
    return 0 < self.rollout.segment < self.rollout.max_new_tokens

  @property
  def segment(self) -> int:
    """Most tokens of a response that are sampled at once."""
    return self.rollout.segment if self.in_segments else self.rollout.max_new_tokens

  @property
  def ends(self) -> tuple[int, ...]:
    """Tokens of the longest response after its beginning, and after every segment."""
    longest = self.rollout.max_new_tokens
    return tuple(sorted({1, *range(self.segment, longest, self.segment), longest})) if self.in_segments else (longest,)

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

  def begins_empty(self, turn: int) -> bool:
    """Whether nothing is in the cache when a turn begins."""
    return turn == 0 or not self.carries

  def cache_len(self, turn: int) -> int:
    """Most tokens of the cache in a turn: the need of the first turn, and from the second on that of the last one, so
    that all turns but the first share their programs."""
    write = self.rollout.max_new_tokens - 1  # the last sampled token is not written
    turns = [turn] if turn == 0 or not self.carries else range(self.turns)
    return self.model.columns(sum(self.read_len(u) + write for u in turns))

  def cache_lens(self, turn: int) -> tuple[int, ...]:
    """Lengths of the cache in a turn, ascending: of the whole turn, or for response tokens that double from one segment
    on. Where the cache is carried, all turns have the same ones: those of the first turn, and that of all of them."""
    if not self.in_segments:
      return (self.cache_len(turn),)
    first = 0 if self.carries else turn
    lens, start, tokens = [], self.read_len(first) - 1, self.segment
    while start + tokens < self.cache_len(first):
      lens.append(self.model.columns(start + tokens))
      tokens *= 2
    return tuple(sorted({*lens, self.cache_len(first), self.cache_len(1 if self.carries else turn)}))

  def cache_len_for(self, turn: int, columns: int) -> int:
    """The shortest compiled length of the cache in a turn with room for so many columns; ValueError beyond them all."""
    lens = self.cache_lens(turn)
    if columns > lens[-1]:
      raise ValueError(f"Turn {turn + 1} needs {columns} columns of a cache of {lens[-1]}, which has room for "
                       f"{self.turns} turns: the environment has more `attempts` than the policy was made for.")
    return next(length for length in lens if length >= columns)

  def row_len(self, bootstrap: bool = False) -> int:
    """Columns of a row that holds any chat: prompt, responses, an <eos> and a message between. The last id is only a
    target and has no column.

    bootstrap: whether the verifier's last message of a truncated episode is read too
    """
    rollout, between = self.rollout, 1 + self.rollout.feedback_tokens
    length = rollout.prompt_tokens + self.row_turns * rollout.max_new_tokens + (self.row_turns - 1) * between - 1
    return length + (between + 1) * bootstrap

  def shapes(self) -> list[Shape]:
    """Every compiled program that samples. The first turn begins with all rows, and so does its first segment; later
    ones may have any size."""
    groups = sorted({self.group, *([1] if self.ungrouped else [])})
    shapes = [Shape(0, self.rollout.rows, group, self.cache_lens(0)[0]) for group in groups]
    turns = [0, 1] if self.turns > 1 else [0]
    if self.turns > 1:
      read = self.read_len(1) + self.segment - 1 + (self.read_len(0) if self.carries else 0)
      lens = [length for length in self.cache_lens(1) if length >= min(read, self.cache_len(1))]
      shapes += [Shape(1, size, 1, length) for length in (lens if self.carries else lens[:1]) for size in self.sizes]
    if self.in_segments:
      sizes = {(length, size): turn for turn in reversed(turns) for length in self.cache_lens(turn)
               for size in (self.sizes if self._any_rows(turn, length) else self.sizes[:1])}
      shapes += [Shape(turn, size, 1, length, False) for (length, size), turn in sizes.items()]
    return shapes

  def _any_rows(self, turn: int, length: int) -> bool:
    """Whether a cache of that length may have fewer than all rows: not until the first turn's first segment ends."""
    return length > self.cache_lens(0)[0] or (turn > 0 and not self.carries)

  def moves(self) -> list[Move]:
    """Every compiled program that moves rows: between turns, and between the segments of a turn."""
    several = self.carries and self.turns > 1
    if not self.in_segments:
      first, later = (self.cache_lens(turn)[0] for turn in (0, 1))
      moves = [Move(self.rollout.rows, first, size, later) for size in self.sizes] if several else []
      pairs = [(rows, size) for rows in self.sizes for size in self.sizes if rows >= size] if self.turns > 2 else []
      return moves + [Move(rows, later, size, later) for rows, size in pairs if several]
    pairs = [(rows, size) for rows in self.sizes for size in self.sizes if rows > size]
    moves = []
    for turn in range(min(self.turns, 2)):
      lens = self.cache_lens(turn)
      moves += [Move(rows, length, size, length) for length in lens for rows, size in pairs
                if rows == self.rollout.rows or self._any_rows(turn, length)]
      moves += [Move(rows, *(lens[i], rows, lens[i + 1]), False) for i in range(len(lens) - 1) for rows in self.sizes]
      moves += [Move(size, length, rows, length, back=True) for length in lens[1:] for rows, size in pairs if several]
    return [*dict.fromkeys(moves)]

  @functools.cached_property
  def decoder(self) -> Model:
    """The model as it decodes."""
    config = self.model.config
    return dataclasses.replace(self.model, config=dataclasses.replace(config, dtype=self.rollout.dtype or config.dtype))

  @functools.cached_property
  def compiled(self) -> Compiled:
    """The compiled functions of a rollout."""
    end = ResponseEnd(self.tokenizer.stops, self.tokenizer.pad)
    return _compiled(self.decoder, self.sampling, self.segment, end, self.mesh, self.rollout.gather)

  def flops(self, turn: int, rows: int, steps: int, group: int = 1, cache_len: int = 0) -> float:
    """FLOPs of a turn, or of its beginning: every row of the compiled shape, alive or not, at every step taken; a
    shared prompt once. cache_len: columns that a sampled token attends over (0: of the whole turn)."""
    cache_len, config = cache_len or self.cache_len(turn), self.model.config
    read, decode = self.read_len(turn) * rows // group, (steps - 1) * rows
    if not (self.begins_empty(turn) and kernels.reads_itself(self.read_len(turn), cache_len)):
      return flops.forward(config, read + decode, cache_len, unembedded=rows * steps)
    return (flops.forward(config, read, self.read_len(turn), unembedded=0)
            + flops.forward(config, decode, cache_len, unembedded=rows * steps))

  def segment_flops(self, rows: int, steps: int, cache_len: int) -> float:
    """FLOPs of a segment of a turn, after its beginning."""
    return flops.forward(self.model.config, rows * steps, cache_len)

  def blank_cache(self, rows: int, cache_len: int, layers: int = 0) -> Cache:
    """An empty cache of that shape, abstract, with the shardings of decoding. layers: 0 for those of the model."""
    config = self.decoder.config
    config = dataclasses.replace(config, layers=layers) if layers else config
    split = placement.cache_shardings(config, self.mesh)
    abstract = lambda sharding: lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    shapes = jax.eval_shape(lambda: empty(config, rows, cache_len))
    return Cache(*(jax.tree.map(abstract(getattr(split, field.name)), getattr(shapes, field.name))
                   for field in dataclasses.fields(Cache)))


@functools.cache   # so that actors of one model share their traces
def _compiled(decoder: Model, sampling: Sampling, tokens: int, end: ResponseEnd, mesh: Mesh, gather: bool
              ) -> Compiled:
  begins = sampling if tokens == sampling.max_new_tokens else dataclasses.replace(sampling, max_new_tokens=1)
  goes_on = dataclasses.replace(sampling, max_new_tokens=tokens)
  split, rows, whole = placement.cache_shardings(decoder.config, mesh), by_rows(mesh), replicated(mesh)
  sampled = SampledTokens(rows, rows, rows, rows, whole)  # so that each process can read those of its own rows
  traced = functools.partial(placement.with_decoding_rules, gather=gather)

  @functools.partial(jax.jit, static_argnames=("cache_len", "group"), donate_argnames="cache",
                     out_shardings=(split, sampled))
  @traced
  def turn(params: dict, cache: Cache | None, turn_inputs: TurnInputs, cache_len: int = 0, group: int = 1
           ) -> tuple[Cache, SampledTokens]:
    blank = cache is None
    if blank:
      cache = empty(decoder.config, turn_inputs.inputs.tokens_BT.shape[0], cache_len)
    return respond(decoder, begins, end, params, cache, turn_inputs, group, blank)

  @functools.partial(jax.jit, donate_argnames="cache", out_shardings=(split, sampled))
  @traced
  def segment(params: dict, cache: Cache, segment_inputs: SegmentInputs) -> tuple[Cache, SampledTokens]:
    return go_on(decoder, goes_on, end, params, cache, segment_inputs)

  @functools.partial(jax.jit, static_argnames=("cache_len",), out_shardings=split)
  @traced
  def regroup(cache: Cache, rows_B: jax.Array | None, cache_len: int) -> Cache:
    return grow(cache if rows_B is None else take(cache, rows_B), cache_len)

  @functools.partial(jax.jit, out_shardings=split)
  @traced
  def put_back(cache: Cache, rows_B: jax.Array, newer: Cache) -> Cache:
    return put(cache, rows_B, newer)

  return Compiled(turn, segment, regroup, put_back, placement.to_decoding_fn(decoder, mesh, gather))
