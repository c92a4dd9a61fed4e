"""Safetensors files (https://github.com/huggingface/safetensors), read part by part and written tensor by tensor.

A file is 8 bytes of length, a JSON header {name: {dtype, shape, data_offsets}}, and the numbers, little-endian and
row-major. The package of that name is not used: it maps whole files into memory, and writes all tensors at once.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

FLOATS = {"F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
          "BF16": np.dtype(ml_dtypes.bfloat16)}
SIZES = {**{name: dtype.itemsize for name, dtype in FLOATS.items()}, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2,
         "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
NAMES = {dtype: name for name, dtype in FLOATS.items()}
OTHERS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")   # files of weights that are not read
LONGEST_NAME, MOST_AXES = 1000, 8
LONGEST_HEADER = 100_000_000   # bytes, the format's own limit
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True)
class TensorEntry:
  """One tensor: file, offset in bytes, shape, and the format's name of its dtype."""

  path: Path
  offset: int
  shape: tuple[int, ...]
  dtype: str

  def read(self) -> np.ndarray:
    """The tensor as a memory map of the file, which reads what is accessed."""
    if self.dtype not in FLOATS:
      raise ValueError(f"{self.path}: a tensor is of dtype {self.dtype}; known are {', '.join(FLOATS)}. Dequantise "
                       "the weights first.")
    if not math.prod(self.shape):
      return np.empty(self.shape, FLOATS[self.dtype])
    return np.memmap(self.path, FLOATS[self.dtype], "r", self.offset, self.shape)


def entries(directory: Path) -> dict[str, TensorEntry]:
  """{name: entry} of a directory's model.safetensors, or of the files its index names. Only headers are read."""
  if (directory / SINGLE).is_file():
    return header(directory / SINGLE)
  if (directory / INDEX).is_file():
    return _indexed(directory)
  others = sorted(path.name for path in directory.iterdir() if path.suffix in OTHERS)
  if others:
    raise ValueError(f"{directory} holds {', '.join(others[:3])} and no {SINGLE}: such files can run code when they "
                     "are read, so they are not. Take a version with safetensors, or make one where you trust the "
                     "file: transformers' AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW).")
  raise ValueError(f"{directory} holds neither {SINGLE} nor {INDEX}: it has no weights.")


def header(path: Path) -> dict[str, TensorEntry]:
  """{name: entry} of one file; ValueError for a truncated file or impossible values."""
  size = path.stat().st_size
  with path.open("rb") as file:
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(size - 8, LONGEST_HEADER):
      raise ValueError(f"{path} is no whole safetensors file: it has {size} bytes, and its header claims {length}.")
    text = file.read(length)
  try:
    table = json.loads(text)
    entries = {name: _entry(path, 8 + length, name, value) for name, value in table.items() if name != "__metadata__"}
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
    raise ValueError(f"{path} is no sound safetensors file: its header is damaged ({error}).") from None
  spans = sorted((entry.offset, entry.offset + _bytes(entry), name) for name, entry in entries.items())
  end = 8 + length
  for first, last, name in spans:
    if first < end:
      raise ValueError(f"{path} is no sound safetensors file: {name} begins inside another tensor.")
    end = last
  if end > size:
    raise ValueError(f"{path} is cut off: its header describes {end} bytes, and there are {size}. Fetch it again.")
  return entries


def _entry(path: Path, start: int, name: str, value: dict) -> TensorEntry:
  if len(name) > LONGEST_NAME or len(value["shape"]) > MOST_AXES:
    raise ValueError(f"{name[:60]} has a name of {len(name)} letters and {len(value['shape'])} axes")
  first, last = value["data_offsets"]
  entry = TensorEntry(path, start + first, tuple(value["shape"]), value["dtype"])
  if any(type(number) is not int or number < 0 for number in (first, last, *entry.shape)):
    raise ValueError(f"{name} has shape {value['shape']} at {value['data_offsets']}")
  if entry.dtype in SIZES and last - first != _bytes(entry):
    raise ValueError(f"{name} of dtype {entry.dtype} and shape {list(entry.shape)} takes {last - first} bytes")
  return entry


def _bytes(entry: TensorEntry) -> int:
  return math.prod(entry.shape) * SIZES.get(entry.dtype, 0)


def _indexed(directory: Path) -> dict[str, TensorEntry]:
  """The tensors of an index, from its files; ValueError for a file that is missing or in another directory."""
  path = directory / INDEX
  try:
    file_of = json.loads(path.read_text())["weight_map"]
    pairs = [(str(name), Path(file)) for name, file in file_of.items()]
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise ValueError(f"{path} is damaged: it holds no weight_map of names and files ({error}).") from None
  files = sorted({file for _, file in pairs})
  strays = [str(file) for file in files if file.name != str(file)]
  if strays:
    raise ValueError(f"{path} names {', '.join(strays[:3])}: an index may only name files beside it.")
  missing = [str(file) for file in files if not (directory / file).is_file()]
  if missing:
    raise ValueError(f"{directory} lacks {', '.join(missing[:5])}, which its index names ({len(missing)} of "
                     f"{len(files)} files): fetch them.")
  headers = {file: header(directory / file) for file in files}
  return {name: headers[file][name] for name, file in pairs if name in headers[file]}


def write(path: Path, shapes: Mapping[str, tuple], dtype: np.dtype, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
  """Writes a file. shapes: {name: shape}; tensors: (name, array) in the same order, one at a time."""
  table, end = {"__metadata__": {"format": "pt"}}, 0
  for name, shape in shapes.items():
    begin, end = end, end + math.prod(shape) * dtype.itemsize
    table[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
  text = json.dumps(table, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)
  names = iter(shapes)
  with path.open("wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for name, array in tensors:
      if name != next(names) or array.shape != tuple(shapes[name]) or array.dtype != dtype:
        raise ValueError(f"{path}: {name} {array.dtype}{array.shape} is not what the header says.")
      file.write(np.ascontiguousarray(array).view(np.uint8).data)
    if file.tell() != 8 + len(text) + end:
      raise ValueError(f"{path}: fewer tensors than the header says.")
