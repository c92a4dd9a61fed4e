"""Files of JSON lines that a run writes step by step and that a resumed run goes on with.

Where files can be appended to, NAME.jsonl is one file. In a bucket it is NAME.00001.jsonl, NAME.00002.jsonl and so on:
parts that are each written whole, to be read in the order of their numbers. A workdir that has parts keeps to them
wherever it is copied to; a NAME.jsonl beside them is older than they are.
"""

import json
import math
import re
import threading

from sftrl_jax import paths


def append_line(path, line: dict) -> None:
  with path.open("a") as file:
    file.write(text_of(line))


def text_of(line: dict) -> str:
  return json.dumps(_finite(line)) + "\n"


def _finite(value):
  """JSON has no NaN or infinity: they are written as text, which no reader can mistake for a number."""
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  if isinstance(value, dict):
    return {key: _finite(item) for key, item in value.items()}
  return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def files(path) -> list:
  """The files that hold the lines of NAME.jsonl, in order."""
  return [*([path] if path.is_file() else []), *(part for _, part in parts(path))]


def parts(path) -> list[tuple[int, object]]:
  """[(number, part)] of NAME.jsonl, in order."""
  name = re.compile(rf"{re.escape(path.stem)}\.(\d{{5,}})\.jsonl")
  there = path.parent.iterdir() if path.parent.is_dir() else ()
  return sorted((int(found[1]), part) for part in there if (found := name.fullmatch(part.name)))


def read_text(path) -> str:
  """What a file of lines holds; bytes that are no text are replaced."""
  return path.read_bytes().decode(errors="replace")


def remove(path) -> None:
  """NAME.jsonl and its parts."""
  for file in files(path):
    file.unlink(missing_ok=True)


def cut(path, keep) -> None:
  """Drops the lines for which keep(line) is false, and those that are torn. What has none of them stays as it is.

  Each file is replaced in one move, so that a cut can be interrupted and made again.
  """
  single = path if paths.is_here(path) else None
  for file in files(path):
    written = file.read_text().splitlines()
    kept = [line for line in written if _is_kept(line, keep)]
    text = "".join(line + "\n" for line in kept)
    if file != single and not kept:
      file.unlink()
    elif file == single or len(kept) < len(written):
      paths.write_whole(file, text)


def _is_kept(line: str, keep) -> bool:
  try:
    return keep(json.loads(line))
  except (ValueError, KeyError, TypeError):
    return False


class Writer:
  """Lines of one NAME.jsonl, written as they come, or held until `close_part` where nothing can be appended to."""

  def __init__(self, path):
    self.path, self._held, self._lock, self._parted, self._size = path, [], threading.Lock(), None, None

  @property
  def parted(self) -> bool:
    if self._parted is None:
      self._parted = not paths.is_here(self.path) or bool(parts(self.path))
    return self._parted

  def write(self, line: dict) -> None:
    if not self.parted:
      append_line(self.path, line)
      return
    text = text_of(line)
    before = self.size
    with self._lock:
      self._held.append(text)
      self._size = before + len(text.encode())

  def close_part(self) -> None:
    """What is held becomes a part; without it there is none. Lines stay held until they are safe."""
    with self._lock:
      if not self._held:
        return
      number = max((number for number, _ in parts(self.path)), default=0) + 1
      part = self.path.with_name(f"{self.path.stem}.{number:05d}.jsonl")
      paths.write_whole(part, "".join(self._held))
      self._held.clear()

  @property
  def size(self) -> int:
    """Bytes so far."""
    if not self.parted:
      return paths.size(self.path) if self.path.is_file() else 0
    if self._size is None:
      self._size = sum(map(paths.size, files(self.path)))
    return self._size
