"""How pictures stand in rows of ids: a block of placeholder ids for each, and beside the ids what a model reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
  from sftrl_jax.inputs import Inputs  # which loads jax, and configs are parsed without

Pictures = tuple[np.ndarray, ...]   # uint8 [Y, X, 3] each, as a model reads them


@dataclasses.dataclass(frozen=True)
class ImageReader:
  """What a model reads of a picture. A family that cuts or resizes pictures derives its own.

  image_id: the id that stands where a feature of a picture comes
  tokens: features of a picture
  height, width: pixels of a picture
  images: most pictures of a row
  """

  image_id: int
  tokens: int
  height: int
  width: int
  images: int = 1

  def ids(self, image: np.ndarray) -> list[int]:
    """The ids that stand for a picture. ValueError for a picture of another size."""
    self._check(image)
    return [self.image_id] * self.tokens

  def pixels(self, image: np.ndarray) -> Pictures:
    """What the model reads of a picture. ValueError for a picture of another size."""
    self._check(image)
    return (image,)

  def _check(self, image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != (self.height, self.width, 3):
      shape = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
      raise ValueError(f"A picture is {shape}, but config.model reads uint8 {(self.height, self.width, 3)}: let the "
                       "environment draw it so, or change config.model.image_height and image_width.")

  def add(self, inputs: Inputs, pictures: Sequence[Pictures]) -> Inputs:
    """The inputs with the pictures of their first rows, in their order; other rows have none.

    ValueError with the row's number unless it has as many placeholders as its pictures have features, and no more
    pictures than config.model.images.
    """
    images_BIYXC = self.blank(inputs.tokens_BT.shape[0])
    placeholders_B = np.count_nonzero(inputs.tokens_BT == self.image_id, axis=1).tolist()
    for row, placeholders in enumerate(placeholders_B):
      own = pictures[row] if row < len(pictures) else ()
      if placeholders != self.tokens * len(own):
        raise ValueError(f"Row {row} has {len(own)} pictures and {placeholders} placeholders, but {self.tokens} stand "
                         "for a picture: they must match, so give every placeholder's picture, and no other.")
      if len(own) > self.images:
        raise ValueError(f"Row {row} has {len(own)} pictures, but config.model.images is {self.images}: use "
                         f"--config.model.images={len(own)} or more.")
      for place, picture in enumerate(own):
        images_BIYXC[row, place] = picture
    return inputs.replace(images_BIYXC=images_BIYXC)

  def blank(self, rows: int) -> np.ndarray:
    """images_BIYXC of rows without a picture."""
    return np.zeros((rows, self.images, self.height, self.width, 3), np.uint8)


@dataclasses.dataclass(frozen=True)
class TiledReader(ImageReader):
  """Of a family that resizes pictures and cuts them into tiles, each of which is a picture of the row.

  processor: of pictures/processors
  id_of, encode: of the tokenizer: the id of a token's name, and ids of a text; None for one without marks of tiles
  """

  processor: Any = None
  id_of: Callable[[str], int | None] | None = dataclasses.field(default=None, repr=False, compare=False)
  encode: Callable[[str], Sequence[int]] | None = dataclasses.field(default=None, repr=False, compare=False)

  def ids(self, image: np.ndarray) -> list[int]:
    """The ids that stand for a picture. ValueError for what is no uint8 [height, width, 3]."""
    from sftrl_jax.pictures.processors.resample import refuse_others  # which loads Pillow, as a text needs not
    refuse_others(image)
    rows, columns = self.processor.layout(*image.shape[:2])
    return self.processor.ids(rows, columns, self.image_id, self.id_of, self.encode)

  def pixels(self, image: np.ndarray) -> Pictures:
    """The tiles of a picture. ValueError for what is no uint8 [height, width, 3]."""
    return tuple(self.processor.tiles(image))


def with_pictures(reader: ImageReader | None, inputs: Inputs, pictures: Sequence[Pictures],
                  images: int | None = None) -> Inputs:
  """`reader.add`; without a reader, which is with a model of text, the inputs as they are. ValueError for pictures that
  nothing reads.

  images: places of a row, those of the reader if left out; 0 for inputs without pictures
  """
  if reader is not None and images != 0:
    return (reader if images is None else dataclasses.replace(reader, images=images)).add(inputs, pictures)
  row = next((row for row, own in enumerate(pictures) if len(own)), None)
  if row is not None:
    raise ValueError(f"Row {row} has {len(pictures[row])} pictures, but the model reads text only: use a "
                     "vision-language model.")
  return inputs


def expanded(ids: Sequence[int], written: Sequence[bool], image_id: int, blocks: Sequence[Sequence[int]]
             ) -> tuple[list[int], list[bool]]:
  """(ids, written) with a block in the place of every image_id, which a chat template writes once a picture; ids that
  have all placeholders of the blocks stay as they are.

  ValueError unless there are as many of them as blocks.
  """
  places = [place for place, token in enumerate(ids) if token == image_id]
  if len(places) == sum(list(block).count(image_id) for block in blocks):
    return list(ids), list(written)
  if len(places) != len(blocks):
    raise ValueError(f"A chat has {len(blocks)} pictures, but its template writes {len(places)} placeholders (id "
                     f"{image_id}): it must write one a picture, as {{'type': 'image'}} of its content.")
  long_ids, long_written, start = [], [], 0
  for place, block in zip(places, blocks, strict=True):
    long_ids += [*ids[start:place], *block]
    long_written += [*written[start:place], *[False] * len(block)]
    start = place + 1
  return [*long_ids, *ids[start:]], [*long_written, *written[start:]]
