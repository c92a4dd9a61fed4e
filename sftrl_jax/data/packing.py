"""A corpus as an endless stream of packed batches. All that a resume needs is how many examples were read.

Every pass goes over the examples in its own order, a function of (seed, pass). They are laid into rows by best fit
among a few open ones; a row is closed when more would be open, so neighbours in the order stay near one another, and
rows are filled almost whole. A batch is the next rows, over the end of a pass too, so no example is left out or read
twice.
"""

import functools
import sys
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator

import numpy as np

from sftrl_jax.data.report import Packed
from sftrl_jax.data.rows import Corpus, RowsConfig
from sftrl_jax.objectives.batches import PairBatch, TokenBatch

OPEN = 64        # rows that examples may still go into
HELD_OUT = 2**31   # the stream by which examples are held out: the same for every seed, so that runs can be compared


def packed(sizes: np.ndarray, order: np.ndarray, length: int, together: bool = True, most: int = sys.maxsize,
           pictured: tuple[np.ndarray, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
  """(examples row by row, how many there are up to the end of each row). together: several examples may share a row;
  most: of them in a row; pictured: (pictures of each example, most of a row)."""
  if not together:
    return order, np.arange(1, len(order) + 1)
  free: list[tuple[int, int]] = []   # (free places, number) of open rows, the fullest first
  members: list[list[int]] = []
  closed: list[int] = []
  shown: list[int] = []   # pictures of each row
  pictures, most_pictures = pictured or (np.zeros(1, np.int64), 0)
  for example, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
    place, own = bisect_left(free, (size, -1)), int(pictures[example]) if pictured else 0   # the fullest row with room
    while own and place < len(free) and shown[free[place][1]] + own > most_pictures:
      place += 1
    if place < len(free):
      room, row = free.pop(place)
    else:
      room, row = length, len(members)
      members.append([])
      shown.append(0)
    members[row].append(example)
    shown[row] += own
    if room > size and len(members[row]) < most:
      insort(free, (room - size, row))
    else:
      closed.append(row)
    if len(free) > OPEN:
      closed.append(free.pop(0)[1])
  closed += sorted(row for _, row in free)
  ends = np.cumsum([len(members[row]) for row in closed])
  return np.array([example for row in closed for example in members[row]], np.int64), ends


def split(corpus: Corpus, share: float) -> tuple[np.ndarray, np.ndarray]:
  """(examples that are trained on, examples held out), at random but the same for every seed."""
  held = round(corpus.count * share)
  if share and not 0 < held < corpus.count:
    raise ValueError(f"config.data.validation is {share:g}, which is {held} of {corpus.count} examples: hold out at "
                     "least one, and leave one to train on.")
  source = np.random.default_rng(HELD_OUT)
  order = source.permutation(corpus.count)
  return np.sort(order[held:]), np.sort(order[:held])


def make_batches(corpus: Corpus, rows: RowsConfig, examples: np.ndarray, seed: int, batch: int,
                 mine: Collection[int] | None = None) -> Callable[[int], tuple[TokenBatch | PairBatch, int]]:
  """next_batch(cursor) -> (batch, cursor): the next `batch` rows after so many examples were read.

  mine: the rows that are wanted here, the others being another process's; they stay blank. None: all.
  """
  pass_ = make_pass(corpus, rows, examples, seed)

  def next_batch(cursor: int) -> tuple[TokenBatch | PairBatch, int]:
    picked = []
    while len(picked) < batch:
      number, done = divmod(cursor, len(examples))
      members, ends = pass_(number)
      end = ends[np.searchsorted(ends, done, side="right")]
      picked.append(members[done:end])
      cursor += int(end) - done
    if mine is not None:
      picked = [span if row in mine else span[:0] for row, span in enumerate(picked)]
    return corpus.laid(picked, batch, rows.length), cursor

  return next_batch


def make_pass(corpus: Corpus, rows: RowsConfig, examples: np.ndarray,
              seed: int) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
  """pass number -> what `packed` returns for that pass over the examples; the last two passes are kept."""
  sizes = corpus.sizes

  @functools.lru_cache(maxsize=2)
  def packed_pass(number: int) -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng((seed, number))
    return packed(sizes, source.permutation(examples) if rows.shuffle else examples, rows.length, rows.pack,
                  corpus.most, corpus.pictured)

  return packed_pass


def held_batches(corpus: Corpus, rows: RowsConfig, examples: np.ndarray, batch: int
                 ) -> Iterator[TokenBatch | PairBatch]:
  """Every held-out example once, in batches of one shape; the rows that the last one lacks are padding."""
  members, ends = packed(corpus.sizes, examples, rows.length, rows.pack, corpus.most, corpus.pictured)
  spans = np.split(members, ends[:-1])
  for first in range(0, len(spans), batch):
    yield corpus.laid(spans[first : first + batch], batch, rows.length)


def account(corpus: Corpus, rows: RowsConfig, examples: np.ndarray, seed: int, batch: int) -> Packed:
  """How the first pass fills its rows."""
  _, ends = make_pass(corpus, rows, examples, seed)(0)
  filled = int(corpus.sizes[examples].sum()) / (len(ends) * rows.length)
  held = np.setdiff1d(np.arange(corpus.count), examples)
  overlap = np.isin(corpus.digests[held], corpus.digests[examples]).sum()
  return Packed(len(ends), filled, len(ends) / batch, len(held), int(overlap))
