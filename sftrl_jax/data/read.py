"""Rows as they are written: JSON lines, JSON arrays, Parquet, directories of such files, data sets of the hub.

JSON is read by our own loop (lines.py). What is columnar already is left to pyarrow, and the hub to `datasets`.
"""

import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sftrl_jax.data.lines import BadRow, Raw, array, cause, faulty, first_byte, lines
from sftrl_jax.data.pictures.parts import PICTURES

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
BESIDE = ("system", "tools", "chat_template_kwargs")   # what of a row a chat template may get besides (formats.py)
HUB = re.compile(r"[\w.-]+/[\w.-]+")
SPLITS = {"train": "train", "training": "train", "test": "test", "validation": "validation", "valid": "validation",
          "val": "validation", "dev": "validation", "eval": "test"}
INSTALL = "pip install 'sftrl-jax[hf]'"


class Columns(NamedTuple):
  """The columns that a row may be read from, and those it needs in words. every: all others are read too."""

  names: tuple[str, ...]
  needed: str
  every: bool = False


EXAMPLES = Columns(("messages", "conversations", "prompt", "completion", "text", "chosen", "rejected"),
                   "`messages` (or `conversations`), or `prompt` and `completion`, or `text`")


def located(path: str) -> str:
  """The same path as it is from any directory; the id of a data set of the hub, owner/name, stays as it is."""
  here = Path(path).expanduser()
  hub = HUB.fullmatch(path) and not here.exists() and here.suffix not in SUFFIXES and not here.parent.is_dir()
  return path if hub else str(here.resolve())


def read(path: str, subset: str = "", split: str = "train", columns: Columns = EXAMPLES) -> Iterator[Raw]:
  """Every row of a file, of the files of a directory by name, or of a data set of the hub.

  ValueError for what cannot be read at all; what is wrong in one row is its `fault`. subset, split: of a data set.
  columns: of a table, where others are left unread
  """
  here = Path(path).expanduser()
  if here.is_dir() and (_saved(here) or (here / "dataset_dict.json").is_file()):
    yield from _arrow(here, split, columns)
  elif here.exists():
    for file in files(here):
      yield from _file(file, columns)
  elif HUB.fullmatch(path) and here.suffix not in SUFFIXES:
    yield from _hub(path, subset, split, columns)
  else:
    there = sorted(file.name for file in here.parent.glob("*")) if here.parent.is_dir() else []
    beside = f" In {here.parent} there is: {', '.join(there[:8]) or 'nothing'}." if here.parent.is_dir() else ""
    raise ValueError(f"config.data.path is {path!r}, but there is no such file or directory.{beside}")


def files(path: Path) -> list[Path]:
  """The files that hold rows: the path itself, or those of a directory, hidden ones apart, in the order of names."""
  if path.is_file():
    if path.suffix not in SUFFIXES:
      raise ValueError(f"config.data.path is {str(path)!r}, but rows are read from {', '.join(SUFFIXES)}: rename the "
                       "file if it is one of these, or unpack it.")
    return [path]
  inside = [file for file in sorted(path.rglob("*")) if file.is_file()]
  files = [file for file in inside if file.suffix in SUFFIXES
           and not any(part.startswith(".") for part in file.relative_to(path).parts)]
  if not files:
    raise ValueError(f"config.data.path is {str(path)!r}, a directory without any {', '.join(SUFFIXES)} file; it has "
                     f"{', '.join(file.name for file in inside[:8]) or 'no files'}.")
  words = {word for file in files for word in re.split(r"[^a-z]+", str(file.relative_to(path)).lower())}
  splits = sorted({SPLITS[word] for word in words if word in SPLITS})
  if len(splits) > 1:
    raise ValueError(f"config.data.path is {str(path)!r}, which has files of several splits ({', '.join(splits)}), and "
                     "all of them would be trained on: give the file, or the directory, of one.")
  return files


def _file(path: Path, columns: Columns) -> Iterator[Raw]:
  try:
    if path.suffix == ".parquet":
      yield from _parquet(path, columns)
    elif path.suffix == ".json" and first_byte(path) == b"[":
      yield from array(path)
    else:
      yield from lines(path)
  except OSError as error:
    raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error


def _parquet(path: Path, columns: Columns) -> Iterator[Raw]:
  pyarrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
  try:
    with parquet.ParquetFile(path) as file:
      names = tuple(file.schema_arrow.names)
      wanted = _wanted(str(path), names, columns)
      number = 0
      size = 16 if any(name in PICTURES for name in wanted) else 256
      for batch in file.iter_batches(batch_size=size, columns=wanted):
        for index in range(batch.num_rows):   # a row at a time, so that text which is no UTF-8 has a number
          number += 1
          try:
            yield _row(str(path), number, batch.slice(index, 1).to_pylist()[0], names, columns)
          except UnicodeDecodeError as error:
            yield faulty(path, number, "no UTF-8", f"its text is no UTF-8 at byte {error.start + 1}")
  except (pyarrow.ArrowException, OSError) as error:
    raise ValueError(f"{path} cannot be read as Parquet: {cause(error)}.") from error


def _hub(name: str, subset: str, split: str, columns: Columns) -> Iterator[Raw]:
  """A data set of the hub, fetched into the cache of `datasets` and read from there."""
  datasets = needed("datasets")
  if _offline():
    datasets.config.HF_HUB_OFFLINE = True   # what is in the cache will do, and nothing is tried again and again
  try:
    rows = datasets.load_dataset(name, subset or None, split=split)
  except (OSError, ValueError, RuntimeError, KeyError) as error:
    raise ValueError(
        f"config.data.path is {name!r}: there is no such file here, and the data set of the hub could not be had "
        f"(subset {subset!r}, split {split!r}): {cause(error)}. Without network, give a .jsonl or .parquet "
        "file.") from error
  yield from _dataset(rows, f"{name} ({split})", columns)


def _offline() -> bool:
  """Whether nobody here knows where the hub is."""
  if {"http", "https", "all"} & urllib.request.getproxies().keys():
    return False
  try:
    socket.getaddrinfo(urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname, 443)
  except OSError:
    return True
  return False


def _arrow(path: Path, split: str, columns: Columns) -> Iterator[Raw]:
  """A directory written by `save_to_disk` of `datasets`."""
  datasets = needed("datasets")
  try:
    rows = datasets.load_from_disk(str(path))
  except (OSError, ValueError) as error:
    raise ValueError(f"{path} cannot be read as a data set saved to disk: {cause(error)}.") from error
  if isinstance(rows, dict):
    if split not in rows:
      raise ValueError(f"config.data.split is {split!r}, but {path} has {', '.join(rows)}.")
    rows = rows[split]
  yield from _dataset(rows, str(path), columns)


def _dataset(rows, name: str, columns: Columns) -> Iterator[Raw]:
  names = tuple(rows.column_names)
  wanted = _wanted(name, names, columns)
  for number, value in enumerate(_undecoded(rows.select_columns(wanted), wanted), start=1):
    yield _row(name, number, value, names, columns)


def _undecoded(rows, names: Sequence[str]) -> Iterator[dict]:
  """The rows of a data set, pictures as they are encoded."""
  if not any(name in PICTURES for name in names):
    yield from rows
    return
  for table in rows.with_format("arrow").iter(batch_size=16):
    yield from (table.slice(index, 1).to_pylist()[0] for index in range(table.num_rows))


def _row(name: str, number: int, value: dict, names: tuple[str, ...], columns: Columns) -> Raw:
  """A row of a table, with JSON's types. names: of the table's columns; of those that are not read it is not known
  whether they are null."""
  try:
    value = {key: _native(item, key, key in PICTURES and not columns.every) for key, item in value.items()}
  except BadRow as error:
    return Raw(name, number, {}, names, error)
  return Raw(name, number, value, tuple(key for key in names if key not in value or value[key] is not None))


def _native(value: Any, where: str, binary: bool = False) -> Any:
  """A value of a table as JSON has it: bytes are UTF-8, maps are objects, and a key without a value is none: a table
  gives each object the keys of all. BadRow for bytes that are no text, unless they may be `binary`."""
  if isinstance(value, bytes) and binary:
    return value
  if isinstance(value, (bytes, bytearray)):
    try:
      return bytes(value).decode("utf-8-sig")
    except UnicodeDecodeError as error:
      raise BadRow("binary", f"is binary, but should be text: byte {error.start + 1} (0x{value[error.start]:02x}) is "
                             "no UTF-8", where) from error
  if isinstance(value, dict):
    return {key: _native(item, f"{where}.{key}", binary) for key, item in value.items() if item is not None}
  if isinstance(value, list) and value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
    return _native({str(key): item for key, item in value}, where, binary)
  if isinstance(value, (list, tuple)):
    return [_native(item, f"{where}[{number}]", binary) for number, item in enumerate(value)]
  return value.item() if hasattr(value, "item") else value   # a number of numpy


def _wanted(name: str, names: tuple[str, ...], columns: Columns) -> list[str]:
  """The columns to read: what no row is read from is left where it is."""
  if not any(column in columns.names for column in names):
    raise ValueError(f"{name} has the columns {', '.join(names) or '(none)'}; a row needs {columns.needed}.")
  return [column for column in names if columns.every or column in (*columns.names, *BESIDE, *PICTURES)]


def _saved(path: Path) -> bool:
  return (path / "dataset_info.json").is_file() and (path / "state.json").is_file()


def needed(name: str) -> ModuleType:
  """A library of the extra `hf`; ValueError that says how to get it."""
  import importlib
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ValueError(f"this needs {name.partition('.')[0]}, which is not installed ({error}): {INSTALL}, or use a "
                     ".jsonl file.") from error
