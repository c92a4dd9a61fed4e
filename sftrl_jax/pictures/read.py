"""Files and bytes to pixels and back. Files are hostile input: a picture that cannot be read rightly is an error.

What a viewer shows is what a model sees: turned as its EXIF data says, transparent parts over white, 16 bits scaled to
8, and of several frames the first.
"""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image, ImageOps

from sftrl_jax.paths import as_path

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")   # decoders that start no other program
MOST_BYTES = 1 << 28
MOST_PIXELS = 1 << 26
LONGEST_SIDE = 16_384


def read(source: bytes | str | os.PathLike, name: str = "") -> np.ndarray:
  """The picture of a file, or of the bytes of one: uint8 [Y, X, 3].

  source: bytes, or a path on this machine or at gs://
  name: what an error calls the picture, for example "row 7 of chats.jsonl"; the path if left out

  Raises ValueError for a picture that is missing, damaged, of another format, of floating-point values, or larger than
  MOST_BYTES, LONGEST_SIDE or MOST_PIXELS; sizes are looked at before anything is decoded.
  """
  if isinstance(source, (bytes, bytearray, memoryview)):
    name, content = name or "the picture", bytes(source)
  else:
    name, content = name or str(source), encoded(source, name or str(source))
  if len(content) > MOST_BYTES:
    raise ValueError(f"{name} has {len(content)} bytes, and at most {MOST_BYTES} are read: make it smaller.")
  try:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
      refusal = _refusal(image)
      pixels = None if refusal else _pixels(ImageOps.exif_transpose(image))
  except Image.DecompressionBombError:
    refusal = f"has far more than {MOST_PIXELS} pixels: make it smaller"
  except Exception as error:   # a damaged file can raise any
    refusal = (f"is no picture that can be read ({type(error).__name__}: {str(error)[:200]}): save it again as one of "
               f"{', '.join(FORMATS)}")
  if refusal:
    raise ValueError(f"{name} {refusal}.") from None
  return pixels


def encoded(source: str | os.PathLike, name: str) -> bytes:
  """The bytes of a picture's file, at most MOST_BYTES + 1. ValueError, by its name, for what cannot be read."""
  try:
    path = as_path(source if isinstance(source, str) else os.fspath(source))
    if not path.is_file():   # a pipe would never end
      raise FileNotFoundError(2, "no such file")
    with path.open("rb") as file:
      return file.read(MOST_BYTES + 1)
  except (OSError, ValueError) as error:   # ValueError: a path with a null character
    reason = getattr(error, "strerror", None) or error
    raise ValueError(f"{name} cannot be read ({reason}): give the path of a picture.") from None


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """The picture with so many pixels, bicubic with antialiasing: uint8 [Y, X, 3] -> uint8 [height, width, 3]."""
  if image.shape[:2] == (height, width):
    return image
  return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def png(image: np.ndarray) -> bytes:
  """A picture, uint8 [Y, X, 3], as the bytes of a PNG file; `read` undoes it."""
  stream = io.BytesIO()
  Image.fromarray(image).save(stream, "PNG")
  return stream.getvalue()


def _refusal(image: Image.Image) -> str:
  width, height = image.size
  if max(width, height) > LONGEST_SIDE or width * height > MOST_PIXELS:
    return (f"has {width} x {height} pixels, and at most {LONGEST_SIDE} a side and {MOST_PIXELS} in all are read: make "
            "it smaller")
  if image.mode == "F":
    return "has floating-point values, whose range is not stated: save it with 8 or 16 bits a value"
  return ""


def _pixels(image: Image.Image) -> np.ndarray:
  """The decoded picture over white; ValueError for values that no scale is known of."""
  if image.mode.startswith("I"):
    return _scaled(image)
  if image.has_transparency_data:
    clear = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
  return np.asarray(image.convert("RGB"))


def _scaled(image: Image.Image) -> np.ndarray:
  """16 bits a value to 8: 65535 becomes 255. Pillow itself would cut at 255."""
  values = np.asarray(image).astype(np.int64)
  if values.min() < 0 or values.max() > 65535:
    raise ValueError(f"its values lie in {values.min()}..{values.max()}, beyond 16 bits")
  grey = ((values + 128) // 257).astype(np.uint8)
  clear = image.info.get("transparency")
  if isinstance(clear, int):
    grey = np.where(values == clear, np.uint8(255), grey)
  return np.repeat(grey[..., None], 3, axis=-1)
