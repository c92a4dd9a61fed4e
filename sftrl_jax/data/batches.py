"""Chats to packed batches, with a cursor from which the stream goes on."""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from sftrl_jax.data.demonstrations import Demonstration
from sftrl_jax.inputs import Slot, first_fit, pack
from sftrl_jax.objectives.batches import TokenBatch
from sftrl_jax.text.pretrained import Pretrained
from sftrl_jax.text.render import render, responses
from sftrl_jax.text.tokenizer import Tokenizer


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
  used, segments = [0] * rows, [0] * rows
  sequences, weights, slots = [], [], []
  while True:
    ids, weight = example(tokenizer, shown(cursor + len(sequences)))
    if len(ids) - 1 > length:
      raise ValueError(f"config.data.length is {length}, but example {cursor + len(sequences)} has {len(ids)} tokens: "
                       f"use --config.data.length={len(ids) - 1} or more.")
    slot = first_fit(len(ids) - 1, used, segments, length)
    if slot is None:
      break
    sequences.append(ids)
    weights.append(weight)
    slots.append(slot)
  wanted = [place for place, slot in enumerate(slots) if mine is None or slot.row in mine]
  chosen = ([items[place] for place in wanted] for items in (sequences, weights, slots))
  return lay(*chosen, rows, length), cursor + len(sequences)


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
