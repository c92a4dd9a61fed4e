"""One writer for one directory of a bucket: an object that its holder keeps fresh, since nothing there can be locked.

DIR/lock says who holds it. It is made, refreshed and taken over only in the generation that was seen (a precondition
that the store checks), so that of two who try at once one wins. A holder that has ended without a word is believed dead
after STALE seconds without a refresh; one of this machine at once.

What is not promised: a holder that is halted for longer than that and goes on is ended at its next beat, and may have
written something until then. Neither does it keep anything but sftrl from writing.
"""

import contextlib
import dataclasses
import functools
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable

from sftrl_jax.programs.config.errors import ConfigError

BEAT, STALE = 15.0, 90.0   # seconds
OURS = set()   # tokens that this process holds


@dataclasses.dataclass(frozen=True)
class Holder:
  """Who is said to hold a lock. token: of one holding; age: seconds since it was refreshed, by the store's clock and
  ours."""

  host: str
  process: int
  token: str
  generation: int
  age: float

  def __str__(self):
    return f"process {self.process} on {self.host}"


@contextlib.contextmanager
def held(directory, lost: Callable[[str], None] | None = None, beat: float = BEAT, stale: float = STALE):
  """Holds DIR/lock for the block. ConfigError when a living process does.

  lost: what is done, in another thread, when somebody else has taken it over; it ends this process if left out.
  """
  token = uuid.uuid4().hex
  generation = [_take(directory, token, stale)]
  OURS.add(token)
  ended = threading.Event()

  def refresh():
    while not ended.wait(beat):
      try:
        generation[0] = _write(directory, token, generation[0])
      except _taken_over() as error:
        if not ended.is_set():
          (lost or _end)(f"{directory} has another writer now: this process has not been heard of for {stale:.0f} s or "
                         f"more ({_first_line(error)}). It ends here and writes nothing more.")
        return
      except Exception as error:   # the network, any of the client's: the next beat may get there
        print(f"{directory}/lock was not refreshed: {_first_line(error)}", file=sys.stderr, flush=True)

  thread = threading.Thread(target=refresh, name="lease", daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    OURS.discard(token)
    with contextlib.suppress(_taken_over()):
      _object(directory).delete(if_generation_match=generation[0])


def _take(directory, token: str, stale: float) -> int:
  """The generation in which the lock is ours."""
  told = False
  first = holder = _holder(directory)
  while holder is not None and not _is_dead(holder, stale):
    if holder.generation != first.generation:
      raise ConfigError(f"{directory} is being written by {holder}: wait until it has ended, or give another "
                        "--workdir.")
    if not told:
      print(f"Waiting at most {stale:.0f} s for {holder}, which wrote into {directory} {holder.age:.0f} s ago ...",
            flush=True)
      told = True
    time.sleep(min(1.0, stale / 10))
    holder = _holder(directory)
  try:
    return _write(directory, token, 0 if holder is None else holder.generation)
  except _taken_over() as error:
    raise ConfigError(f"{directory} was taken by another process at this moment ({_holder(directory)}): wait until it "
                      "has ended, or give another --workdir.") from error


def _is_dead(holder: Holder, stale: float) -> bool:
  if holder.age > stale:
    return True
  if holder.host != socket.gethostname():
    return False
  if holder.process == os.getpid():   # a container begun again counts its processes from the same number
    return holder.token not in OURS
  try:
    os.kill(holder.process, 0)
  except ProcessLookupError:
    return True
  except PermissionError:
    return False
  return False


def _holder(directory) -> Holder | None:
  """Who holds the lock as it is now; None for nobody."""
  from google.api_core.exceptions import NotFound
  lock = _object(directory)
  try:
    text = lock.download_as_text()
    lock.reload()
  except NotFound:
    return None
  try:
    told = json.loads(text)
    host, process, token = str(told["host"]), int(told["process"]), str(told["token"])
  except (ValueError, KeyError, TypeError):
    host, process, token = "an unknown machine", 0, ""
  return Holder(host, process, token, int(lock.generation), time.time() - lock.updated.timestamp())


def _write(directory, token: str, generation: int) -> int:
  """Replaces the lock where it is of this generation (0: where there is none); the new one."""
  from google.api_core.exceptions import PreconditionFailed
  lock = _object(directory)
  told = {"host": socket.gethostname(), "process": os.getpid(), "token": token}
  try:
    lock.upload_from_string(json.dumps(told), "application/json", if_generation_match=generation)
  except PreconditionFailed:
    holder = _holder(directory)   # where an answer got lost, the client asks again and meets our own lock
    if holder is None or holder.token != token:
      raise
    return holder.generation
  return int(lock.generation)


def _object(directory):
  bucket, name = directory.parts[2], "/".join([*directory.parts[3:], "lock"])
  return _client().bucket(bucket).blob(name)


@functools.cache
def _client():
  from google.cloud import storage
  return storage.Client()


def _taken_over():
  from google.api_core.exceptions import NotFound, PreconditionFailed
  return (PreconditionFailed, NotFound)


def _end(text: str) -> None:
  os.write(2, f"error: {text}\n".encode())
  os._exit(1)   # nothing may be written on the way out


def _first_line(error: Exception) -> str:
  return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
