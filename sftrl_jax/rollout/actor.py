"""What is compiled of a rollout: by which functions, and in which shapes, all of which are known beforehand.

Turn u reads at most `read_len(u)` tokens a row. The batch has one of a few sizes, so that conversations which have
ended stop costing. The cache has one of a few lengths: that of a whole turn or, where a turn is sampled in segments,
lengths that double in response tokens. Where slots are refilled, it is a ring of one length, and newcomers are read
beside it. `shapes` and `moves` list the programs; rollout/segments.py and rollout/refill/slots.py call them.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from sftrl_jax.envs.env import Rewriting
from sftrl_jax.inputs import Inputs
from sftrl_jax.models import Model, flops, kernels
from sftrl_jax.models.cache import Cache, empty, layers_of
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import rows as row_parts
from sftrl_jax.rollout.config import RolloutConfig
from sftrl_jax.rollout.decoding import placement
from sftrl_jax.rollout.decoding.compiled import Compiled, compiled
from sftrl_jax.rollout.sample import ResponseEnd, Sampling
from sftrl_jax.text.images import Pictures, with_pictures
from sftrl_jax.text.pretrained import Pretrained
from sftrl_jax.text.render import refuse_reuse
from sftrl_jax.text.tokenizer import Tokenizer

SMALLEST = 1 / 8   # of rollout.rows: fewer rows cost hardly less
NEWCOMERS = 1 / 16   # of rollout.rows, read together: half as many slots are free on average
OLD = 1 / 4   # of rollout.rows and of max_new_tokens: the slots for responses that are longer than this share


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of sampling on all devices together.

  bytes: reads of weights and cache while it samples
  live, computed: tokens of responses, and tokens computed for all rows of the compiled shape
  """

  flops: float
  bytes: float
  live: int = 0
  computed: int = 0

  def __add__(self, more: "Cost") -> "Cost":
    return Cost(*(getattr(self, field.name) + getattr(more, field.name) for field in dataclasses.fields(Cost)))


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
  enters: whether all `rows` rows, all layers at once, enter a ring of to_rows
  """

  rows: int
  cache_len: int
  to_rows: int
  to_len: int
  takes: bool = True
  back: bool = False
  enters: bool = False


class Ring(NamedTuple):
  """A cache whose slots are refilled.

  sizes: row counts that are compiled, largest first
  tokens: most tokens of a response in it
  slack: columns beside those of what is read and `tokens`: a row that is to go on in another ring may wait for so many
    steps, in each of which all rows are written, before its first column is
  """

  sizes: tuple[int, ...]
  cache_len: int
  tokens: int
  slack: int = 0


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
      if self.rollout.refill:
        raise ValueError(f"config.rollout.refill is True, but episodes have {self.turns} turns and config.rollout."
                         "carry keeps the cache between them, in rows that then are never free: use "
                         "--config.rollout.carry=False, with which a turn reads the chat again, or "
                         "--config.rollout.refill=False.")

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
    """Whether a response is sampled in several segments, or while slots are refilled."""
    return self.rollout.refill or 0 < self.rollout.segment < self.rollout.max_new_tokens

  @property
  def segment(self) -> int:
    """Most tokens of a response that are sampled at once."""
    longest = self.rollout.max_new_tokens
    return min(self.rollout.segment or longest, longest)

  @property
  def newcomers(self) -> int:
    """Conversations that are read together for free slots: a sixteenth of all or more, whole groups on every part of
    the mesh."""
    unit = row_parts(self.mesh) * self.group
    return min(self.rollout.rows, max(1, -(-int(self.rollout.rows * NEWCOMERS) // unit)) * unit)

  @functools.cached_property
  def rings(self) -> tuple[Ring, ...]:
    """Where slots are refilled: the caches in which responses begin, and in which long ones go on. Every row reads as
    many columns as the longest that may stand in its cache, and most responses are short."""
    longest, read = self.rollout.max_new_tokens, max(self.read_len(turn) for turn in range(min(self.turns, 2)))
    young = max(2, self.segment, int(longest * OLD))
    if young >= longest:
      return (Ring(self.sizes, read + longest - 1, longest),)
    parts = row_parts(self.mesh)
    rows = min(self.rollout.rows, max(self.newcomers, -(-int(self.rollout.rows * OLD) // parts) * parts))
    sizes = (rows, *(size for size in self.sizes if size < rows))
    slack = max(1, int(young * OLD))
    return (Ring(self.sizes, read + young - 1 + slack, young, slack),
            Ring(sizes, read + longest - 1 + slack, longest))   # columns of those steps move with a row

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

  def images(self, turn: int) -> int:
    """Pictures that a row reads at the start of a turn, unused places included."""
    return getattr(self.model.config, "images", 0) if self.begins_empty(turn) else self.rollout.feedback_images

  def with_pictures(self, inputs: Inputs, pictures: Sequence[Pictures], turn: int) -> Inputs:
    """What a turn reads, with the pictures of each row."""
    return with_pictures(self.tokenizer.reader, inputs, pictures, self.images(turn))

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
    if self.rollout.refill:
      begins = [(0, group) for group in groups] + [(1, 1)] * (self.turns > 1)
      return [*(Shape(turn, self.newcomers, group, self.read_len(turn)) for turn, group in begins),
              *(Shape(0, size, 1, ring.cache_len, False) for ring in self.rings for size in ring.sizes)]
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
    if self.rollout.refill:
      return self._moves_of_rings()
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

  def _moves_of_rings(self) -> list[Move]:
    """Newcomers enter the first ring, rows that have grown old leave it and enter the second, and rings shrink."""
    young, *old = self.rings
    fewer = None if self.turns > 1 else 1   # of one turn, none enters a ring once it has fewer rows
    read = sorted({self.read_len(turn) for turn in range(min(self.turns, 2))})
    enters = [(length, size, young) for length in read for size in young.sizes[:fewer]]
    enters += [(young.cache_len, size, ring) for ring in old for size in ring.sizes[:fewer]]
    takes = [(rows, size, ring.cache_len) for ring in self.rings for rows in ring.sizes for size in ring.sizes
             if rows > size]
    takes += [(size, self.newcomers, young.cache_len) for size in young.sizes if old]
    return [*(Move(self.newcomers, length, size, ring.cache_len, enters=True) for length, size, ring in enters),
            *dict.fromkeys(Move(rows, length, size, length) for rows, size, length in takes)]

  @functools.cached_property
  def decoder(self) -> Model:
    """The model as it decodes."""
    config = self.model.config
    return dataclasses.replace(self.model, config=dataclasses.replace(config, dtype=self.rollout.dtype or config.dtype))

  @functools.cached_property
  def compiled(self) -> Compiled:
    """The compiled functions of a rollout."""
    end = ResponseEnd(self.tokenizer.stops, self.tokenizer.pad)
    return compiled(self.decoder, self.sampling, self.segment, end, self.mesh, self.rollout.gather,
                    not self.in_segments)

  def flops(self, turn: int, rows: int, steps: int, group: int = 1, cache_len: int = 0) -> float:
    """FLOPs of a turn, or of its beginning: every row of the compiled shape, alive or not, at every step taken; a
    shared prompt once. cache_len: columns that a sampled token attends over (0: of the whole turn)."""
    cache_len, config = cache_len or self.cache_len(turn), self.model.config
    read, decode = self.read_len(turn) * rows // group, (steps - 1) * rows
    tower = flops.pictures(config, rows // group, images=self.images(turn))
    if not (self.begins_empty(turn) and kernels.reads_itself(self.read_len(turn), cache_len)):
      return tower + flops.forward(config, read + decode, cache_len, unembedded=rows * steps)
    return (tower + flops.forward(config, read, self.read_len(turn), unembedded=0)
            + flops.forward(config, decode, cache_len, unembedded=rows * steps))

  def segment_flops(self, rows: int, steps: int, cache_len: int) -> float:
    """FLOPs of a segment of a turn, after its beginning."""
    return flops.forward(self.model.config, rows * steps, cache_len)

  def blank_cache(self, rows: int, cache_len: int, layers: int = 0) -> Cache:
    """An empty cache of that shape, abstract, with the shardings of decoding. layers: 0 for those of the model, 1
    for the first one alone, -1 for the last one."""
    whole = lambda: empty(self.decoder.config, rows, cache_len)
    split = placement.cache_shardings(self.decoder.config, self.mesh)
    shapes = jax.eval_shape(lambda: layers_of(whole())[0 if layers == 1 else -1] if layers else whole())
    abstract = lambda sharding: lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    return jax.tree.map(lambda sharding, part: jax.tree.map(abstract(sharding), part), split, shapes)
