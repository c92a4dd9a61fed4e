"""Rows of JSON: lines or an array, one row at a time, each with the number of its line and its mistake.

JSON is read by our own loop. The `datasets` library would copy the file to ~/.cache first, fit all rows into the schema
of the first ones (a column that most rows lack, or that is text here and a list there, ends in an error about Arrow's
types), and name a broken row by no number. A line loop knows file and line of every mistake, and holds one row at a
time.
"""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST = 16 * 2**20   # bytes of a line: a longer one is no row, but a file without line ends
BOM = b"\xef\xbb\xbf"   # what Windows tools put before a text, and a concatenation of their files before each part


class BadRow(ValueError):
  """One row that cannot be used.

  reason: the same words for every row with this mistake. message: what is wrong with this row.
  """

  def __init__(self, reason: str, message: str, column: str = ""):
    super().__init__(message)
    self.reason, self.message, self.column = reason, message, column


@dataclasses.dataclass(frozen=True, slots=True)
class Raw:
  """One row as it is written. number: of its line or row, from 1. value: what was read of it; columns: the names of all
  that is not null, read or not. fault: why there is no value."""

  file: str
  number: int
  value: dict
  columns: tuple[str, ...] = ()
  fault: BadRow | None = None


def lines(path: Path) -> Iterator[Raw]:
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
        yield faulty(path, number, "too long", f"the line has {size:,} bytes, but a row has at most {MOST:,}: one row "
                                               "is one line, and ends in a line end")
        continue
      line = line.removeprefix(BOM)
      if not line.strip():
        continue
      if first and line.lstrip().startswith(b"["):
        raise ValueError(f"{path}, row {number}: begins with '[', but a line is one row, an object such as "
                         '{"messages": [...]}: a JSON array of rows is read from a file named .json.')
      first = False
      yield _line(path, number, line)


def _line(path: Path, number: int, line: bytes) -> Raw:
  if b"\0" in line:
    return faulty(path, number, "no text", f"byte {line.index(0) + 1} of the line is NUL: this is no text file, or "
                                           "one in UTF-16; save it as UTF-8")
  try:
    value = json.loads(line.decode().rstrip(), object_pairs_hook=_unique)
  except UnicodeDecodeError as error:
    return faulty(path, number, "no UTF-8", f"byte {error.start + 1} of the line (0x{line[error.start]:02x}) is no "
                                            "UTF-8: save the file as UTF-8")
  except BadRow as error:
    return Raw(str(path), number, {}, fault=error)
  except (ValueError, RecursionError) as error:
    return faulty(path, number, "no JSON", f"the line is no JSON: {cause(error)}")
  return _object(path, number, value)


def array(path: Path) -> Iterator[Raw]:
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
  decoder, blank = json.JSONDecoder(object_pairs_hook=_unique), re.compile(r"\s*")
  place, number = blank.match(text, text.index("[") + 1).end(), 0
  while text[place : place + 1] != "]":
    number += 1
    try:
      try:
        fault = None
        value, place = decoder.raw_decode(text, place)
      except BadRow as error:   # the next row begins behind it all the same
        fault = error
        value, place = json.JSONDecoder().raw_decode(text, place)
      place = blank.match(text, place).end()
      if text[place : place + 1] not in (",", "]"):
        raise ValueError("a comma, or ']' at the end, should follow")
    except (ValueError, RecursionError) as error:
      line = text.count("\n", 0, getattr(error, "pos", place)) + 1
      raise ValueError(f"{path}, row {number} (line {line}): the array is no JSON: {cause(error)}.") from error
    yield Raw(str(path), number, {}, fault=fault) if fault else _object(path, number, value)
    if text[place] == ",":
      place = blank.match(text, place + 1).end()
  if text[place + 1 :].strip():
    raise ValueError(f"{path}: text follows the end of the array, beginning {text[place + 1 :].strip()[:40]!r}: a file "
                     "is one array.")


def _object(path: Path, number: int, value: Any) -> Raw:
  if not isinstance(value, dict):
    kind = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
    return faulty(path, number, "no object", f'is {kind}, but a row is an object such as {{"messages": [...]}}')
  return Raw(str(path), number, value, tuple(key for key, item in value.items() if item is not None))


def faulty(path: Path | str, number: int, reason: str, message: str) -> Raw:
  """A row without a value."""
  return Raw(str(path), number, {}, fault=BadRow(reason, message))


def _unique(pairs: list[tuple[str, Any]]) -> dict:
  """An object of JSON; BadRow for a key that it has twice, of which one would be lost."""
  value = dict(pairs)
  if len(value) < len(pairs):
    keys = [key for key, _ in pairs]
    key = next(key for place, key in enumerate(keys) if key in keys[:place])
    raise BadRow("a key twice", f"has the key {key[:60]!r} twice in one object", key)
  return value


def first_byte(path: Path) -> bytes:
  with path.open("rb") as file:
    while byte := file.read(1):
      if byte not in b" \t\r\n" + BOM:
        return byte
  return b""


def cause(error: Exception) -> str:
  """The first line of another library's message."""
  if isinstance(error, json.JSONDecodeError):
    return f"{error.msg} at character {error.colno}"
  if isinstance(error, RecursionError):
    return "it is nested too deeply"
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
