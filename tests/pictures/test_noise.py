"""Noise has the asked deviation, depends on its stream alone, and leaves a picture without it as it was."""

import random

import numpy as np
import pytest

from sftrl_jax.pictures import noise

GREY = np.full((64, 600, 3), 128, np.uint8)   # wider than the sheet


def test_without_noise_and_at_full_contrast_a_picture_is_itself():
  assert noise.expose(GREY, random.Random(0)) is GREY


@pytest.mark.parametrize("contrast", [0.4, 1.0])
def test_a_model_recovers_picture_and_noise(contrast):
  image = np.linspace(0, 255, 64 * 96 * 3).astype(np.uint8).reshape(64, 96, 3)
  exact, clean = image / 127.5 - 1, noise.expose(image, random.Random(0), 0.0, contrast) / 127.5 - 1
  assert np.abs(clean / contrast - exact).max() <= 0.51 / 127.5 / contrast
  noisy = noise.expose(image, random.Random(0), 0.2, 0.4) / 127.5 - 1
  error = noisy / 0.4 - exact
  assert abs(error.mean()) < 0.01 and abs(error.std() - 0.2) < 0.01


def test_full_contrast_loses_the_half_of_the_noise_that_leaves_the_range():
  white = np.full((64, 64, 3), 255, np.uint8)
  lost = lambda contrast: (noise.expose(white, random.Random(0), 0.6, contrast) == 255).mean()
  assert 0.45 < lost(1.0) < 0.55 and lost(1 / (1 + 2.5 * 0.6)) < 0.01


def test_the_stream_decides_and_a_large_picture_repeats_the_sheet():
  first, second, again = (noise.expose(GREY, random.Random(seed), 0.5) for seed in (0, 1, 0))
  assert (first == again).all() and (first != second).mean() > 0.9
  assert (first[:, : 600 - noise.SIDE] == first[:, noise.SIDE :]).all()
