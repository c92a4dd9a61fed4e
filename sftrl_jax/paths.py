"""Paths on this machine or in a bucket (gs://BUCKET/DIR), and the operations that differ between the two.

Both kinds have the methods of pathlib. A bucket holds objects, which are written whole: none is appended to, a rename
is a copy, and directories are only names. A file of this machine is replaced in one move, an object in one request.
"""

import atexit
import contextlib
import functools
import importlib.util
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

INSTALL = 'pip install "sftrl-jax[gcs]"'
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
COMMIT = "commit_success.txt"   # the file that orbax writes last into a checkpoint that it cannot rename


def as_path(text: str | pathlib.PurePath) -> pathlib.PurePath:
  """The path of a text; a path is returned as it is. ValueError for an address that is not gs://BUCKET/...."""
  if isinstance(text, pathlib.PurePath):
    return text
  if SCHEME.match(text) is None:
    return Path(text)
  if not re.match(r"gs://[^/]", text):
    raise ValueError(f"{text}: known are directories of this machine and gs://BUCKET/DIR.")
  return _buckets().Path(text)


def local_path(text: str | Path, prefix: str = "") -> Path:
  """The path of a file that must be on this machine; ValueError, whose text begins with `prefix`, for an address."""
  if SCHEME.match(str(text)):
    raise ValueError(f"{prefix}{text} is not on this machine: give a path that is, and copy from or to it with `gcloud "
                     "storage cp -r`.")
  return Path(text)


@functools.cache
def _buckets():
  """etils.epath, set up to reach buckets by gcsfs whatever else is installed."""
  for package in ("gcsfs", "google.cloud.storage"):
    try:
      spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
      spec = None
    if spec is None:
      raise ValueError(f"Paths at gs:// need the package {package.replace('.', '-')}: {INSTALL}")
  os.environ.setdefault("EPATH_USE_TF", "0")
  os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")   # plain HTTP, as orbax and the lock use it
  logging.getLogger("gcsfs").setLevel(logging.CRITICAL)   # it prints tracebacks of errors that are handled here
  import fsspec
  # Without a cache, files that other libraries write (tensorstore) are listed at once.
  fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
  from etils import epath
  return epath


def is_here(path: pathlib.PurePath) -> bool:
  """Whether a path is on this machine, where files can be appended to and renamed."""
  return isinstance(path, Path)


def absolute(path: Path) -> Path:
  """The path from the root; a path in a bucket always begins there."""
  return path.absolute() if is_here(path) else path


def make(directory: Path) -> None:
  """Makes a directory of this machine; a bucket has none and must exist."""
  if is_here(directory):
    directory.mkdir(parents=True, exist_ok=True)


def remove(directory: Path) -> None:
  """Deletes a directory and everything below it, if it exists."""
  if is_here(directory):
    shutil.rmtree(directory, ignore_errors=True)
  elif directory.exists():
    directory.rmtree()


def write_whole(path: Path, text: str) -> None:
  """Replaces a file in one move: a reader sees the old text or the new one, never half of either."""
  if not is_here(path):
    path.write_text(text)
    return
  half = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    with named_errors(path):
      half.write_text(text)
    half.replace(path)
  except OSError:
    half.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
  """An OSError in the block names the file: that of a full disk does not, when it comes from an open file."""
  try:
    yield
  except OSError as error:
    if error.filename is not None or error.errno is None:
      raise
    raise OSError(error.errno, error.strerror, str(path)) from error


def size(path: Path) -> int:
  """Bytes of a file."""
  status = path.stat()
  return status.st_size if is_here(path) else status.length


def steps(checkpoints: Path) -> list[int]:
  """The steps of the complete checkpoints in a directory, in order.

  On this machine a half-written checkpoint has a longer name, and so has a damaged one that was put aside.
  """
  if not checkpoints.is_dir():
    return []
  complete = (lambda path: path.is_dir()) if is_here(checkpoints) else (lambda path: (path / COMMIT).is_file())
  return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdecimal() and complete(path))


@contextlib.contextmanager
def staging(directory: Path, last: str = "") -> Iterator[Path]:
  """A directory of this machine to write into: `directory` itself, or a temporary one that is uploaded at the end.

  last: the file that is uploaded last, so that its presence shows that the others are complete.
  """
  if is_here(directory):
    yield directory
    return
  with tempfile.TemporaryDirectory() as folder:
    yield Path(folder)
    upload(Path(folder), directory, last)


def upload(folder: Path, directory: Path, last: str = "") -> None:
  """Copies every file below a folder of this machine into a bucket, the file `last` at the end."""
  files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
  for file in sorted(files, key=lambda file: (str(file) == last, file)):
    _buckets().Path(folder / file).copy(directory / file, overwrite=True)


def local_copy(directory: Path) -> Path:
  """The files of a small directory on this machine: itself, or a copy that is deleted when the process ends."""
  return directory if is_here(directory) else _downloaded(directory)


@functools.cache
def _downloaded(directory: Path) -> Path:
  folder = Path(tempfile.mkdtemp())
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  for path in directory.iterdir():
    if path.is_file():
      (folder / path.name).write_bytes(path.read_bytes())
  return folder
