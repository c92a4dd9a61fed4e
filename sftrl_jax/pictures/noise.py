"""Noise of a camera: Gaussian noise on the pixels of a picture, cut from one sheet that is drawn once a process."""

from __future__ import annotations

import functools
import random

import numpy as np

SIDE = 512   # pixels of the sheet, which repeats beyond them


def expose(image: np.ndarray, source: random.Random, noise: float = 0.0, contrast: float = 1.0) -> np.ndarray:
  """The picture 127.5 + 127.5 * contrast * (x + noise * e), in whole levels cut to 0..255, of an image x in -1..1.

  e is standard normal for each value, from a random place of the sheet; image and noise are rounded apart. What lies
  beyond 0 and 255 is lost: of black and white, a contrast of 1 loses the half of the noise that leaves the range, and a
  contrast of 1 / (1 + 2.5 * noise) loses 1% of it. A model recovers x + noise * e as (picture / 127.5 - 1) / contrast.

  image: uint8 [Y, X, 3]; source: decides the place; noise: standard deviation; contrast: in (0, 1]
  """
  if not noise and contrast == 1.0:
    return image
  height, width, _ = image.shape
  levels = _levels(contrast)[image]
  if noise:
    y, x = int(source.random() * SIDE), int(source.random() * SIDE)
    levels += _cut(_sheet(127.5 * contrast * noise), y, x, height, width)
    np.minimum(levels, 255, out=levels)
    np.maximum(levels, 0, out=levels)
  return levels.astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _levels(contrast: float) -> np.ndarray:
  """int16 [256]: what becomes of each value without noise."""
  return np.rint(127.5 + contrast * (np.arange(256) - 127.5)).astype(np.int16)


def _cut(sheet: np.ndarray, y: int, x: int, height: int, width: int) -> np.ndarray:
  """A view of the sheet's values from (y, x) on, or a copy where the picture is larger than it."""
  if height <= SIDE and width <= SIDE:
    return sheet[y : y + height, x : x + width]
  return sheet[((y + np.arange(height)) % SIDE)[:, None], (x + np.arange(width)) % SIDE]


@functools.lru_cache(maxsize=8)
def _sheet(deviation: float) -> np.ndarray:
  """int16 [2 * SIDE, 2 * SIDE, 3]: noise of this standard deviation in whole levels, beside and below itself, so that a
  cut may leave the sheet on two sides."""
  draw = np.random.default_rng(5)
  sheet = draw.standard_normal((SIDE, SIDE, 3), dtype=np.float32)
  return np.tile(np.rint(np.clip(deviation * sheet, -9999, 9999)).astype(np.int16), (2, 2, 1))
