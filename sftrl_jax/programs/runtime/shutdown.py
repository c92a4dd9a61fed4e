"""SIGTERM, SIGHUP and Ctrl-C: a run finishes its step, saves and ends; it drops a step that would take too long.

A thread receives the signals. Python runs its own handlers in the main thread only, between two bytecodes, and the main
thread may be inside one long computation. Between steps, any thread may save the state. While an update consumes it
(its buffers are donated to the update), none can.

Several processes save together or not at all. The process that gets a signal notifies the others, and they agree on a
point at which all of them stop. None saves before that point. If the grace ends first, the process ends without saving
and the last checkpoint stands.
"""

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from sftrl_jax.programs.runtime.interrupt import CODES, STOPPED, handled


@dataclasses.dataclass(frozen=True)
class Agreement:
  """How several processes stop together (parallel/hosts.py).

  notify: notifies all other processes that this one got a signal
  reached: (number of a point that all processes reach, in order) -> whether they stop there; the same answer for all
  """

  notify: Callable[[], None]
  reached: Callable[[int], bool]


class Stop:
  """The state that the loop of a run shares with the threads that handle its signals.

  grace: seconds from the first signal until the current step is dropped
  agreement: with the other processes of this run, if there are any
  received: the numbers of the signals so far
  finish_saves: waits for the checkpoint that is being written; None before the run has begun

  `_changed` guards `_save` and `_between`. The thread that ends the process holds it while it saves, so the loop cannot
  begin an update in the meantime; the loop holds it while it writes, so that thread cannot end the process halfway.
  """

  def __init__(self, grace: float, agreement: Agreement | None = None):
    self.grace, self.received, self._signalled_at = grace, [], 0.0
    self._agreement, self._points, self._agreed = agreement, 0, False
    self._left = False   # whether the run has ended because of a signal
    self.finish_saves: Callable[[], None] | None = None
    self._changed = threading.Condition()
    self._save: Callable[[], None] | None = lambda: None   # None: an update is consuming the state
    self._between = False   # whether the step is done, so that the work after it (an evaluation) may be dropped at once

  @property
  def requested(self) -> bool:
    """Whether the run should stop: after a signal, and of several processes once they have agreed."""
    return bool(self.received) if self._agreement is None else self._agreed

  def sync(self) -> None:
    """Agrees with the other processes whether to stop here. All processes must call it equally often, between steps."""
    if self._agreement is not None and not self._agreed:
      self._points += 1
      self._agreed = self._agreement.reached(self._points)

  def sync_or_exit(self) -> None:
    """`sync` inside work that may be dropped (an evaluation): processes that agree to stop save and end here.

    A single process needs no such point: `_wait` ends it at any time between steps.
    """
    self.sync()
    if self._agreed:
      self.leave(self._save)

  def set_savepoint(self, save: Callable[[], None], between: bool = False) -> None:
    """From now on `save()` writes the whole state. between: the step is done; a resume repeats the work after it."""
    with self._changed:
      self._save, self._between = save, between
      self._changed.notify_all()

  def begin_update(self, seconds: float) -> None:
    """Declares that an update consumes the state: until the next `set_savepoint`, nothing can be saved.

    seconds: about how long the update takes. If it outlasts the grace of a signal, this saves and ends the process.
    """
    with self._changed:
      if self.requested and self._agreement is None and time.monotonic() + seconds > self._signalled_at + self.grace:
        self._leave()
      self._save = None

  def no_interrupt(self, write: Callable[[], None]) -> None:
    """Calls write(), during which no signal ends the process."""
    with self._changed:
      write()

  def hear(self, number: int) -> None:
    """Handles a signal. The first one starts the grace; a second one ends the process at once, without saving."""
    if self.received:   # os.write and os._exit: the main thread may hold the locks of print and of the exit handlers
      os.write(2, b"A second signal: ended at once; the same command goes on from the newest checkpoint there is.\n")
      os._exit(CODES[self.received[0]])
    self._signalled_at = time.monotonic()
    self.received.append(number)
    if self._agreement is not None:
      self._agreement.notify()
    # A thread of its own, since the thread of the signals has to stay free for a second signal.
    threading.Thread(target=self._wait, name="grace", daemon=True).start()

  def _wait(self) -> None:
    """Ends the process: at once between steps, else when the grace is over, but never while an update has the state.

    Several processes stop at their common point instead, in their main threads; this ends one that does not reach it
    within the grace. Where the main thread ends first, this daemon thread ends with it.
    """
    with self._changed:
      while self._agreement is not None or self._save is None or not self._between:
        left = self._signalled_at + self.grace - time.monotonic()
        if left <= 0 and (self._save is not None or self._agreement is not None):
          break
        self._changed.wait(max(left, 0.05))
      self._leave()

  def _leave(self) -> None:
    """Saves and ends the process from this thread, wherever the main thread is; several processes do not save."""
    code = CODES[self.received[0]]
    try:
      if self._agreement is None:
        self._save()
      else:
        print("The processes did not reach a common point for saving within config.checkpoint.grace_seconds: ended "
              "without saving. The same command resumes from the last checkpoint.", file=sys.stderr)
    except BaseException as error:   # no caller above this thread could report it
      print(f"error: {error}", file=sys.stderr)
      code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

  def leave(self, save: Callable[[], None]) -> None:
    """Calls save() and ends the run from its own thread: raises KeyboardInterrupt after Ctrl-C, else SystemExit(75)."""
    with self._changed:
      save()
      self._save, self._left = None, True
    raise KeyboardInterrupt if self.received[:1] == [signal.SIGINT] else SystemExit(STOPPED)


@contextlib.contextmanager
def stopping(grace: float, agreement: Agreement | None = None) -> Iterator[Stop]:
  """Yields a Stop that receives SIGINT, SIGTERM and SIGHUP until the block ends. grace, agreement: of the Stop.

  Python's C handler writes the number of every signal to the wakeup fd at once, even while the main thread computes; a
  thread reads it from the other end of the socket pair. The Python handler does nothing, but it has to be set: without
  one, the signal would kill the process.
  """
  stop = Stop(grace, agreement)
  inner, outer = socket.socketpair()
  inner.setblocking(False)
  wakeup = signal.set_wakeup_fd(inner.fileno(), warn_on_full_buffer=False)
  before = {number: signal.signal(number, lambda signal_number, frame: None) for number in handled()}

  def listen():
    while (byte := outer.recv(1)) and byte != b"\0":   # no signal has the number 0: it ends this thread, see below
      if byte[0] in CODES:
        stop.hear(byte[0])

  thread = threading.Thread(target=listen, name="signals", daemon=True)
  thread.start()
  try:
    yield stop
  finally:
    with stop._changed:
      stop._save = None   # the run is over: a thread that still waits must not save any more
    signal.set_wakeup_fd(wakeup)
    for number, handler in before.items():
      signal.signal(number, handler)
    inner.send(b"\0")
    thread.join()
    inner.close()
    outer.close()
  if stop.received and not stop._left:   # it came too late to stop a step; what follows, a report, is left out
    stop.leave(lambda: None)
