"""One writer for one workdir or one output: a file lock, which the system releases when its holders end, however."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, TextIO

from sftrl_jax import paths
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.runtime import bucket_lock
from sftrl_jax.programs.runtime.process import is_alive

PATIENCE = 60.0   # seconds: the children of a killed process save a checkpoint before they end


@contextlib.contextmanager
def only_writer(directory: PurePath, patience: float = PATIENCE) -> Iterator[int | None]:
  """Holds DIR/lock for the block and yields its file descriptor; children that inherit it hold the lock too.

  In a bucket there are no file locks: bucket_lock.py holds it, and this yields None.
  patience: seconds that the children of a dead writer get to end

  ConfigError when a live process holds the lock, or when the children still hold it after `patience`.
  """
  if not paths.is_here(directory):
    with bucket_lock.held(directory):
      yield None
    return
  directory.mkdir(parents=True, exist_ok=True)
  with (directory / "lock").open("a+") as lock:
    _take(lock, directory, patience)
    lock.seek(0)
    lock.truncate()
    lock.write(str(os.getpid()))
    lock.flush()
    yield lock.fileno()


@contextlib.contextmanager
def only_output(path: PurePath, flag: str, inside: bool = False, patience: float = 0.0) -> Iterator[None]:
  """Holds the lock of an output for the block: a hidden file beside it, removed at the end.

  flag: how the user names the output
  inside: the output is a directory that stays where it is; the hidden file is in it
  patience: seconds to wait for another writer

  ConfigError when a live process still writes it after that.
  """
  if not paths.is_here(path):
    with bucket_lock.held(path):
      yield
    return
  path = path.absolute()
  lock = path / ".lock" if inside else path.with_name(f".{path.name}.lock")
  lock.parent.mkdir(parents=True, exist_ok=True)
  end = time.monotonic() + patience
  while (file := _opened(lock)) is None:
    if time.monotonic() >= end:
      raise ConfigError(f"{path} is being written by {_holder(lock)}: wait until it has ended, or give another {flag}.")
    time.sleep(0.2)
  with file:
    file.write(str(os.getpid()))
    file.flush()
    try:
      yield
    finally:
      lock.unlink(missing_ok=True)


def _opened(lock: Path) -> Any:
  """The empty lock file, held; None where another process holds it."""
  while True:
    file = lock.open("a+")
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.close()
      return None
    with contextlib.suppress(FileNotFoundError):   # its holder may have removed it before it was held here
      if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
        file.truncate(0)
        return file
    file.close()


def _holder(lock: Path) -> str:
  try:
    number = lock.read_text().strip()
  except OSError:
    number = ""
  return f"process {number}" if number else "another process"


def _take(lock: TextIO, directory: Path, patience: float) -> None:
  end, announced = time.monotonic() + patience, False
  while True:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return
    except BlockingIOError as error:
      lock.seek(0)
      holder = lock.read().strip()
      # Without a number, the writer has locked the file and not written its number yet.
      if not holder.isdecimal() or is_alive(int(holder)) or time.monotonic() > end:
        who = f"process {holder}" if holder else "another process"
        raise ConfigError(f"{directory} is being written by {who}: wait until it has ended, or give another --workdir."
                          ) from error
    if not announced:
      print(f"Waiting for the children of a killed process ({holder}) in {directory} ...", flush=True)
      announced = True
    time.sleep(0.2)
