"""Ragged rows go into an array and come out again."""

import numpy as np
import pytest

from sftrl_jax import inputs

ROWS = [[7, 8, 9], [4], [], [1, 2, 3, 5, 6]]


def taken_out(batch):
  """Every row's tokens that are not padding, whatever the padding."""
  return [row[segment > 0].tolist() for row, segment in zip(batch.tokens_BT, batch.segments_BT, strict=True)]


@pytest.mark.parametrize("pad", [inputs.left_pad, inputs.right_pad])
def test_padding_keeps_rows_and_counts_positions_from_zero(pad):
  batch = pad(ROWS, 6)
  assert taken_out(batch) == ROWS
  for row, positions, segments in zip(ROWS, batch.positions_BT, batch.segments_BT, strict=True):
    assert positions[segments > 0].tolist() == list(range(len(row)))
    assert set(segments) <= {0, 1}
  assert {array.dtype for array in (batch.tokens_BT, batch.positions_BT, batch.segments_BT)} == {np.dtype(np.int32)}


def test_left_padding_aligns_ends_and_right_padding_starts():
  left, right = inputs.left_pad(ROWS, 6).segments_BT, inputs.right_pad(ROWS, 6).segments_BT
  for index, row in enumerate(ROWS):
    assert left[index].tolist() == [0] * (6 - len(row)) + [1] * len(row)
    assert right[index].tolist() == [1] * len(row) + [0] * (6 - len(row))


@pytest.mark.parametrize("pad", [inputs.left_pad, inputs.right_pad])
def test_missing_rows_are_padding(pad):
  batch = pad(ROWS, 5, count=7)
  assert batch.tokens_BT.shape == (7, 5)
  assert taken_out(batch) == [*ROWS, [], [], []]
  assert pad([], 5, count=2).segments_BT.sum() == 0


@pytest.mark.parametrize("pad", [inputs.left_pad, inputs.right_pad])
def test_a_row_that_does_not_fit_is_refused(pad):
  with pytest.raises(ValueError, match="5 tokens does not fit into 4"):
    pad(ROWS, 4)


def packed(seed, rows, length):
  """Random sequences placed until one finds no room: (sequences, slots)."""
  random = np.random.default_rng(seed)
  sequences, slots, used, segments = [], [], [0] * rows, [0] * rows
  while True:
    sequence = random.integers(1, 100, random.integers(1, length + 1)).tolist()
    slot = inputs.first_fit(len(sequence), used, segments, length)
    if slot is None:
      return sequences, slots, len(sequence), used
    sequences.append(sequence)
    slots.append(slot)


@pytest.mark.parametrize("seed", range(20))
def test_packing_keeps_every_sequence_apart(seed):
  sequences, slots, refused, used = packed(seed, rows=4, length=12)
  batch = inputs.pack(sequences, slots, 4, 12)
  for sequence, slot in zip(sequences, slots, strict=True):
    mine = batch.segments_BT[slot.row] == slot.segment
    assert batch.tokens_BT[slot.row][mine].tolist() == sequence
    assert batch.positions_BT[slot.row][mine].tolist() == list(range(len(sequence)))
  assert (batch.segments_BT > 0).sum() == sum(map(len, sequences))
  assert (batch.segments_BT > 0).sum(1).tolist() == used
  assert all(taken + refused > 12 for taken in used)


def test_the_first_row_with_room_is_taken_in_the_order_of_the_stream():
  used, segments = [0, 0], [0, 0]
  slots = [inputs.first_fit(size, used, segments, 5) for size in (3, 4, 2, 1, 1)]
  assert slots == [(0, 0, 1), (1, 0, 1), (0, 3, 2), (1, 4, 2), None]
  assert used == [5, 5]


def test_a_prefix_is_read_before_its_row_without_the_first_ids_of_that():
  read = [([21, 22, 23], 1), ([24], 0), ([], 0), ([25], 5)]
  whole = [[21, 22, 23, 8, 9], [24, 4], [], [25]]
  batch = inputs.with_prefix(inputs.prefixes(read, 4), inputs.right_pad(ROWS, 6))
  batch = batch.replace(**{name: np.asarray(getattr(batch, name)) for name in ("tokens_BT", "positions_BT",
                                                                               "segments_BT")})
  assert taken_out(batch) == whole and batch.tokens_BT.shape == (4, 4 + 6)
  np.testing.assert_array_equal(batch.tokens_BT[:, 4:], inputs.right_pad(ROWS, 6).tokens_BT)
  for row, positions, segments in zip(whole, batch.positions_BT, batch.segments_BT, strict=True):
    assert positions[segments > 0].tolist() == list(range(len(row)))
  assert batch.positions_BT.min() == 0 and set(batch.segments_BT.flat) == {0, 1}


def test_a_prefix_that_does_not_fit_and_one_of_pictures_are_refused():
  with pytest.raises(ValueError, match="3 tokens does not fit into 2"):
    inputs.prefixes([([1, 2, 3], 0)], 2)
  pictured = inputs.right_pad([[1]], 2).replace(images_BIYXC=np.zeros((1, 1, 2, 2, 3), np.uint8))
  with pytest.raises(ValueError, match="rows of text"):
    inputs.with_prefix(inputs.prefixes([([], 0)], 2), pictured)


def test_rows_of_a_group_share_their_prompt_and_go_on_from_it():
  rows = [[1, 2, 3, 7, 8], [], [1, 2, 3, 9], [4, 5], [4, 6, 6], [4]]   # 2 tokens before the last one, and none
  whole = inputs.right_pad(rows, 6)
  shared = inputs.share_prompts(whole, np.asarray([2, 0, 2, 0, 0, 0], np.int32), 3, 3)
  assert taken_out(shared) == [[3, 7, 8], [], [3, 9], [4, 5], [4, 6, 6], [4]] and shared.tokens_BT.shape == (6, 3)
  assert shared.prompts.tokens_BP.tolist() == [[0, 1, 2]] * 3 + [[0, 0, 0]] * 3
  assert shared.prompts.lengths_B.tolist() == [2, 2, 2, 0, 0, 0] and shared.prompts.columns == 3
  assert shared.positions_BT[0].tolist() == [2, 3, 4] and shared.positions_BT[4].tolist() == [0, 1, 2]
  joined = inputs.whole_rows(shared)   # the padding of a prompt is before it
  assert taken_out(joined) == [[1, 2, 3, 7, 8], [1, 2], [1, 2, 3, 9], [4, 5], [4, 6, 6], [4]]
  for positions, segments in zip(joined.positions_BT, joined.segments_BT, strict=True):
    assert positions[segments > 0].tolist() == list(range(int((segments > 0).sum())))
  together = inputs.group_rows(shared)
  assert taken_out(together) == [[1, 2, 3, 7, 8, 3, 9], [4, 5, 4, 6, 6, 4]] and together.tokens_BT.shape == (2, 3 + 9)
  assert together.positions_BT[0].tolist() == [0, 0, 1, 2, 3, 4, 0, 0, 0, 2, 3, 0]


def test_rows_without_shared_prompts_stay_as_they_are():
  rows = inputs.right_pad(ROWS, 6)
  assert inputs.whole_rows(rows) is rows and inputs.group_rows(rows) is rows


@pytest.mark.parametrize("rows, lengths", [([[1, 2, 3], [1, 4, 3]], [2, 2]), ([[1, 2, 3], [1, 2, 3]], [2, 1])])
def test_a_group_of_two_prompts_is_refused(rows, lengths):
  with pytest.raises(ValueError, match=r"Row 1 has another prompt than row 0 .*compute.share_prompts=False"):
    inputs.share_prompts(inputs.right_pad(rows, 6), np.asarray(lengths, np.int32), 3, 2)
