"""What a model reads: tokens, where they stand, and which of them belong together.

Masks are never passed: every row carries positions and segments (0 = padding), and one function derives who may attend
to whom. Left padding, right padding and packing are three ways to lay ragged rows into one array.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from flax import struct


@struct.dataclass
class Inputs:
  tokens_BT: np.ndarray  # int32
  positions_BT: np.ndarray  # int32, from 0 within a segment
  segments_BT: np.ndarray  # int32, 0 = padding; tokens see only their own segment


def _empty(rows: int, length: int) -> Inputs:
  return Inputs(*(np.zeros((rows, length), np.int32) for _ in range(3)))


def _refuse_long(lengths: Sequence[int], length: int) -> None:
  if lengths and max(lengths) > length:
    raise ValueError(f"A row of {max(lengths)} tokens does not fit into {length}: raise the length or drop the row.")


def left_pad(rows: Sequence[Sequence[int]], length: int, count: int = 0) -> Inputs:
  """Ends of rows aligned, so that decoding writes at one shared index. `count` rows, missing ones all padding."""
  _refuse_long([len(row) for row in rows], length)
  inputs = _empty(max(count, len(rows)), length)
  for index, row in enumerate(rows):
    start = length - len(row)
    inputs.tokens_BT[index, start:] = row
    inputs.positions_BT[index, start:] = np.arange(len(row))
    inputs.segments_BT[index, start:] = 1
  return inputs


def right_pad(rows: Sequence[Sequence[int]], length: int, count: int = 0) -> Inputs:
  """Starts of rows aligned: training rows that are not packed."""
  _refuse_long([len(row) for row in rows], length)
  inputs = _empty(max(count, len(rows)), length)
  for index, row in enumerate(rows):
    inputs.tokens_BT[index, : len(row)] = row
    inputs.positions_BT[index, : len(row)] = np.arange(len(row))
    inputs.segments_BT[index, : len(row)] = 1
  return inputs


class Slot(NamedTuple):
  """Where one sequence of a packed batch went."""

  row: int
  start: int
  segment: int


def first_fit(size: int, used: list[int], segments: list[int], length: int) -> Slot | None:
  """Room for one sequence of `size` in the first row that has it, entered into `used` and `segments`; None if none has.

  Sequences are placed in the order of their stream, not sorted: which of them share a batch depends on it alone.
  """
  for row, taken in enumerate(used):
    if taken + size <= length:
      used[row] += size
      segments[row] += 1
      return Slot(row, taken, segments[row])
  return None


def pack(sequences: Sequence[Sequence[int]], slots: Sequence[Slot], rows: int, length: int) -> Inputs:
  """Several sequences a row, each its own segment with positions from 0."""
  inputs = _empty(rows, length)
  for sequence, slot in zip(sequences, slots, strict=True):
    span = slice(slot.start, slot.start + len(sequence))
    inputs.tokens_BT[slot.row, span] = sequence
    inputs.positions_BT[slot.row, span] = np.arange(len(sequence))
    inputs.segments_BT[slot.row, span] = slot.segment
  return inputs
