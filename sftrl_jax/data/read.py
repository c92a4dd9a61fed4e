"""Rows as they are written: JSON lines, JSON arrays, Parquet, directories of such files, data sets of the hub.

JSON is read by our own loop, one line at a time. The `datasets` library would copy the file to ~/.cache first, fit all
rows into the schema of the first ones (a column that most rows lack, or that is text here and a list there, ends in an
error about Arrow's types), and name a broken row by no number. A line loop knows file and line of every mistake,
and holds one row at a time. What is columnar already is left to pyarrow, and the hub to `datasets`.
"""

import dataclasses
import json
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
COLUMNS = ("messages", "conversations", "prompt", "completion", "text")   # what a row may be read from (formats.py)
MOST = 16 * 2**20   # bytes of a line: a longer one is no row, but a file without line ends
HUB = re.compile(r"[\w.-]+/[\w.-]+")
SPLITS = {"train": "train", "training": "train", "test": "test", "validation": "validation", "valid": "validation",
          "val": "validation", "dev": "validation", "eval": "test"}
INSTALL = "pip install 'sftrl-jax[hf]'"


class BadRow(ValueError):
  """One row that cannot be used.

  reason: the same words for every row with this mistake. message: what is wrong with this row.
  """

  def __init__(self, reason: str, message: str, column: str = ""):
    super().__init__(message)
    self.reason, self.message, self.column = reason, message, column


@dataclasses.dataclass(frozen=True, slots=True)
class Raw:
  """One row as it is written. number: of its line or row, from 1. columns: all it has, `value` those of COLUMNS that
  it has. fault: why there is no value."""

  file: str
  number: int
  value: dict
  columns: tuple[str, ...] = ()
  fault: BadRow | None = None


def located(path: str) -> str:
  """The same path as it is from any directory; the id of a data set of the hub, owner/name, stays as it is."""
  here = Path(path).expanduser()
  hub = HUB.fullmatch(path) and not here.exists() and here.suffix not in SUFFIXES and not here.parent.is_dir()
  return path if hub else str(here.resolve())


def read(path: str, subset: str = "", split: str = "train") -> Iterator[Raw]:
  """Every row of a file, of the files of a directory by name, or of a data set of the hub.

  ValueError for what cannot be read at all; what is wrong in one row is its `fault`. subset, split: of a data set.
  """
  here = Path(path).expanduser()
  if here.is_dir() and (_saved(here) or (here / "dataset_dict.json").is_file()):
    yield from _arrow(here, split)
  elif here.exists():
    for file in files(here):
      yield from _file(file)
  elif HUB.fullmatch(path) and here.suffix not in SUFFIXES:
    yield from _hub(path, subset, split)
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


def _file(path: Path) -> Iterator[Raw]:
  try:
    if path.suffix == ".parquet":
      yield from _parquet(path)
    elif path.suffix == ".json" and _first_byte(path) == b"[":
      yield from _array(path)
    else:
      yield from _lines(path)
  except OSError as error:
    raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error


def _lines(path: Path) -> Iterator[Raw]:
  """JSON lines. Blank lines are no rows, but they count as lines."""
  with path.open("rb") as file:
    number, first = 0, True
    while line := file.readline(MOST + 1):
      number += 1
      if len(line) > MOST and not line.endswith(b"\n"):
        size = len(line)
        while (more := file.readline(MOST)) and not more.endswith(b"\n"):
          size += len(more)
        size += len(more)
        yield _faulty(path, number, "too long", f"the line has {size:,} bytes, but a row has at most {MOST:,}: one row "
                                                "is one line, and ends in a line end")
        continue
      line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
      if not line.strip():
        continue
      if first and line.lstrip().startswith(b"["):
        raise ValueError(f"{path}, row {number}: begins with '[', but a line is one row, an object such as "
                         '{"messages": [...]}: a JSON array of rows is read from a file named .json.')
      first = False
      yield _line(path, number, line)


def _line(path: Path, number: int, line: bytes) -> Raw:
  if b"\0" in line:
    return _faulty(path, number, "no text", f"byte {line.index(0) + 1} of the line is NUL: this is no text file, or "
                                            "one in UTF-16; save it as UTF-8")
  try:
    value = json.loads(line.decode().rstrip())
  except UnicodeDecodeError as error:
    return _faulty(path, number, "no UTF-8", f"byte {error.start + 1} of the line (0x{line[error.start]:02x}) is no "
                                             "UTF-8: save the file as UTF-8")
  except (ValueError, RecursionError) as error:
    return _faulty(path, number, "no JSON", f"the line is no JSON: {_told(error)}")
  return _object(path, number, value)


def _array(path: Path) -> Iterator[Raw]:
  """A JSON array of objects, decoded one at a time; what is no JSON ends it, since where the next row begins is not
  known."""
  written = path.read_bytes()
  try:
    text = written.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = written.count(b"\n", 0, error.start) + 1
    raise ValueError(f"{path}, line {line}: byte {error.start + 1} of the file (0x{written[error.start]:02x}) is no "
                     "UTF-8: save the file as UTF-8.") from error
  del written
  decoder, blank = json.JSONDecoder(), re.compile(r"\s*")
  place, number = blank.match(text, text.index("[") + 1).end(), 0
  while text[place : place + 1] != "]":
    number += 1
    try:
      value, place = decoder.raw_decode(text, place)
      place = blank.match(text, place).end()
      if text[place : place + 1] not in (",", "]"):
        raise ValueError("a comma, or ']' at the end, should follow")
    except (ValueError, RecursionError) as error:
      line = text.count("\n", 0, getattr(error, "pos", place)) + 1
      raise ValueError(f"{path}, row {number} (line {line}): the array is no JSON: {_told(error)}.") from error
    yield _object(path, number, value)
    if text[place] == ",":
      place = blank.match(text, place + 1).end()
  if text[place + 1 :].strip():
    raise ValueError(f"{path}: text follows the end of the array, beginning {text[place + 1 :].strip()[:40]!r}: a file "
                     "is one array.")


def _parquet(path: Path) -> Iterator[Raw]:
  pyarrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
  try:
    with parquet.ParquetFile(path) as file:
      names = tuple(file.schema_arrow.names)
      wanted = _wanted(str(path), names)
      number = 0
      for batch in file.iter_batches(batch_size=256, columns=wanted):
        for index in range(batch.num_rows):   # a row at a time, so that text which is no UTF-8 has a number
          number += 1
          try:
            value = batch.slice(index, 1).to_pylist()[0]
          except UnicodeDecodeError as error:
            yield _faulty(path, number, "no UTF-8", f"its text is no UTF-8 at byte {error.start + 1}")
            continue
          yield Raw(str(path), number, value, names)
  except (pyarrow.ArrowException, OSError) as error:
    raise ValueError(f"{path} cannot be read as Parquet: {_told(error)}.") from error


def _hub(name: str, subset: str, split: str) -> Iterator[Raw]:
  """A data set of the hub, fetched into the cache of `datasets` and read from there."""
  datasets = needed("datasets")
  if _offline():
    datasets.config.HF_HUB_OFFLINE = True   # what is in the cache will do, and nothing is tried again and again
  try:
    rows = datasets.load_dataset(name, subset or None, split=split)
  except (OSError, ValueError, RuntimeError, KeyError) as error:
    raise ValueError(
        f"config.data.path is {name!r}: there is no such file here, and the data set of the hub could not be had "
        f"(subset {subset!r}, split {split!r}): {_told(error)}. Without network, give a .jsonl or .parquet "
        "file.") from error
  yield from _dataset(rows, f"{name} ({split})")


def _offline() -> bool:
  """Whether nobody here knows where the hub is."""
  if {"http", "https", "all"} & urllib.request.getproxies().keys():
    return False
  try:
    socket.getaddrinfo(urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname, 443)
  except OSError:
    return True
  return False


def _arrow(path: Path, split: str) -> Iterator[Raw]:
  """A directory written by `save_to_disk` of `datasets`."""
  datasets = needed("datasets")
  try:
    rows = datasets.load_from_disk(str(path))
  except (OSError, ValueError) as error:
    raise ValueError(f"{path} cannot be read as a data set saved to disk: {_told(error)}.") from error
  if isinstance(rows, dict):
    if split not in rows:
      raise ValueError(f"config.data.split is {split!r}, but {path} has {', '.join(rows)}.")
    rows = rows[split]
  yield from _dataset(rows, str(path))


def _dataset(rows, name: str) -> Iterator[Raw]:
  columns = tuple(rows.column_names)
  for number, value in enumerate(rows.select_columns(_wanted(name, columns)), start=1):
    yield Raw(name, number, value, columns)


def _wanted(name: str, columns: tuple[str, ...]) -> list[str]:
  """The columns to read: pictures and the like are left where they are."""
  wanted = [column for column in columns if column in COLUMNS]
  if not wanted:
    raise ValueError(f"{name} has the columns {', '.join(columns) or '(none)'}; a row needs {NEEDED}.")
  return wanted


NEEDED = "`messages` (or `conversations`), or `prompt` and `completion`, or `text`"


def _object(path: Path, number: int, value) -> Raw:
  if not isinstance(value, dict):
    kind = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
    return _faulty(path, number, "no object", f'is {kind}, but a row is an object such as {{"messages": [...]}}')
  return Raw(str(path), number, {key: value[key] for key in COLUMNS if key in value}, tuple(value))


def _faulty(path: Path, number: int, reason: str, message: str) -> Raw:
  return Raw(str(path), number, {}, fault=BadRow(reason, message))


def _saved(path: Path) -> bool:
  return (path / "dataset_info.json").is_file() and (path / "state.json").is_file()


def _first_byte(path: Path) -> bytes:
  with path.open("rb") as file:
    while byte := file.read(1):
      if byte not in b" \t\r\n\xef\xbb\xbf":
        return byte
  return b""


def _told(error: Exception) -> str:
  """The first line of another library's message."""
  if isinstance(error, json.JSONDecodeError):
    return f"{error.msg} at character {error.colno}"
  if isinstance(error, RecursionError):
    return "it is nested too deeply"
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")


def needed(name: str) -> ModuleType:
  """A library of the extra `hf`; ValueError that says how to get it."""
  import importlib
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ValueError(f"this needs {name.partition('.')[0]}, which is not installed ({error}): {INSTALL}, or use a "
                     ".jsonl file.") from error
