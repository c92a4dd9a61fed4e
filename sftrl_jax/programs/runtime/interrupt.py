"""Ctrl-C, SIGTERM and SIGHUP, from the first second of a command to its last: no traceback, and one exit code each.

They end the process at once, unless the command has entered a block that handles them: a run (shutdown.py) and a study
save first, and `as_exception` lets a program remove what it has half written. This imports little, for it comes first.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

STOPPED, INTERRUPTED = 75, 130   # exit codes after SIGTERM or SIGHUP, and after Ctrl-C
CODES = {signal.SIGTERM: STOPPED, signal.SIGHUP: STOPPED, signal.SIGINT: INTERRUPTED}
PATIENCE = 5.0   # seconds from a signal until the process ends, whatever an exception is waiting for
NEWS = "The same command begins again, or goes on from what it has saved."

received: list[int] = []   # the signals that were raised as exceptions


def handled() -> list[int]:
  """The signals to handle: not SIGHUP under nohup, which asks for a process that outlives its terminal."""
  return [number for number in CODES if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


def install() -> None:
  """From now on these signals end the process at once. Call it from the main thread, once.

  Python runs its own handlers in the main thread only, between two bytecodes, and the main thread may be inside one
  long import or compilation. So a thread reads the signals; the Python handlers have to be set all the same.
  """
  inner, outer = socket.socketpair()
  inner.setblocking(False)
  for number in handled():
    signal.signal(number, _at_once)
  signal.set_wakeup_fd(inner.fileno(), warn_on_full_buffer=False)
  threading.Thread(target=_listen, args=(inner, outer), name="interrupts", daemon=True).start()


def ignore() -> None:
  """From now on these signals have no effect: the command is over, and its process ends."""
  for number in CODES:
    signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def as_exception() -> Iterator[None]:
  """In the block a signal raises KeyboardInterrupt, so that what is half written is removed. A second one, or PATIENCE,
  ends the process at once. Without `install` this does nothing."""
  ours = [number for number in CODES if signal.getsignal(number) is _at_once]
  for number in ours:
    signal.signal(number, _raise)
  try:
    yield
  finally:
    for number in ours:
      signal.signal(number, _at_once)


@contextlib.contextmanager
def for_conversation() -> Iterator[None]:
  """In the block Ctrl-C raises KeyboardInterrupt as often as it is pressed, and the process lives on."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)


def end(number: int) -> None:
  """Says so and ends the process, from any thread, without exit handlers."""
  os.write(2, f"Ended by {'Ctrl-C' if number == signal.SIGINT else signal.Signals(number).name}. {NEWS}\n".encode())
  flush = threading.Thread(target=sys.stdout.flush, daemon=True)   # of its own: the main thread may hold its lock
  flush.start()
  flush.join(0.5)
  os._exit(CODES[number])


def _listen(inner: socket.socket, outer: socket.socket) -> None:
  raised = 0   # signals read here that are raised as exceptions
  while byte := outer.recv(1):
    handler = signal.getsignal(byte[0]) if byte[0] in CODES else None
    # The main thread may have raised it, and left its block, before this thread comes to read it.
    is_raised = handler is _raise or len(received) > raised
    if handler is _at_once and not is_raised or is_raised and raised:
      end(byte[0])
    if is_raised:
      raised += 1
      threading.Thread(target=_end_late, args=(byte[0],), daemon=True).start()


def _end_late(number: int) -> None:
  time.sleep(PATIENCE)
  end(number)


def _at_once(number: int, frame: object) -> None:
  """The thread of `_listen` ends the process."""


def _raise(number: int, frame: object) -> None:
  received.append(number)
  # What the exception breaks in other threads and in finalizers is no news.
  sys.unraisablehook = threading.excepthook = lambda arguments: None
  raise KeyboardInterrupt
