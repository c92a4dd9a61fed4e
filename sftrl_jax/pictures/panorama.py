"""Views cut from an equirectangular panorama, as from the street views of the paper's data.

A panorama shows all directions: its columns are headings, its rows are angles above and below the horizon. As in the
released code, heading h is at the share ((h + rotation) mod 360) / 360 of its width.
"""

from __future__ import annotations

import functools

import numpy as np

from sftrl_jax.pictures.read import resize


def views(panorama: np.ndarray, rotation: float, headings: tuple[float, ...], pixels: int) -> list[np.ndarray]:
  """Views of 90 degrees at the horizon, one a heading: uint8 [pixels, pixels, 3] each.

  panorama: uint8 [Y, X, 3] of 360 x 180 degrees; rotation: degrees, from its metadata; headings: degrees clockwise from
  north. Values are interpolated between the four nearest of a panorama that is shrunk to 6 * pixels columns first, so
  that fine detail does not alias.
  """
  width = min(panorama.shape[1], 6 * pixels)
  height = max(1, round(panorama.shape[0] * width / panorama.shape[1]))
  shrunk = resize(panorama, height, width)
  longitude, latitude = _angles(pixels)
  row = np.clip((latitude / 180 + 0.5) * height - 0.5, 0, height - 1)
  top = np.floor(row).astype(int)
  bottom, down = np.minimum(top + 1, height - 1), (row - top)[..., None]
  cuts = []
  for heading in headings:
    column = ((heading + rotation + longitude) % 360) / 360 * width - 0.5
    left = np.floor(column).astype(int)
    right, across = (left + 1) % width, (column - left)[..., None]
    left %= width
    above = shrunk[top, left] * (1 - across) + shrunk[top, right] * across
    below = shrunk[bottom, left] * (1 - across) + shrunk[bottom, right] * across
    cuts.append(np.rint(above * (1 - down) + below * down).astype(np.uint8))
  return cuts


@functools.lru_cache(maxsize=4)
def _angles(pixels: int) -> tuple[np.ndarray, np.ndarray]:
  """(longitude [1, pixels], latitude [pixels, pixels]) of a view's pixels from its middle, degrees right and down."""
  slope = (np.arange(pixels) + 0.5) / (pixels / 2) - 1
  latitude = np.arctan2(slope[:, None], np.sqrt(1 + slope[None] ** 2))
  return np.degrees(np.arctan(slope))[None], np.degrees(latitude)
