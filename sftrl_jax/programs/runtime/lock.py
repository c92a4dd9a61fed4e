"""One writer for one directory: a lock file that the system lets go of when its holders end, however they end."""

import contextlib
import fcntl
import os
import time

from sftrl_jax import paths
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.runtime import bucket_lock

PATIENCE = 60.0   # seconds; children of a process that was killed end after their next checkpoint


@contextlib.contextmanager
def only_writer(directory, patience=PATIENCE):
  """Holds DIR/lock for the block and yields its file descriptor; children that inherit it hold the lock too. In
  a bucket there is none, and lease.py keeps the lock.

  ConfigError when a living process holds it. When its writer is dead and only the children are left, they get
  `patience` seconds to end.
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


def _take(lock, directory, patience) -> None:
  end, told = time.monotonic() + patience, False
  while True:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return
    except BlockingIOError as error:
      lock.seek(0)
      holder = lock.read().strip()
      if _is_alive(holder) or time.monotonic() > end:
        who = f"process {holder}" if holder else "another process"
        raise ConfigError(f"{directory} is being written by {who}: wait until it has ended, or give another --workdir."
                          ) from error
    if not told:
      print(f"Waiting for what a killed process ({holder}) left running in {directory} ...", flush=True)
      told = True
    time.sleep(0.2)


def _is_alive(holder) -> bool:
  if not holder.isdecimal():
    return True   # the file was opened, not yet written: its writer is just starting
  try:
    os.kill(int(holder), 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    return True
  return True
