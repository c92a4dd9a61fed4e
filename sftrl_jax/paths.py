"""Where things are: the text of a path, on this machine or in a bucket (gs://BUCKET/DIR), and what differs there.

Both kinds have the methods of pathlib. A bucket holds objects, which are written whole: none is appended to, a rename
is a copy, and directories are only names. What is written in one move here is written in one request there.
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

INSTALL = 'pip install "sftrl-jax[gcs]"'
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
COMMIT = "commit_success.txt"   # what orbax writes last into a checkpoint that it cannot rename


def place(text) -> pathlib.PurePath:
  """The path that a text means; a path stays what it is. ValueError for an address that is not gs://BUCKET/...."""
  if isinstance(text, pathlib.PurePath):
    return text
  found = SCHEME.match(text)
  if found is None:
    return pathlib.Path(text)
  if not re.match(r"gs://[^/]", text):
    raise ValueError(f"{text}: known are directories of this machine and gs://BUCKET/DIR.")
  return _buckets().Path(text)


def here(text, said: str = "") -> pathlib.Path:
  """The same for what is read or written on this machine alone; said: how an error begins, after which it is named."""
  if SCHEME.match(str(text)):
    raise ValueError(f"{said}{text} is not on this machine: give a path that is, and copy from or to it with `gcloud "
                     "storage cp -r`.")
  return pathlib.Path(text)


@functools.cache
def _buckets():
  """etils.epath, reaching buckets by gcsfs whatever else is installed."""
  for package in ("gcsfs", "google.cloud.storage"):
    try:
      found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
      found = None
    if found is None:
      raise ValueError(f"Paths at gs:// need the package {package.replace('.', '-')}: {INSTALL}")
  os.environ.setdefault("EPATH_USE_TF", "0")
  os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")   # plain HTTP, as orbax and the lock use it
  logging.getLogger("gcsfs").setLevel(logging.CRITICAL)   # it prints tracebacks of what is raised and told here
  import fsspec
  # What others write, tensorstore among them, is to be seen at once.
  fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
  from etils import epath
  return epath


def is_here(path) -> bool:
  """Whether a path is on this machine, where files can be appended to and renamed."""
  return isinstance(path, pathlib.Path)


def absolute(path):
  """The path from the root; one in a bucket always is."""
  return path.absolute() if is_here(path) else path


def make(directory) -> None:
  """The directory, where there are any; a bucket has to be there."""
  if is_here(directory):
    directory.mkdir(parents=True, exist_ok=True)


def remove(directory) -> None:
  """Everything below a directory, and the directory; one that is not there is no error."""
  if is_here(directory):
    shutil.rmtree(directory, ignore_errors=True)
  elif directory.exists():
    directory.rmtree()


def write_whole(path, text: str) -> None:
  """Replaces a file in one move: a reader sees the old one or the new one, never half of either."""
  if not is_here(path):
    path.write_text(text)
    return
  half = path.with_name(f".{path.name}.{os.getpid()}")
  half.write_text(text)
  half.replace(path)


def size(path) -> int:
  """Bytes of a file."""
  told = path.stat()
  return told.st_size if is_here(path) else told.length


def steps(checkpoints) -> list[int]:
  """The steps of a directory of checkpoints that are complete, in order.

  What is half written on this machine, or was put aside as damaged, has a longer name.
  """
  if not checkpoints.is_dir():
    return []
  whole = (lambda path: path.is_dir()) if is_here(checkpoints) else (lambda path: (path / COMMIT).is_file())
  return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdecimal() and whole(path))


@contextlib.contextmanager
def made(directory, last: str = ""):
  """A directory of this machine to write into; it is `directory`, or is copied there at the end of the block.

  last: the file whose presence says that the others are there.
  """
  if is_here(directory):
    yield directory
    return
  with tempfile.TemporaryDirectory() as folder:
    yield pathlib.Path(folder)
    upload(pathlib.Path(folder), directory, last)


def upload(folder: pathlib.Path, directory, last: str = "") -> None:
  """Copies every file below a folder of this machine."""
  files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
  for file in sorted(files, key=lambda file: (str(file) == last, file)):
    _buckets().Path(folder / file).copy(directory / file, overwrite=True)


def local_copy(directory) -> pathlib.Path:
  """The files of a small directory on this machine: itself, or a copy that goes when the process ends."""
  return directory if is_here(directory) else _downloaded(directory)


@functools.cache
def _downloaded(directory) -> pathlib.Path:
  folder = pathlib.Path(tempfile.mkdtemp())
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  for path in directory.iterdir():
    if path.is_file():
      (folder / path.name).write_bytes(path.read_bytes())
  return folder
