"""Resizing is Pillow's, and a picture of the right size is left as it is."""

import numpy as np
import pytest
from PIL import Image

from sftrl_jax.pictures.processors.resample import FILTERS, refuse_others, resized

PICTURE = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_gives_the_size_that_is_asked_for(name):
  expected = np.asarray(Image.fromarray(PICTURE).resize((9, 4), FILTERS[name]))
  np.testing.assert_array_equal(resized(PICTURE, 4, 9, name), expected)


def test_nothing_is_done_to_a_picture_of_that_size():
  assert resized(PICTURE, 7, 5, "lanczos") is PICTURE


@pytest.mark.parametrize("wrong", [PICTURE / 255, PICTURE[..., 0], PICTURE[:0], "a.png"])
def test_what_is_no_picture_is_refused(wrong):
  with pytest.raises(ValueError, match="uint8"):
    refuse_others(wrong)
