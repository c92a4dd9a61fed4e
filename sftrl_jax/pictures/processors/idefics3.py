"""Tiles and placeholders of Idefics3 and SmolVLM.

A picture is resized so that its longer side has `longest` pixels, also a small one. With splitting it is resized again,
to whole tiles, and cut into them, row by row; the whole picture as one tile comes last. Without, it is that one tile.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from sftrl_jax.pictures.processors.resample import FILTERS, refuse_others, resized

LIMIT = 4096   # pixels of a side, whatever `longest` says
AROUND, PLACEHOLDER, WHOLE = "<fake_token_around_image>", "<image>", "<global-img>"


@dataclasses.dataclass(frozen=True)
class Idefics3Processor:
  """tile: pixels of a side of a tile. longest: of the longer side of a picture before it is cut (0: as it is).
  splitting: whether it is cut. resample: the filter of resizing. tokens: placeholders of a tile."""

  tile: int
  longest: int
  splitting: bool
  resample: str
  tokens: int

  def __post_init__(self):
    if self.resample not in FILTERS:
      raise ValueError(f"image_resample is {self.resample!r}; it must be one of {', '.join(FILTERS)}.")
    if self.longest < 0:
      raise ValueError(f"image_longest is {self.longest}; it must be at least 1, or 0 to leave pictures as they are.")

  def layout(self, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of the tiles of a picture of this size, the whole picture apart; (0, 0) if it is one tile."""
    height, width = self._whole_tiles(*self._longest(height, width))
    if not self.splitting or max(height, width) <= self.tile:
      return 0, 0
    return height // self.tile, width // self.tile

  def most_tiles(self) -> int:
    """Tiles of a square picture, which has the most."""
    rows, columns = self.layout(self.longest or self.tile, self.longest or self.tile)
    return rows * columns + 1

  def tiles(self, picture_YXC: np.ndarray) -> np.ndarray:
    """images_IYXC of a uint8 picture: its tiles row by row, and then the whole."""
    refuse_others(picture_YXC)
    to = lambda picture, height, width: resized(picture, height, width, self.resample)
    picture_YXC = to(picture_YXC, *self._longest(*picture_YXC.shape[:2]))
    rows, columns = 0, 0
    if self.splitting:
      picture_YXC = to(picture_YXC, *self._whole_tiles(*picture_YXC.shape[:2]))
      rows, columns = self.layout_of_resized(picture_YXC)
    side = self.tile
    cut = [picture_YXC[row * side : (row + 1) * side, column * side : (column + 1) * side]
           for row in range(rows) for column in range(columns)]
    return np.stack([*cut, to(picture_YXC, side, side)])

  def layout_of_resized(self, picture_YXC: np.ndarray) -> tuple[int, int]:
    """As `layout`, of a picture that has whole tiles."""
    height, width = picture_YXC.shape[:2]
    return (0, 0) if max(height, width) <= self.tile else (height // self.tile, width // self.tile)

  def pieces(self, rows: int, columns: int) -> list[tuple[str, bool]]:
    """What stands in a text for a picture of this layout: (text, whether it is the name of one token), in order."""
    tile = [(PLACEHOLDER, True)] * self.tokens
    pieces = []
    for row in range(rows):
      for column in range(columns):
        pieces += [(AROUND, True), (f"<row_{row + 1}_col_{column + 1}>", True), *tile]
      pieces.append(("\n" if row + 1 < rows else "\n\n", False))
    return [*pieces, (AROUND, True), (WHOLE, True), *tile, (AROUND, True)]

  def ids(self, rows: int, columns: int, image_id: int, id_of: Callable[[str], int | None] | None = None,
          encode: Callable[[str], Sequence[int]] | None = None) -> list[int]:
    """`pieces` as ids. image_id: of the placeholder. id_of: the id of a token's name. encode: the ids of other text.

    Without id_of, of a tokenizer that knows no marks, placeholders alone. ValueError for a tokenizer that lacks some.
    """
    if id_of is None:
      return [image_id] * (self.tokens * (rows * columns + 1))
    ids = []
    for text, is_token in self.pieces(rows, columns):
      if not is_token:
        ids += encode(text)
        continue
      number = image_id if text == PLACEHOLDER else id_of(text)
      if number is None:
        raise ValueError(f"A picture of {rows} x {columns} tiles needs the token {text}, which this tokenizer lacks: "
                         "take the tokenizer of the model, or a smaller size in preprocessor_config.json.")
      ids.append(number)
    return ids

  def _longest(self, height: int, width: int) -> tuple[int, int]:
    """The size after the first resizing: the longer side is `longest`, the other is even, and both are below LIMIT."""
    if not self.longest:
      return height, width
    ratio = width / height
    if width >= height:
      height, width = _even(int(self.longest / ratio)), self.longest
    else:
      height, width = self.longest, _even(int(self.longest * ratio))
    height, width = max(height, 1), max(width, 1)
    ratio = width / height
    if width >= height and width > LIMIT:
      height, width = int(LIMIT / ratio), LIMIT
    elif height > width and height > LIMIT:
      height, width = LIMIT, int(LIMIT * ratio)
    return max(height, 1), max(width, 1)

  def _whole_tiles(self, height: int, width: int) -> tuple[int, int]:
    """The size after the second resizing: both sides are multiples of the tile."""
    up = lambda pixels: math.ceil(pixels / self.tile) * self.tile
    ratio = width / height
    if width >= height:
      width = up(width)
      return up(int(width / ratio)), width
    height = up(height)
    return height, up(int(height * ratio))


def _even(pixels: int) -> int:
  return pixels + pixels % 2
