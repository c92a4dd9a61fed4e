"""A view of a panorama shows the headings that it is asked for: its columns and rows have known colours here."""

import numpy as np
import pytest

from sftrl_jax.pictures import panorama

# Red and green are cosine and sine of the heading; blue is the angle below the zenith, from 0 to 180.
WIDTH, HEIGHT = 720, 360
ANGLES = np.radians((np.arange(WIDTH) + 0.5) * 360 / WIDTH)
WORLD = np.stack(np.broadcast_arrays(127 + 120 * np.cos(ANGLES), 127 + 120 * np.sin(ANGLES),
                                     ((np.arange(HEIGHT) + 0.5) * 180 / HEIGHT)[:, None]), -1).round().astype(np.uint8)


def off(pixel, asked):
  """Degrees between the heading of a pixel and the one asked for."""
  shown = np.degrees(np.arctan2(pixel[1] - 127.0, pixel[0] - 127.0))
  return abs((asked - shown + 180) % 360 - 180)


@pytest.mark.parametrize("rotation", [0, 30, -200])
@pytest.mark.parametrize("asked", [0, 90, 180.5, 330])
def test_the_middle_is_the_heading_and_the_edges_are_45_degrees_off(asked, rotation):
  pixels = 61
  view, = panorama.views(np.roll(WORLD, 2 * rotation, 1), rotation, (asked,), pixels)
  assert view.shape == (pixels, pixels, 3) and view.dtype == np.uint8
  middle = pixels // 2
  edge = np.degrees(np.arctan(60 / 61))   # to the middle of the last pixel
  assert off(view[middle, middle], asked) < 1 and abs(int(view[middle, middle, 2]) - 90) <= 1
  assert off(view[middle, 0], asked - edge) < 1 and off(view[middle, -1], asked + edge) < 1
  assert abs(int(view[0, middle, 2]) - (90 - edge)) <= 1 and abs(int(view[-1, middle, 2]) - (90 + edge)) <= 1
  # Straight edges of a view bend toward the horizon at its corners.
  assert abs(int(view[0, 0, 2]) - (90 - np.degrees(np.arctan(60 / 61 / np.hypot(1, 60 / 61))))) <= 1


def test_a_view_of_north_has_no_seam():
  ring = np.abs(np.arange(WIDTH) + 0.5 - WIDTH / 2) * 2 / WIDTH * 255   # one value on both sides of north
  world = np.repeat(np.broadcast_to(ring, (HEIGHT, WIDTH))[..., None], 3, -1).astype(np.uint8)
  view, = panorama.views(world, 0, (0,), 64)
  across = view[32, :, 0].astype(int)
  assert np.abs(np.diff(across)).max() <= 6 and across[31] > 250 and (across[:32] == across[:31:-1]).all()


def test_a_large_panorama_is_shrunk_without_aliasing():
  stripes = np.zeros((512, 1024, 3), np.uint8)
  stripes[:, ::2] = 255   # finer than any view of 32 pixels can show
  view, = panorama.views(stripes, 0, (90,), 32)
  assert np.abs(view[8:24].astype(int) - 127).max() < 40


def test_the_smallest_panorama_is_one_colour():
  assert (panorama.views(np.full((1, 1, 3), 7, np.uint8), 0, (10, 350), 8)[1] == 7).all()
