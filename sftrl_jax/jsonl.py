"""Files of JSON lines that a run writes step by step and that a resumed run continues.

Where files can be appended to, NAME.jsonl is one file. In a bucket it is a list of parts NAME.00001.jsonl,
NAME.00002.jsonl and so on, each written whole and read in the order of their numbers. A workdir with parts gets more
parts wherever it is copied to; a NAME.jsonl beside them is older than they are.
"""

import json
import math
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sftrl_jax import paths


def append_line(path: Path, line: dict) -> None:
  """Appends one line to a file of this machine."""
  with paths.named_errors(path), path.open("a") as file:
    file.write(text_of(line))


def text_of(line: dict) -> str:
  """The line as JSON, with its line end."""
  return json.dumps(_finite(line)) + "\n"


def _finite(value: Any) -> Any:
  """JSON has no NaN or infinity: they are written as text, which no reader takes for a number."""
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  if isinstance(value, dict):
    return {key: _finite(item) for key, item in value.items()}
  return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def files(path: Path) -> list[Path]:
  """The files with the lines of NAME.jsonl, in order."""
  return [*([path] if path.is_file() else []), *(part for _, part in parts(path))]


def parts(path: Path) -> list[tuple[int, Path]]:
  """[(number, part)] of NAME.jsonl, in order."""
  name = re.compile(rf"{re.escape(path.stem)}\.(\d{{5,}})\.jsonl")
  siblings = path.parent.iterdir() if path.parent.is_dir() else ()
  return sorted((int(match[1]), part) for part in siblings if (match := name.fullmatch(part.name)))


def read_text(path: Path) -> str:
  """The text of a file of lines; bytes that are no UTF-8 are replaced."""
  return path.read_bytes().decode(errors="replace")


def remove(path: Path) -> None:
  """Deletes NAME.jsonl and its parts."""
  for file in files(path):
    file.unlink(missing_ok=True)


def cut(path: Path, keep: Callable[[dict], bool]) -> None:
  """Drops lines for which keep(line) is false, and torn lines. Parts without such lines are not written again.

  Each file is replaced in one move, so that an interrupted cut can be repeated.
  """
  single = path if paths.is_here(path) else None
  for file in files(path):
    lines = file.read_text().splitlines()
    kept = [line for line in lines if _is_kept(line, keep)]
    text = "".join(line + "\n" for line in kept)
    if file != single and not kept:
      file.unlink()
    elif file == single or len(kept) < len(lines):
      paths.write_whole(file, text)


def _is_kept(line: str, keep: Callable[[dict], bool]) -> bool:
  try:
    return keep(json.loads(line))
  except (ValueError, KeyError, TypeError):
    return False


class Writer:
  """Writes lines of one NAME.jsonl at once, or holds them until `close_part` where files cannot be appended to."""

  def __init__(self, path: Path):
    self.path, self._held, self._parted, self._size = path, [], None, None
    self._lock = threading.Lock()   # the thread of a signal may close a part while the main thread writes

  @property
  def parted(self) -> bool:
    """Whether lines are written in parts; found at the first use, for the directory may not exist before."""
    if self._parted is None:
      self._parted = not paths.is_here(self.path) or bool(parts(self.path))
    return self._parted

  def write(self, line: dict) -> None:
    """Appends the line, or holds it for the next part."""
    if not self.parted:
      append_line(self.path, line)
      return
    text = text_of(line)
    before = self.size
    with self._lock:
      self._held.append(text)
      self._size = before + len(text.encode())

  def close_part(self) -> None:
    """Writes the held lines as a part, if there are any. They stay held until the part is written."""
    with self._lock:
      if not self._held:
        return
      number = max((number for number, _ in parts(self.path)), default=0) + 1
      part = self.path.with_name(f"{self.path.stem}.{number:05d}.jsonl")
      paths.write_whole(part, "".join(self._held))
      self._held.clear()

  @property
  def size(self) -> int:
    """Bytes so far, those of held lines included."""
    if not self.parted:
      return paths.size(self.path) if self.path.is_file() else 0
    if self._size is None:
      self._size = sum(map(paths.size, files(self.path)))
    return self._size
