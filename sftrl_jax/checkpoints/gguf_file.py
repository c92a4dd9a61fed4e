"""The header of a GGUF file (github.com/ggml-org/ggml, docs/gguf.md): metadata, and where tensors are.

The package `gguf` reads headers too, but keeps an array object for every word of a vocabulary, which takes seconds and
more memory than a small model. Here it only turns the blocks of numbers into floats.
"""

import dataclasses
import math
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

# Format's number -> (name, numbers in a block, bytes of a block); the quantisations that are read.
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
         7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
         12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2)}
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)
AT_ONCE = 1 << 22   # numbers that are turned into floats at a time


@dataclasses.dataclass(frozen=True)
class Entry:
  """One tensor: type by the format's number, shape as Hugging Face has it, and where its bytes are."""

  kind: int
  shape: tuple[int, ...]
  offset: int

  @property
  def bytes(self) -> int:
    _, block, size = TYPES[self.kind]
    return math.prod(self.shape) // block * size


@dataclasses.dataclass(frozen=True)
class GgufFile:
  """A file's metadata by key, and its tensors by name."""

  path: Path
  metadata: dict[str, Any]
  tensors: dict[str, Entry]

  def read(self, name: str) -> np.ndarray:
    """A tensor in f32: floats as they are, blocks multiplied out, some rows at a time."""
    entry = self.tensors[name]
    kind, block, size = TYPES[entry.kind]
    raw = np.fromfile(self.path, np.uint8, entry.bytes, offset=entry.offset)
    if kind == "F32":
      return raw.view(np.float32).reshape(entry.shape)
    import gguf
    rows = raw.reshape(-1, entry.shape[-1] // block * size)
    out, some = np.empty((len(rows), entry.shape[-1]), np.float32), max(1, AT_ONCE // entry.shape[-1])
    for start in range(0, len(rows), some):
      part = np.ascontiguousarray(rows[start : start + some])
      out[start : start + some] = gguf.quants.dequantize(part, gguf.GGMLQuantizationType[kind])
    return out.reshape(entry.shape)


def read(path: Path) -> GgufFile:
  """The header of a file; ValueError where it is none, is cut off, or says what cannot be."""
  size = path.stat().st_size
  if size < 24:
    raise ValueError(f"{path} is no GGUF file: it has {size} bytes.")
  with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    if data[:4] != b"GGUF":
      raise ValueError(f"{path} is no GGUF file: it begins with {data[:4]!r}.")
    version = struct.unpack_from("<I", data, 4)[0]
    if version not in VERSIONS:
      raise ValueError(f"{path} is GGUF of version {version}; known are little-endian files of version "
                       f"{' or '.join(map(str, VERSIONS))}.")
    try:
      metadata, tensors = _Header(data).whole()
    except (struct.error, ValueError, KeyError, IndexError, OverflowError, MemoryError) as error:
      raise ValueError(f"{path} is no sound GGUF file: its header is cut off or damaged ({error}).") from None
  _refuse_unknown(path, tensors)
  last = max((entry.offset + entry.bytes for entry in tensors.values()), default=0)
  if last > size:
    raise ValueError(f"{path} is cut off: its header tells of {last} bytes, and there are {size}. Fetch it again.")
  return GgufFile(path, metadata, tensors)


def _refuse_unknown(path: Path, tensors: dict[str, Entry]) -> None:
  unknown = {name: entry.kind for name, entry in tensors.items() if entry.kind not in TYPES}
  if unknown:
    name, kind = next(iter(unknown.items()))
    raise ValueError(f"{path}: {len(unknown)} tensors are quantised in a way that is not read (type {kind}, {name}); "
                     f"known are {', '.join(kind for kind, _, _ in TYPES.values())}. Take a file of one of these.")
  for name, entry in tensors.items():
    _, block, _ = TYPES[entry.kind]
    if not entry.shape or entry.shape[-1] % block:
      raise ValueError(f"{path}: {name} has shape {list(entry.shape)}, whose rows are no blocks of {block} numbers.")


class _Header:
  """A walk over the bytes of a header; every length is looked at before it is believed."""

  def __init__(self, data):
    self.data, self.at = data, 8

  def whole(self) -> tuple[dict, dict[str, Entry]]:
    tensors, keys = self.number("<Q"), self.number("<Q")
    metadata = {}
    for _ in range(keys):
      name = self.text()
      if name in metadata:
        raise ValueError(f"{name} is there twice")
      metadata[name] = self.value(self.number("<I"))
    told = [self.tensor() for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
      raise ValueError(f"general.alignment is {alignment!r}")
    start = -(-self.at // alignment) * alignment
    found = {name: Entry(kind, shape, start + offset) for name, kind, shape, offset in told}
    if len(found) != len(told):
      raise ValueError("a tensor is there twice")
    return metadata, found

  def number(self, kind: str):
    value = struct.unpack_from(kind, self.data, self.at)[0]
    self.at += struct.calcsize(kind)
    return value

  def text(self) -> str:
    length = self.fits(self.number("<Q"))
    self.at += length
    return self.data[self.at - length : self.at].decode("utf-8", "replace")

  def value(self, kind: int):
    if kind == STRING:
      return self.text()
    if kind != ARRAY:
      return self.number(SCALARS[kind])
    inner, count = self.number("<I"), self.number("<Q")
    if inner in SCALARS:
      width = struct.calcsize(SCALARS[inner])
      self.fits(count * width)
      values = np.frombuffer(self.data[self.at : self.at + count * width], SCALARS[inner])
      self.at += count * width
      return values.tolist()
    self.fits(count)
    return [self.value(inner) for _ in range(count)]

  def tensor(self) -> tuple[str, int, tuple[int, ...], int]:
    name, axes = self.text(), self.number("<I")
    if axes > 4:
      raise ValueError(f"{name} has {axes} axes")
    sizes = [self.number("<Q") for _ in range(axes)]
    kind, offset = self.number("<I"), self.number("<Q")
    return name, kind, tuple(reversed(sizes)), offset   # the format names the fastest axis first

  def fits(self, length: int) -> int:
    if length > len(self.data) - self.at:
      raise ValueError(f"{length} bytes are told of at {self.at} of {len(self.data)}")
    return length
