"""Chats to packed batches, with a cursor from which the stream goes on."""

from collections.abc import Callable, Collection, Sequence

import jax
import numpy as np

from sftrl_jax.data.demonstrations import Demonstration
from sftrl_jax.inputs import Slot, first_fit, pack
from sftrl_jax.objectives.batches import TokenBatch
from sftrl_jax.text.images import Pictures, with_pictures
from sftrl_jax.text.pretrained import Pretrained
from sftrl_jax.text.render import pictures, render, responses
from sftrl_jax.text.tokenizer import Tokenizer

Cursors = int | Sequence[int]   # examples read; of two sources a pair, and 0 before the first batch
Batches = Callable[[Cursors], tuple[TokenBatch, Cursors]]


def example(tokenizer: Tokenizer | Pretrained, shown: Demonstration) -> tuple[list[int], list[float]]:
  """(ids, weights): weight 1 on the tokens of the learned responses and the ids that close them, 0 on the rest."""
  ids, written = render(tokenizer, shown.chat)
  spans, weights = responses(tokenizer, ids, written), [0.0] * len(ids)
  for number in shown.learned:
    span = spans[number]
    weights[span] = [1.0] * (span.stop - span.start)
  return ids, weights


def next_batch(shown: Callable[[int], Demonstration], tokenizer: Tokenizer | Pretrained, rows: int, length: int,
               cursor: int, mine: Collection[int] | None = None) -> tuple[TokenBatch, int]:
  """(batch, cursor): packs shown(cursor), shown(cursor + 1), ... until the next one finds no room.

  mine: the rows that are wanted here, the others being another process's; they stay blank. None: all.
  A sequence of n ids takes n - 1 places: the last one is only ever a target. ValueError for one that fits no row.
  """
  used, segments, in_rows, most = [0] * rows, [0] * rows, [0] * rows, tokenizer.reader.images if tokenizer.reader else 0
  sequences, weights, slots, images = [], [], [], []
  while True:
    demonstrated = shown(cursor + len(sequences))
    ids, weight = example(tokenizer, demonstrated)
    own = pictures(tokenizer, demonstrated.chat)
    if len(ids) - 1 > length:
      raise ValueError(f"config.data.length is {length}, but example {cursor + len(sequences)} has {len(ids)} tokens: "
                       f"use --config.data.length={len(ids) - 1} or more.")
    if len(own) > most:
      raise ValueError(f"config.model.images is {most}, but example {cursor + len(sequences)} has {len(own)} pictures: "
                       f"use --config.model.images={len(own)} or more.")
    slot = first_fit(len(ids) - 1, used, segments, length, len(own), in_rows, most)
    if slot is None:
      break
    sequences.append(ids)
    weights.append(weight)
    slots.append(slot)
    images.append(own)
  wanted = [place for place, slot in enumerate(slots) if mine is None or slot.row in mine]
  sequences, weights, mine_slots, images = (
      [items[place] for place in wanted] for items in (sequences, weights, slots, images))
  batch = lay(sequences, weights, mine_slots, rows, length)
  inputs = with_pictures(tokenizer.reader, batch.inputs, by_row(images, mine_slots, rows))
  return batch.replace(inputs=inputs), cursor + len(slots)


def by_row(images: Sequence[Pictures], slots: Sequence[Slot], rows: int) -> list[Pictures]:
  """The pictures of each row of a packed batch: those of its sequences in the order in which they stand there."""
  of_rows: list[Pictures] = [()] * rows
  for own, slot in sorted(zip(images, slots, strict=True), key=lambda pair: pair[1].start):
    of_rows[slot.row] += own
  return of_rows


def lay(sequences: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], slots: Sequence[Slot], rows: int,
        length: int) -> TokenBatch:
  """One batch of sequences of ids with their weights, each in its slot; column t is about the token after it."""
  inputs = pack([ids[:-1] for ids in sequences], slots, rows, length)
  targets_BT, weights_BT = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.float32)
  for ids, weight, slot in zip(sequences, weights, slots, strict=True):
    span = slice(slot.start, slot.start + len(ids) - 1)
    targets_BT[slot.row, span] = ids[1:]
    weights_BT[slot.row, span] = weight[1:]
  return TokenBatch(inputs, targets_BT, weights_BT)


def beside(first: Batches, second: Batches) -> Batches:
  """Batches whose first rows are those of `first`, and whose last ones those of `second`."""

  def next_batch(cursors: Cursors) -> tuple[TokenBatch, Cursors]:
    ones, twos = (0, 0) if isinstance(cursors, int) else cursors
    (upper, ones), (lower, twos) = first(ones), second(twos)
    return jax.tree.map(lambda a, b: np.concatenate([a, b]), upper, lower), (ones, twos)

  return next_batch
