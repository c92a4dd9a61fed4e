"""The pictures of a corpus, as they are encoded. They are decoded when a batch needs them, so that memory does not grow
with the rows.

Every picture is decoded once when its row is read, which shows what is wrong with it before the first step. Then a file
without a name holds its path, or its bytes where a row brought them; equal pictures are there once.
"""

import array
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sftrl_jax.data.lines import BadRow, Raw
from sftrl_jax.data.messages import kind
from sftrl_jax.data.pictures.parts import PICTURES, Shown, with_own_pictures
from sftrl_jax.text.images import ImageReader, Pictures

CHATS = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")
DIGEST = 16   # bytes
MANY = "more pictures than config.model.images"


class RowPictures:
  """Pictures by their number, and the numbers of every example.

  reader: of the model; None where it is not known yet: then `image` gives pictures, and `pixels` nothing
  """

  def __init__(self, reader: ImageReader | None):
    self.reader = reader
    self._file = tempfile.TemporaryFile(buffering=0)
    self._ends, self._is_path, self._sizes = array.array("q", [0]), bytearray(), array.array("i")
    self._digests, self._numbers = bytearray(), {}
    self._of_examples, self._offsets, self._counts = array.array("q"), array.array("q", [0]), array.array("q")

  @property
  def counts(self) -> np.ndarray:
    """What each example takes of the pictures of a row; a picture that is cut into tiles counts with all of them."""
    return np.frombuffer(self._counts, np.int64)

  @property
  def different(self) -> int:
    return len(self._is_path)

  @property
  def shown(self) -> int:
    """Pictures of all examples."""
    return len(self._of_examples)

  def opened(self, raw: Raw) -> Raw:
    """The row with its pictures as Shown, in a column `images` and in the parts that name their own; or with a fault.
    """
    if raw.fault is not None or not isinstance(raw.value, dict):
      return raw
    value, home = raw.value, Path(raw.file)
    home = home if home.is_dir() else home.parent
    show = lambda source, where: self._show(source, home, where)
    try:
      column, sources = sources_of(value)
      changed = {name: with_own_pictures(value[name], show, name) for name in CHATS if name in value}
      if column:
        changed["images"] = [show(source, f"{column}[{place}]") for place, source in enumerate(sources)]
    except BadRow as error:
      return dataclasses.replace(raw, fault=error)
    return dataclasses.replace(raw, value={**value, **changed})

  def refuse_misfits(self, examples: Sequence[tuple[Sequence[int], Any, Sequence[int]]]) -> None:
    """BadRow where (ids, flags, numbers) that share a row have more pictures than it can hold, or a place without one.
    """
    if any(self._count(ids) and not numbers for ids, _, numbers in examples):
      raise BadRow("pictures and their places differ", "has no picture, but spells the token that stands for one",
                   "images")
    count = sum(self._count(ids) for ids, _, _ in examples)
    if count > self.reader.images:
      raise BadRow(MANY, f"has {count} pictures in a packed row (tiles count one by one), but config.model.images is "
                         f"{self.reader.images}: use --config.model.images={count} or more", "images")

  def add_example(self, ids: Sequence[int], numbers: Sequence[int]) -> None:
    self._of_examples.extend(numbers)
    self._offsets.append(len(self._of_examples))
    self._counts.append(self._count(ids))

  def digests(self, numbers: Iterable[int]) -> bytes:
    return b"".join(self._digest_of(number) for number in numbers)

  def digest(self) -> bytes:
    """Of the pictures of every example, in their order."""
    digest = hashlib.sha256(np.frombuffer(self._offsets, np.int64).tobytes())
    digest.update(self.digests(self._of_examples))
    return digest.digest()

  def pixels(self, examples: Iterable[int]) -> Pictures:
    """What a model reads of the pictures of examples, in their order. ValueError where a file has changed."""
    numbers = [number for example in examples
               for number in self._of_examples[self._offsets[example] : self._offsets[example + 1]]]
    decoded = {number: self.reader.pixels(self.image(number)) for number in dict.fromkeys(numbers)}
    return tuple(picture for number in numbers for picture in decoded[number])

  def image(self, number: int) -> np.ndarray:
    """A picture, uint8 [Y, X, 3], decoded now. ValueError where its file has changed."""
    from sftrl_jax.pictures import read
    start, end = self._ends[number], self._ends[number + 1]
    content, name = os.pread(self._file.fileno(), end - start, start), "the picture"
    if self._is_path[number]:
      name = content.decode()
      content = read.encoded(name, name)
      if _digest(content) != self._digest_of(number):
        raise ValueError(f"{name} has changed since the rows were read: put it back as it was, and give the same "
                         "command again.")
    return read.read(content, name)

  def _digest_of(self, number: int) -> bytes:
    return bytes(self._digests[DIGEST * number : DIGEST * (number + 1)])

  def _count(self, ids: Sequence[int]) -> int:
    return list(ids).count(self.reader.image_id) // self.reader.tokens

  def _show(self, source: Any, home: Path, where: str) -> Shown:
    from sftrl_jax.pictures import read  # which loads Pillow, as texts need not
    try:
      path, content = _source(source, home, where)
      name = path or "the picture"
      content = read.encoded(path, path) if path else content
      digest = _digest(content)
      number = self._numbers.get(digest)
      if number is None:
        image = read.read(content, name)
        if self.reader is not None:
          self.reader.ids(image)
        number = self._numbers[digest] = self._keep(path, content, image, digest)
    except BadRow:
      raise
    except ValueError as error:
      raise BadRow("unreadable pictures", str(error).rstrip("."), where) from error
    height, width = self._sizes[2 * number : 2 * number + 2]
    return Shown(number, np.broadcast_to(np.uint8(0), (height, width, 3)))   # of its size, in no memory

  def _keep(self, path: str, content: bytes, image: np.ndarray, digest: bytes) -> int:
    kept = path.encode() if path else content
    self._ends.append(self._ends[-1] + len(kept))
    while kept:   # a file without a buffer may take a part
      kept = kept[self._file.write(kept):]
    self._is_path.append(bool(path))
    self._sizes.extend(image.shape[:2])
    self._digests.extend(digest)
    return self.different - 1


def sources_of(value: dict) -> tuple[str, list]:
  """(column, the pictures as they are written) of a row; ("", []) without any."""
  columns = [column for column in PICTURES if value.get(column) not in (None, [], "")]
  if len(columns) > 1:
    raise BadRow("two columns of pictures", f"has pictures in both {columns[0]} and {columns[1]}: give one", columns[0])
  if not columns:
    return "", []
  sources = value[columns[0]]
  return columns[0], sources if isinstance(sources, list) else [sources]


def _source(source: Any, home: Path, where: str) -> tuple[str, bytes]:
  """(path, "") or ("", bytes) of a picture as rows have it: a path, bytes, or an object of both, as `datasets` has."""
  if isinstance(source, dict):
    content, path = source.get("bytes"), source.get("path")
    source = content if content is not None else path
  if isinstance(source, bytes):
    return "", source
  if not isinstance(source, str) or not source:
    raise BadRow("no picture", f"is {kind(source)}, but should be a path, or bytes", where)
  if "://" in source:
    if not source.startswith("gs://"):
      raise BadRow("no picture", f"is the address {source[:80]!r}, but pictures are read from files: fetch them first",
                   where)
    return source, b""
  return os.path.join(home, source), b""


def _digest(content: bytes) -> bytes:
  return hashlib.blake2b(content, digest_size=DIGEST).digest()
