"""Resizing of uint8 pictures by Pillow's filters."""

import numpy as np
from PIL import Image

FILTERS = {"nearest": Image.Resampling.NEAREST, "lanczos": Image.Resampling.LANCZOS,
           "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resized(picture_YXC: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
  """The picture with `height` rows and `width` columns. name: of FILTERS."""
  if picture_YXC.shape[:2] == (height, width):
    return picture_YXC
  return np.asarray(Image.fromarray(picture_YXC).resize((width, height), resample=FILTERS[name]))


def refuse_others(picture_YXC: np.ndarray) -> None:
  """ValueError for an array that is no picture: uint8 [height, width, 3], with at least one pixel."""
  shape, dtype = np.shape(picture_YXC), getattr(picture_YXC, "dtype", None)
  if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
    raise ValueError(f"A picture is {dtype} {list(shape)}; it must be uint8 [height, width, 3]: read it with "
                     "sftrl_jax.pictures.")
