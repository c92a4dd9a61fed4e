"""The inputs of a model: tokens, their positions and their segments.

No masks are passed: every row has positions and segments (0 = padding), and `models.attention.may_attend` derives from
them which tokens may attend to which. Left padding, right padding and packing lay ragged rows into one array.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


@struct.dataclass
class Prompts:
  """What rows begin with, in groups of `group` neighbours that have the same; a model computes it once a group.

  It ends before the last token of the prompt, with which the row itself begins: that one predicts the first token of
  the response, so no logits are needed here. Positions of the row go on from it; pictures of the row stand in it.
  """

  tokens_BP: np.ndarray  # int32, left-padded
  lengths_B: np.ndarray  # int32, without the padding
  group: int = struct.field(pytree_node=False)

  @property
  def columns(self) -> int:
    """P, with padding."""
    return self.tokens_BP.shape[1]


@struct.dataclass
class Inputs:
  """B rows of T tokens, and the pictures that stand in them.

  Where a picture stands, a row has as many placeholder ids as the model has features a picture; the k-th placeholder of
  a row takes the k-th feature of the row's pictures, in their order.
  """

  tokens_BT: np.ndarray  # int32
  positions_BT: np.ndarray  # int32, from 0 within a segment
  segments_BT: np.ndarray  # int32, 0 = padding; tokens see only their own segment
  images_BIYXC: np.ndarray | None = None  # uint8: pictures in the order of their placeholders; unused places are 0
  prompts: Prompts | None = None  # what stands before each row, where rows share it


@struct.dataclass
class Prefix:
  """What a teacher reads before each row of `Inputs`, and the policy does not.

  The first ids of a row are skipped in turn: <bos>, or a message of the system, stands at the beginning of the prefix,
  and once.
  """

  tokens_BP: np.ndarray  # int32, left-padded
  lengths_B: np.ndarray  # int32, without the padding
  skipped_B: np.ndarray  # int32


def _empty(rows: int, length: int) -> Inputs:
  return Inputs(*(np.zeros((rows, length), np.int32) for _ in range(3)))


def _refuse_long(lengths: Sequence[int], length: int) -> None:
  if lengths and max(lengths) > length:
    raise ValueError(f"A row of {max(lengths)} tokens does not fit into {length}: raise the length or drop the row.")


def left_pad(rows: Sequence[Sequence[int]], length: int, count: int = 0) -> Inputs:
  """Rows aligned at their ends, so that decoding writes at one shared index; padding rows up to `count` rows."""
  _refuse_long([len(row) for row in rows], length)
  inputs = _empty(max(count, len(rows)), length)
  for index, row in enumerate(rows):
    start = length - len(row)
    inputs.tokens_BT[index, start:] = row
    inputs.positions_BT[index, start:] = np.arange(len(row))
    inputs.segments_BT[index, start:] = 1
  return inputs


def right_pad(rows: Sequence[Sequence[int]], length: int, count: int = 0) -> Inputs:
  """Rows aligned at their starts, for training without packing; padding rows up to `count` rows."""
  _refuse_long([len(row) for row in rows], length)
  inputs = _empty(max(count, len(rows)), length)
  for index, row in enumerate(rows):
    inputs.tokens_BT[index, : len(row)] = row
    inputs.positions_BT[index, : len(row)] = np.arange(len(row))
    inputs.segments_BT[index, : len(row)] = 1
  return inputs


def prefixes(rows: Sequence[tuple[Sequence[int], int]], length: int) -> Prefix:
  """One prefix a row, (its ids, how many ids of the row are skipped), padded to `length` tokens."""
  numbers = lambda values: np.asarray(values, np.int32)
  return Prefix(left_pad([ids for ids, _ in rows], length).tokens_BT, numbers([len(ids) for ids, _ in rows]),
                numbers([skipped for _, skipped in rows]))


def with_prefix(prefix: Prefix, inputs: Inputs) -> Inputs:
  """Rows of P + T columns as a teacher reads them: column P + t is column t of `inputs`.

  inputs: right-padded, a row of one segment, without pictures
  """
  if inputs.images_BIYXC is not None:
    raise ValueError("A prefix is read before rows of text, but these have pictures.")
  column_1T = jnp.arange(inputs.tokens_BT.shape[1])[None]
  before_BP = _left_padded(prefix.tokens_BP, prefix.lengths_B)
  after_BT = inputs.positions_BT + (prefix.lengths_B - prefix.skipped_B)[:, None]
  segments_BT = jnp.where(column_1T < prefix.skipped_B[:, None], 0, inputs.segments_BT)
  join = lambda prefix_BP, row_BT: jnp.concatenate([prefix_BP, row_BT], axis=1).astype(jnp.int32)
  return Inputs(join(prefix.tokens_BP, inputs.tokens_BT),
                jnp.maximum(join(before_BP, after_BT), 0),   # of what nobody attends to, too
                join(before_BP >= 0, segments_BT))


def _left_padded(tokens_BP: jax.Array, lengths_B: jax.Array) -> jax.Array:
  """Positions of left-padded tokens, negative where there is padding."""
  columns = tokens_BP.shape[1]
  return jnp.arange(columns)[None] - (columns - lengths_B[:, None])


def share_prompts(inputs: Inputs, lengths_B: np.ndarray, columns: int, group: int) -> Inputs:
  """Right-padded rows of one segment, on the host, without their prompts, which stand before them.

  lengths_B: of the prompts, without their last token; 0 for a row without tokens, which gets the prompt of its group,
    and its pictures
  columns: room for a prompt; the rows have as many columns fewer
  ValueError unless all prompts of a group are the same.
  """
  first_B = np.repeat(np.argmax(lengths_B.reshape(-1, group) > 0, axis=1), group)
  first_B += np.arange(len(lengths_B)) // group * group
  of_group_B = lengths_B[first_B]
  place_BP = of_group_B[:, None] - columns + np.arange(columns)[None]
  prompt_of = lambda rows_B: np.where(
      place_BP >= 0, np.take_along_axis(inputs.tokens_BT[rows_B], np.maximum(place_BP, 0), axis=1), 0)
  tokens_BP = prompt_of(first_B)
  differs_B = (lengths_B != of_group_B) | np.any(prompt_of(np.arange(len(lengths_B))) != tokens_BP, axis=1)
  if np.any(differs_B & (lengths_B > 0)):
    row = int(np.argmax(differs_B & (lengths_B > 0)))
    raise ValueError(f"Row {row} has another prompt than row {first_B[row]} of its group: use "
                     "--config.compute.share_prompts=False.")
  rest = lambda x_BT: after_prompts(x_BT, of_group_B, columns)
  images = None if inputs.images_BIYXC is None else inputs.images_BIYXC[first_B]
  return Inputs(rest(inputs.tokens_BT), rest(inputs.positions_BT), rest(inputs.segments_BT), images,
                Prompts(tokens_BP, of_group_B, group))


def after_prompts(x_BT: np.ndarray, lengths_B: np.ndarray, columns: int) -> np.ndarray:
  """The columns of right-padded rows from lengths_B on, which is at most `columns`, of which there are then as many
  fewer."""
  return np.take_along_axis(x_BT, lengths_B[:, None] + np.arange(x_BT.shape[1] - columns)[None], axis=1)


def whole_rows(inputs: Inputs) -> Inputs:
  """Rows of P + T columns, each with its prompt, as attention reads them; without prompts the rows as they are."""
  prompts = inputs.prompts
  if prompts is None:
    return inputs
  before_BP = _left_padded(prompts.tokens_BP, prompts.lengths_B)
  join = lambda prompt_BP, row_BT: jnp.concatenate([prompt_BP, row_BT], axis=1).astype(jnp.int32)
  return Inputs(join(prompts.tokens_BP, inputs.tokens_BT), join(jnp.maximum(before_BP, 0), inputs.positions_BT),
                join(before_BP >= 0, inputs.segments_BT), inputs.images_BIYXC)


def group_rows(inputs: Inputs) -> Inputs:
  """A row of P + G * T columns a group: the prompt once, then the rows of the group, as all but attention reads them.

  Without prompts the rows as they are.
  """
  prompts = inputs.prompts
  if prompts is None:
    return inputs
  whole, group, P = whole_rows(inputs), prompts.group, prompts.columns
  first = lambda x: x.reshape(-1, group, *x.shape[1:])[:, 0]
  lay = lambda x_BT: jnp.concatenate([first(x_BT[:, :P]), x_BT[:, P:].reshape(-1, group * (x_BT.shape[1] - P))], axis=1)
  images = None if inputs.images_BIYXC is None else first(inputs.images_BIYXC)
  return Inputs(lay(whole.tokens_BT), lay(whole.positions_BT), lay(whole.segments_BT), images)


class Slot(NamedTuple):
  """The place of one sequence in a packed batch."""

  row: int
  start: int
  segment: int


def first_fit(size: int, used: list[int], segments: list[int], length: int, pictures: int = 0,
              shown: list[int] | None = None, most: int = 0) -> Slot | None:
  """A slot for a sequence of `size` in the first row with room for it, or None; updates the lists in place.

  used, segments: tokens and sequences of every row so far. Sequences are placed in the order of their stream, so which
  of them share a batch depends on that order alone.
  pictures: of the sequence; shown: pictures of every row so far; most: of a row
  """
  for row, start in enumerate(used):
    if start + size <= length and (not pictures or shown[row] + pictures <= most):
      used[row] += size
      segments[row] += 1
      if pictures:
        shown[row] += pictures
      return Slot(row, start, segments[row])
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
