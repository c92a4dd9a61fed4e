"""One writer for one directory: a file lock, which the system releases when its holders end, however they end."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TextIO

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
