"""Which pictures a token attends to, by hand; and the same in two parts as in one."""

import numpy as np
import pytest

from sftrl_jax import inputs
from sftrl_jax.models.vision.mllama import spans

IMAGE, X = 9, 1
ROWS = {
    "text": ([X, X, X], [()] * 3),
    "text before": ([X, IMAGE, X, X], [(), (1,), (1,), (1,)]),
    "adjacent": ([IMAGE, IMAGE, X, X], [(1,), (1, 2), (1, 2), (1, 2)]),
    "parted": ([IMAGE, X, IMAGE, X], [(1,), (1,), (2,), (2,)]),
    "three": ([IMAGE, X, IMAGE, IMAGE, X], [(1,), (1,), (2,), (2, 3), (2, 3)]),
}


def seen_by(batch, before=None):
  first, last, after = spans.spans(batch, IMAGE, before or spans.nothing(len(batch.tokens_BT)))
  return [[tuple(range(low, high + 1)) for low, high in zip(*row, strict=True)]
          for row in zip(np.asarray(first).tolist(), np.asarray(last).tolist(), strict=True)], after


@pytest.mark.parametrize("pad", [inputs.left_pad, inputs.right_pad])
def test_a_token_attends_to_the_last_picture_and_those_right_before_it(pad):
  batch = pad([ids for ids, _ in ROWS.values()], 7)
  found, _ = seen_by(batch)
  for row, (_, expected) in enumerate(ROWS.values()):
    there = batch.segments_BT[row] > 0
    assert [each for each, real in zip(found[row], there, strict=True) if real] == expected
    assert all(each == () for each, real in zip(found[row], there, strict=True) if not real)


def test_text_of_another_segment_attends_to_no_picture_of_this_one():
  (first, seen), (second, later) = ROWS["adjacent"], ROWS["text before"]
  batch = inputs.pack([first, second, [X]], [inputs.Slot(0, 0, 1), inputs.Slot(0, 4, 2), inputs.Slot(0, 8, 3)], 1, 9)
  found, _ = seen_by(batch)
  assert found[0] == [*seen, *[tuple(number + 2 for number in each) for each in later], ()]


@pytest.mark.parametrize("at", range(1, 5))
def test_a_row_read_in_two_parts_is_the_row_read_at_once(at):
  ids, expected = ROWS["three"]
  whole = inputs.right_pad([ids], 5)
  part = lambda places: inputs.Inputs(*(x[:, places] for x in (whole.tokens_BT, whole.positions_BT, whole.segments_BT)))
  head, after = seen_by(part(slice(0, at)))
  tail, _ = seen_by(part(slice(at, 5)), after)
  assert head[0] + tail[0] == expected


def test_features_are_numbered_over_the_pictures_that_are_there():
  there = np.asarray([[[True, False], [False, False], [True, True]]])
  np.testing.assert_array_equal(spans.numbers(there, 2), [[1, 1, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2]])
  np.testing.assert_array_equal(spans.numbers(there, 1, np.asarray([3])), [[4, 0, 0, 0, 5, 5]])
  np.testing.assert_array_equal(spans.columns(np.asarray([1]), there.any(-1), 2, 8), [[2, 3, 8, 8, 4, 5]])
