"""One placeholder a picture becomes its block; counts that differ are one clear error."""

import pytest

from sftrl_jax.pictures.processors.expansion import expand

IMAGE, MARK = 9, 5
BLOCK = [1, MARK, IMAGE, IMAGE, 1]


def test_placeholders_become_blocks_in_their_order_once():
  ids = expand([3, IMAGE, 4, IMAGE], IMAGE, [BLOCK, [2, *BLOCK]], {MARK})
  assert ids == [3, *BLOCK, 4, 2, *BLOCK]
  assert expand(ids, IMAGE, [BLOCK, [2, *BLOCK]], {MARK}) == ids
  assert expand([3, 4], IMAGE, [], {MARK}) == [3, 4]


def test_blocks_of_placeholders_alone():
  ids = expand([IMAGE, IMAGE, 3], IMAGE, [[IMAGE] * 2, [IMAGE] * 2])
  assert ids == [*[IMAGE] * 4, 3] and expand(ids, IMAGE, [[IMAGE] * 2, [IMAGE] * 2]) == ids
  assert expand([IMAGE, 3], IMAGE, [[IMAGE]]) == [IMAGE, 3]


@pytest.mark.parametrize(("ids", "pictures", "message"), [
    ([IMAGE, IMAGE], 1, "1 picture, but 2 placeholders"), ([IMAGE], 2, "2 pictures, but 1 placeholder:"),
    ([IMAGE], 0, "0 pictures, but 1 placeholder:"), ([3], 1, "1 picture, but 0 placeholders")])
def test_counts_that_differ_are_refused_with_both(ids, pictures, message):
  with pytest.raises(ValueError, match=message):
    expand(ids, IMAGE, [BLOCK] * pictures, {MARK})
