"""One writer for one directory of a bucket: an object that its holder refreshes, since buckets have no file locks.

DIR/lock names its holder. A process creates, refreshes or takes over the object only in the generation that it has
seen: the store checks this precondition, so that of two processes that try at once one wins. A holder elsewhere counts
as dead after STALE seconds without a refresh. A dead holder of this machine is recognised at once.

Two limits: a holder that stands still for longer than STALE and then continues ends at its next refresh, and may write
something until then. And the lock stops no program but sftrl.
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
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

from sftrl_jax.programs.config.errors import ConfigError, first_line
from sftrl_jax.programs.runtime.process import is_alive

BEAT, STALE = 15.0, 90.0   # seconds between two refreshes, and without one until the holder counts as dead
OURS = set()   # tokens of the locks that this process holds


@dataclasses.dataclass(frozen=True)
class Holder:
  """The process that a lock names.

  token: random, new for every time that a process takes the lock; process numbers repeat, tokens do not
  generation: of the object in the store
  age: seconds since the last refresh, between the store's clock and ours
  """

  host: str
  process: int
  token: str
  generation: int
  age: float

  def __str__(self):
    return f"process {self.process} on {self.host}"


@contextlib.contextmanager
def held(directory: PurePath, lost: Callable[[str], None] | None = None, beat: float = BEAT,
         stale: float = STALE) -> Iterator[None]:
  """Holds DIR/lock for the block. ConfigError when a live process holds it.

  lost: called with a message, in the refreshing thread, when another process has taken the lock over; by default it
    ends this process
  beat: seconds between two refreshes
  stale: seconds without a refresh after which a holder counts as dead
  """
  token = uuid.uuid4().hex
  generation = _take(directory, token, stale)
  OURS.add(token)
  ended = threading.Event()

  # A thread of its own refreshes the lock, however long the main thread computes.
  def refresh():
    nonlocal generation   # of the last refresh; the main thread reads it after it has joined this thread
    while not ended.wait(beat):
      try:
        generation = _write(directory, token, generation)
      except _taken_over() as error:
        if not ended.is_set():
          (lost or _end)(f"{directory} has another writer now: this process did not refresh its lock for "
                         f"{stale:.0f} s or more ({_reason(error)}). It ends here and writes nothing more.")
        return
      except Exception as error:   # of the network, of any type that the client raises: the next refresh may succeed
        print(f"{directory}/lock was not refreshed: {_reason(error)}", file=sys.stderr, flush=True)

  thread = threading.Thread(target=refresh, name="bucket lock", daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    OURS.discard(token)
    with contextlib.suppress(_taken_over()):
      _object(directory).delete(if_generation_match=generation)


def _take(directory: PurePath, token: str, stale: float) -> int:
  """Takes the lock and returns its generation. It waits until the holder refreshes it or counts as dead."""
  announced = False
  first = holder = _holder(directory)
  while holder is not None and not _is_dead(holder, stale):
    if holder.generation != first.generation:
      raise ConfigError(f"{directory} is being written by {holder}: wait until it has ended, or give another "
                        "--workdir.")
    if not announced:
      print(f"Waiting at most {stale:.0f} s for {holder}, which wrote into {directory} {holder.age:.0f} s ago ...",
            flush=True)
      announced = True
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
  if holder.process == os.getpid():   # a restarted container numbers its processes from the start again
    return holder.token not in OURS
  return not is_alive(holder.process)


def _holder(directory: PurePath) -> Holder | None:
  """The current holder, None where there is no lock."""
  from google.api_core.exceptions import NotFound
  lock = _object(directory)
  try:
    text = lock.download_as_text()
    lock.reload()
  except NotFound:
    return None
  try:
    content = json.loads(text)
    host, process, token = str(content["host"]), int(content["process"]), str(content["token"])
  except (ValueError, KeyError, TypeError):
    host, process, token = "an unknown machine", 0, ""
  return Holder(host, process, token, int(lock.generation), time.time() - lock.updated.timestamp())


def _write(directory: PurePath, token: str, generation: int) -> int:
  """Replaces the lock if it is of this generation (0: if there is none) and returns the new generation.

  Raises one of `_taken_over()` if another process holds it.
  """
  from google.api_core.exceptions import PreconditionFailed
  lock = _object(directory)
  content = {"host": socket.gethostname(), "process": os.getpid(), "token": token}
  try:
    lock.upload_from_string(json.dumps(content), "application/json", if_generation_match=generation)
  except PreconditionFailed:
    holder = _holder(directory)   # where the answer to a write was lost, the client repeats it and meets our own lock
    if holder is None or holder.token != token:
      raise
    return holder.generation
  return int(lock.generation)


def _object(directory: PurePath) -> Any:   # google.cloud.storage.Blob
  bucket, name = directory.parts[2], "/".join([*directory.parts[3:], "lock"])
  return _client().bucket(bucket).blob(name)


@functools.cache
def _client() -> Any:   # google.cloud.storage.Client
  from google.cloud import storage
  return storage.Client()


def _taken_over() -> tuple[type[Exception], ...]:
  """The errors by which the store refuses a write of an old generation. They are imported where a bucket is used."""
  from google.api_core.exceptions import NotFound, PreconditionFailed
  return (PreconditionFailed, NotFound)


def _end(text: str) -> None:
  os.write(2, f"error: {text}\n".encode())
  os._exit(1)   # without exit handlers: this process may write nothing any more


def _reason(error: Exception) -> str:
  return first_line(error)[:200]
