"""SIGTERM and Ctrl-C: the step is finished and saved; one that would take too long is dropped, to be redone.

A thread hears the signals, since Python's own handlers wait for the main thread, which may be inside one long
computation. Between steps the state belongs to nobody and anyone can save it; while an update consumes it, nobody can.

Several processes save together or not at all: whoever hears a signal tells the others, and they agree on a point where
all of them stop. None saves before; if the grace is over by then, the process ends and the last checkpoint stands.
"""

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

STOPPED, INTERRUPTED = 75, 130  # exit codes after SIGTERM and after Ctrl-C
CODES = {signal.SIGTERM: STOPPED, signal.SIGINT: INTERRUPTED}


@dataclasses.dataclass(frozen=True)
class Agreement:
  """How several processes stop together (parallel/hosts.py).

  tell: tells all others that a signal has come here
  reached: the number of a point by which all come, in order -> whether it is where they stop, the same answer to all
  """

  tell: Callable[[], None]
  reached: Callable[[int], bool]


class Stop:
  """What the loop of a run and the thread that hears signals know of one another.

  grace: seconds from the first signal until the step going on is dropped.
  agreement: with the other processes of this run, if there are any.
  """

  def __init__(self, grace: float, agreement: Agreement | None = None):
    self.grace, self.received, self._heard = grace, [], 0.0
    self._agreement, self._points, self._agreed = agreement, 0, False
    self._changed = threading.Condition()
    self._save: Callable[[], None] | None = lambda: None  # None: an update is consuming the state
    self._between = False  # whether the step is done and what goes on (an evaluation) may be dropped at once

  @property
  def requested(self) -> bool:
    return bool(self.received) if self._agreement is None else self._agreed

  def sync(self) -> None:
    """A point by which all processes come equally often, with nothing half done: here they agree whether to stop."""
    if self._agreement is not None and not self._agreed:
      self._points += 1
      self._agreed = self._agreement.reached(self._points)

  def sync_or_exit(self) -> None:
    """A point inside what may be dropped and redone: several processes that agreed to stop save what is kept, and end.

    One process needs none of these: the thread that heard the signal does not wait for it.
    """
    self.sync()
    if self._agreed:
      self.leave(self._save)

  def set_savepoint(self, save: Callable[[], None], between: bool = False) -> None:
    """From now on `save()` writes all there is. between: the step is done, and what follows is redone if dropped."""
    with self._changed:
      self._save, self._between = save, between
      self._changed.notify_all()

  def begin_update(self, seconds: float) -> None:
    """The state is about to be consumed by an update of about so many seconds: until `kept`, nothing can be saved.

    If a signal has come and the update would not end in time, the step is dropped instead: this does not return.
    """
    with self._changed:
      if self.requested and self._agreement is None and time.monotonic() + seconds > self._heard + self.grace:
        self._leave()
      self._save = None

  def no_interrupt(self, write: Callable[[], None]) -> None:
    """write(), which the thread does not interrupt by leaving."""
    with self._changed:
      write()

  def hear(self, number: int) -> None:
    """A signal has come. The first begins the grace; a second ends the process at once."""
    if self.received:
      os.write(2, b"A second signal: ended at once; the same command goes on from the last checkpoint.\n")
      os._exit(CODES[self.received[0]])
    self._heard = time.monotonic()
    self.received.append(number)
    if self._agreement is not None:
      self._agreement.tell()
    threading.Thread(target=self._wait, name="grace", daemon=True).start()

  def _wait(self) -> None:
    with self._changed:
      while self._agreement is not None or self._save is None or not self._between:
        left = self._heard + self.grace - time.monotonic()
        if left <= 0 and (self._save is not None or self._agreement is not None):
          break
        self._changed.wait(max(left, 0.05))
      self._leave()

  def _leave(self) -> None:
    """Saves what there is and ends the process, whatever its main thread is doing."""
    code = CODES[self.received[0]]
    try:
      if self._agreement is None:
        self._save()
      else:
        print("Not all processes came to a point where they can save together, within config.checkpoint.grace_seconds: "
              "ended as it is. The same command goes on from the last checkpoint.", file=sys.stderr)
    except BaseException as error:  # nothing above this thread could tell it
      print(f"error: {error}", file=sys.stderr)
      code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

  def leave(self, save: Callable[[], None]) -> None:
    """save(), then the end in good order, from the run's own thread: KeyboardInterrupt or SystemExit(75)."""
    with self._changed:
      save()
      self._save = None
    raise KeyboardInterrupt if self.received[:1] == [signal.SIGINT] else SystemExit(STOPPED)


@contextlib.contextmanager
def stopping(grace: float, agreement: Agreement | None = None):
  """A Stop that hears SIGINT and SIGTERM for as long as the block lasts."""
  stop = Stop(grace, agreement)
  inner, outer = socket.socketpair()
  inner.setblocking(False)
  before = {number: signal.signal(number, lambda got, frame: None) for number in CODES}
  wakeup = signal.set_wakeup_fd(inner.fileno(), warn_on_full_buffer=False)

  def listen():
    while (byte := outer.recv(1)) and byte != b"\0":
      if byte[0] in CODES:
        stop.hear(byte[0])

  thread = threading.Thread(target=listen, name="signals", daemon=True)
  thread.start()
  try:
    yield stop
  finally:
    with stop._changed:
      stop._save = None  # whatever comes now, there is nothing more to drop
    signal.set_wakeup_fd(wakeup)
    for number, handler in before.items():
      signal.signal(number, handler)
    inner.send(b"\0")
    thread.join()
    inner.close()
    outer.close()
