"""Pairs as packed batches: both sides of a pair lie in one row, each a segment of its own."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sftrl_jax.data.pairs.rows import PAIR_A_ROW, PairsConfig
from sftrl_jax.data.report import Report
from sftrl_jax.data.rows import Corpus, load
from sftrl_jax.inputs import Inputs, Slot, pack
from sftrl_jax.objectives.batches import PairBatch
from sftrl_jax.text.images import ImageReader, with_pictures

MOST = 32   # pairs of a packed row at most: the objective sums columns by side, for each of so many


@dataclasses.dataclass(frozen=True, eq=False)
class PairCorpus:
  """Pairs, as data/packing.py lays them: pair i has the examples 2i, the preferred one, and 2i + 1 of `examples`.

  most: pairs of a packed row
  ref_logprobs_N2: log-probabilities of the sides' responses by the start, once they are known
  """

  examples: Corpus
  most: int
  ref_logprobs_N2: np.ndarray | None = None

  @property
  def count(self) -> int:
    return self.examples.count // 2

  @property
  def sizes(self) -> np.ndarray:
    """Places that each pair takes in a row. The last token of a side has one too: a reward is read there."""
    return np.diff(self.examples.offsets).reshape(-1, 2).sum(axis=1)

  @property
  def digests(self) -> np.ndarray:
    return self.examples.digests

  @property
  def pictured(self) -> tuple[np.ndarray, int] | None:
    """(pictures of both sides of each pair, most of a packed row); None for a model of text."""
    pictured = self.examples.pictured
    return None if pictured is None else (pictured[0].reshape(-1, 2).sum(axis=1), pictured[1])

  @property
  def report(self) -> Report:
    return self.examples.report

  def example(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, learned) of the preferred side of a pair."""
    return self.examples.example(2 * index)

  def laid(self, spans: Sequence[np.ndarray], rows: int, length: int) -> PairBatch:
    """A batch whose row r holds the pairs spans[r]."""
    sequences, slots, sides = [], [], []
    arrays = {"targets": np.int32, "weights": np.float32, "last": np.float32}
    targets_BT, weights_BT, last_BT = (np.zeros((rows, length), kind) for kind in arrays.values())
    sides_BT = np.full((rows, length), -1, np.int32)
    live_BP, margins_BP = (np.zeros((rows, self.most), np.float32) for _ in range(2))
    ref_BS = None if self.ref_logprobs_N2 is None else np.zeros((rows, 2 * self.most), np.float32)
    for row, span in enumerate(spans):
      start = 0
      sides.append([side for index in span.tolist() for side in (2 * index, 2 * index + 1)])
      for pair, index in enumerate(span.tolist()):
        live_BP[row, pair], margins_BP[row, pair] = 1.0, self.examples.margins[index]
        if ref_BS is not None:
          ref_BS[row, 2 * pair : 2 * pair + 2] = self.ref_logprobs_N2[index]
        for side in (2 * pair, 2 * pair + 1):
          ids, learned = self.examples.example(2 * index + side % 2)
          size = len(ids)
          sequences.append(ids)
          slots.append(Slot(row, start, side + 1))
          targets_BT[row, start : start + size - 1] = ids[1:]
          weights_BT[row, start : start + size - 1] = learned[1:]
          sides_BT[row, start : start + size] = side
          last_BT[row, start + size - 1] = 1.0
          start += size
    inputs = self.examples.with_pictures(pack(sequences, slots, rows, length), sides)
    return PairBatch(inputs, targets_BT, weights_BT, sides_BT, last_BT, live_BP, margins_BP, ref_BS)


def blank(rows: int, length: int, most: int, reference: bool, reader: ImageReader | None = None) -> PairBatch:
  """A batch of that shape without a pair. reference: whether it has log-probabilities of the start; reader: of a model
  that reads pictures."""
  columns = lambda kind: np.zeros((rows, length), kind)
  pairs = lambda count: np.zeros((rows, count * most), np.float32)
  inputs = with_pictures(reader, Inputs(*(columns(np.int32) for _ in range(3))), ())
  return PairBatch(inputs, columns(np.int32), columns(np.float32),
                   columns(np.int32) - 1, columns(np.float32), pairs(1), pairs(1), pairs(2) if reference else None)


def load_pairs(config: PairsConfig, tokenizer: Any) -> PairCorpus:
  """All pairs of config.path as ids; ValueError as from data.rows.load."""
  corpus = PairCorpus(load(config, tokenizer, PAIR_A_ROW), 1)
  most = min(MOST, config.length // int(corpus.sizes.min())) if config.pack else 1
  return dataclasses.replace(corpus, most=max(1, most))
