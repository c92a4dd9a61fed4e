"""Tiles of Llama-3.2-Vision.

A picture is laid into the canvas of whole tiles that needs the least enlarging, or the least shrinking; the rest of the
canvas is black. Its tiles stand one below another in one array of fixed size, behind which one row of pixels holds the
id of the canvas: so shape and pixels never part.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from sftrl_jax.pictures.processors.resample import refuse_others, resized


@functools.cache
def shapes(tiles: int) -> tuple[tuple[int, int], ...]:
  """(rows, columns) of every canvas of at most so many tiles, in the order of the released weights."""
  return tuple((rows, columns) for rows in range(1, tiles + 1) for columns in range(1, tiles // rows + 1))


@dataclasses.dataclass(frozen=True)
class MllamaProcessor:
  """tile: pixels of a side of a tile. most: tiles of a picture. resample: the filter of resizing."""

  tile: int
  most: int
  resample: str

  def layout(self, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of the tiles of a picture of this size.

    The canvas whose scale, the least of both sides', is nearest to 1 from above, else from below; of equal ones that
    with the fewest tiles, and of these the first.
    """
    scale = lambda shape: min(shape[0] * self.tile / height, shape[1] * self.tile / width)
    scales = [scale(shape) for shape in shapes(self.most)]
    enlarging = [value for value in scales if value >= 1]
    best = min(enlarging) if enlarging else max(scales)
    fit = [shape for shape, value in zip(shapes(self.most), scales, strict=True) if value == best]
    return min(fit, key=math.prod)

  def ids(self, rows: int, columns: int, image_id: int, id_of: Callable[[str], int | None] | None = None,
          encode: Callable[[str], Sequence[int]] | None = None) -> list[int]:
    """What stands in a text for a picture of any layout: one placeholder."""
    return [image_id]

  def tiles(self, picture_YXC: np.ndarray) -> np.ndarray:
    """images_IYXC of a uint8 picture, with I = 1: [1, most * tile + 1, tile, 3]."""
    refuse_others(picture_YXC)
    rows, columns = self.layout(*picture_YXC.shape[:2])
    height, width = self._size(*picture_YXC.shape[:2], rows * self.tile, columns * self.tile)
    canvas = np.zeros((rows * self.tile, columns * self.tile, 3), np.uint8)
    canvas[:height, :width] = resized(picture_YXC, height, width, self.resample)
    cut = canvas.reshape(rows, self.tile, columns, self.tile, 3).swapaxes(1, 2).reshape(-1, self.tile, 3)
    image = np.zeros((1, self.most * self.tile + 1, self.tile, 3), np.uint8)
    image[0, : len(cut)] = cut
    image[0, -1, 0, 0] = 1 + shapes(self.most).index((rows, columns))
    return image

  def _size(self, height: int, width: int, canvas_height: int, canvas_width: int) -> tuple[int, int]:
    """The size of the picture on its canvas: enlarged to one tile at most, and never distorted but by rounding."""
    to_height, to_width = (min(max(size, self.tile), most) for size, most in (
        (height, canvas_height), (width, canvas_width)))
    by_height, by_width = to_height / height, to_width / width
    if by_width < by_height:
      return min(math.floor(height * by_width) or 1, to_height), to_width
    return to_height, min(math.floor(width * by_height) or 1, to_width)
