"""The header of a GGUF file (github.com/ggml-org/ggml, docs/gguf.md): metadata, and the places of tensors.

A large model is several files, NAME-00001-of-00003.gguf and so on; the first of them has the metadata of all.

The package `gguf` also reads headers, but keeps an array object for every token of a vocabulary, which takes seconds
and more memory than a small model. It is used here only to dequantise blocks of numbers.
"""

import dataclasses
import math
import mmap
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

# The format's number of a type -> (name, numbers in a block, bytes of a block), of the types that can be read.
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
         7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
         12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2)}
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
REMOVED = {4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8"}   # which llama.cpp itself once had
STRING, ARRAY = 8, 9
VERSIONS = (1, 2, 3)
LONGEST_NAME = 1000   # letters, of a key or a tensor
OLDER = (b"tjgg", b"lmgg", b"fmgg", b"algg", b"ggjt", b"ggml", b"ggmf", b"ggla")   # of llama.cpp before GGUF
PART = re.compile(r"(.*-)(\d{5})-of-(\d{5})\.gguf")
AT_ONCE = 1 << 22   # numbers that are dequantised at a time


@dataclasses.dataclass(frozen=True)
class GgufTensor:
  """One tensor: its file, type by the format's number, shape in the order of Hugging Face, and offset of its bytes."""

  path: Path
  kind: int
  shape: tuple[int, ...]
  offset: int

  @property
  def bytes(self) -> int:
    _, block, size = TYPES[self.kind]
    return math.prod(self.shape) // block * size


@dataclasses.dataclass(frozen=True)
class GgufFile:
  """A file's metadata by key, and its tensors by name. path: the first one of several parts."""

  path: Path
  metadata: dict[str, Any]
  tensors: dict[str, GgufTensor]

  def read(self, name: str) -> np.ndarray:
    """A tensor in f32. Blocks are dequantised some rows at a time."""
    entry = self.tensors[name]
    kind, block, size = TYPES[entry.kind]
    raw = np.fromfile(entry.path, np.uint8, entry.bytes, offset=entry.offset)
    if kind == "F32":
      return raw.view(np.float32).reshape(entry.shape)
    import gguf
    rows = raw.reshape(-1, entry.shape[-1] // block * size)
    out, step = np.empty((len(rows), entry.shape[-1]), np.float32), max(1, AT_ONCE // entry.shape[-1])
    for start in range(0, len(rows), step):
      part = np.ascontiguousarray(rows[start : start + step])
      out[start : start + step] = gguf.quants.dequantize(part, gguf.GGMLQuantizationType[kind])
    return out.reshape(entry.shape)


def parts(path: Path) -> list[Path]:
  """The files of a model that a file is a part of, by its name and in order; the file alone if it is no part."""
  match = PART.fullmatch(path.name)
  if not match:
    return [path]
  return [path.with_name(f"{match[1]}{number:05}-of-{match[3]}.gguf") for number in range(1, int(match[3]) + 1)]


def read(path: Path) -> GgufFile:
  """The headers of all parts of a model, of which `path` is any one. ValueError for another format, a missing or
  truncated file, or impossible values."""
  file = _read_part(path)
  count = file.metadata.get("split.count", 1)
  if count in (0, 1):
    return file
  names = parts(path)
  if len(names) != count:
    raise ValueError(f"{path} is part {_number(file)} of {count} (split.count), and its name does not tell those of "
                     f"the other parts: name them NAME-00001-of-{count:05}.gguf and so on, or merge them with "
                     "llama.cpp's llama-gguf-split --merge.")
  missing = [part.name for part in names if not part.is_file()]
  if missing:
    raise ValueError(f"{path} is one of {count} parts (split.count), of which {', '.join(missing[:5])} "
                     f"{'is' if len(missing) == 1 else 'are'} missing in {path.parent}: fetch "
                     f"{'it' if len(missing) == 1 else 'them'}.")
  return _joined([file if part == path else _read_part(part) for part in names])


def _joined(files: list[GgufFile]) -> GgufFile:
  tensors = {}
  for number, file in enumerate(files, start=1):
    if (_number(file), file.metadata.get("split.count")) != (number, len(files)):
      raise ValueError(f"{file.path} is part {_number(file)} of {file.metadata.get('split.count', 1)} (split.no, "
                       f"split.count), but its name says {number} of {len(files)}: fetch the parts of one model.")
    twice = sorted(tensors.keys() & file.tensors.keys())
    if twice:
      raise ValueError(f"{file.path} holds {twice[0]}, which another part holds too: fetch the parts of one model.")
    tensors.update(file.tensors)
  wanted = files[0].metadata.get("split.tensors.count", len(tensors))
  if wanted != len(tensors):
    raise ValueError(f"{files[0].path} and its other parts hold {len(tensors)} tensors instead of {wanted} "
                     "(split.tensors.count): fetch the parts of one model.")
  return GgufFile(files[0].path, files[0].metadata, tensors)


def _number(file: GgufFile) -> int | str:
  """Which part a file is, counted from 1."""
  number = file.metadata.get("split.no")
  return number + 1 if type(number) is int else "?"


def _read_part(path: Path) -> GgufFile:
  """The header of one file."""
  size = path.stat().st_size
  if size < 24:
    raise ValueError(f"{path} is no GGUF file: it has {size} bytes.")
  with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    if data[:4] != b"GGUF":
      older = " It is of an older llama.cpp: fetch the model as GGUF." if data[:4] in OLDER else ""
      raise ValueError(f"{path} is no GGUF file: it begins with {data[:4]!r}.{older}")
    version = struct.unpack_from("<I", data, 4)[0]
    if version not in VERSIONS:
      swapped = " (this one is big-endian)" if version & 0xffff == 0 else ""
      raise ValueError(f"{path} is GGUF of version {version}; known are little-endian files of version "
                       f"{', '.join(map(str, VERSIONS))}{swapped}. Fetch the model in one of these.")
    try:
      metadata, tensors = _Header(path, data, version).parse()
    except (struct.error, ValueError, KeyError, IndexError, OverflowError, MemoryError, RecursionError) as error:
      raise ValueError(f"{path} is no sound GGUF file: its header is cut off or damaged ({error}).") from None
  _refuse_unknown(path, tensors)
  _refuse_overlap(path, tensors, size)
  return GgufFile(path, metadata, tensors)


def _refuse_unknown(path: Path, tensors: dict[str, GgufTensor]) -> None:
  unknown = {name: entry.kind for name, entry in tensors.items() if entry.kind not in TYPES}
  if unknown:
    name, kind = next(iter(unknown.items()))
    raise ValueError(f"{path}: {len(unknown)} tensors have an unsupported quantisation (type "
                     f"{REMOVED.get(kind, kind)}, {name}); known are {', '.join(kind for kind, _, _ in TYPES.values())}"
                     ". Take a file of one of these, or make one with llama.cpp's llama-quantize.")
  for name, entry in tensors.items():
    _, block, _ = TYPES[entry.kind]
    if not entry.shape or entry.shape[-1] % block:
      raise ValueError(f"{path}: {name} has shape {list(entry.shape)}, whose rows are no blocks of {block} numbers.")


def _refuse_overlap(path: Path, tensors: dict[str, GgufTensor], size: int) -> None:
  end = 0
  for first, last, name in sorted((entry.offset, entry.offset + entry.bytes, name) for name, entry in tensors.items()):
    if first < end:
      raise ValueError(f"{path} is no sound GGUF file: {name} begins inside another tensor.")
    end = last
  if end > size:
    raise ValueError(f"{path} is cut off: its header describes {end} bytes, and there are {size}. Fetch it again.")


class _Header:
  """A reader over the bytes of a header, which checks every length against the size of the file."""

  def __init__(self, path: Path, data: mmap.mmap, version: int):
    self.path, self.data, self.at = path, data, 8
    self.size = "<I" if version == 1 else "<Q"   # of counts, lengths and axes

  def parse(self) -> tuple[dict, dict[str, GgufTensor]]:
    """(metadata, tensors)."""
    tensors, keys = self.number(self.size), self.number(self.size)
    metadata = {}
    for _ in range(keys):
      name = self.name()
      if name in metadata:
        raise ValueError(f"{name} occurs twice")
      metadata[name] = self.value(self.number("<I"))
    descriptions = [self.tensor() for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
      raise ValueError(f"general.alignment is {alignment!r}")
    start = -(-self.at // alignment) * alignment
    entries = {name: GgufTensor(self.path, kind, shape, start + offset) for name, kind, shape, offset in descriptions}
    if len(entries) != len(descriptions):
      raise ValueError("a tensor occurs twice")
    return metadata, entries

  def number(self, kind: str) -> int | float | bool:
    """The next scalar; kind: its format for `struct`."""
    value = struct.unpack_from(kind, self.data, self.at)[0]
    self.at += struct.calcsize(kind)
    return value

  def text(self) -> str:
    """The next string."""
    length = self.fits(self.number(self.size))
    self.at += length
    return self.data[self.at - length : self.at].decode("utf-8", "replace")

  def name(self) -> str:
    """The next string, which names a key or a tensor."""
    name = self.text()
    if len(name) > LONGEST_NAME:
      raise ValueError(f"a name of {len(name)} letters begins with {name[:60]!r}")
    return name

  def value(self, kind: int) -> Any:
    """The next value of metadata; kind: the format's number of its type."""
    if kind == STRING:
      return self.text()
    if kind != ARRAY:
      return self.number(SCALARS[kind])
    inner, count = self.number("<I"), self.number(self.size)
    if inner in SCALARS:
      width = struct.calcsize(SCALARS[inner])
      self.fits(count * width)
      values = np.frombuffer(self.data[self.at : self.at + count * width], SCALARS[inner])
      self.at += count * width
      return values.tolist()
    self.fits(count)
    return [self.value(inner) for _ in range(count)]

  def tensor(self) -> tuple[str, int, tuple[int, ...], int]:
    """(name, type, shape, offset in the data) of the next tensor."""
    name, axes = self.name(), self.number("<I")
    if axes > 4:
      raise ValueError(f"{name} has {axes} axes")
    sizes = [self.number(self.size) for _ in range(axes)]
    kind, offset = self.number("<I"), self.number("<Q")
    return name, kind, tuple(reversed(sizes)), offset   # the format names the fastest axis first

  def fits(self, length: int) -> int:
    """The length; ValueError if the file ends before it."""
    if length > len(self.data) - self.at:
      raise ValueError(f"{length} bytes are expected at {self.at} of {len(self.data)}")
    return length
