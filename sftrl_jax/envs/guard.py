"""Calls of a user's own code that may hang, leave or double the process: the caller gets an exception instead."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import dis
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

PROGRAMS = str(Path(__file__).parents[1] / "programs")   # handlers of signals are there
LONGEST = 500   # characters of an error's text; a judge may answer with a whole page


class OutOfTime(BaseException):
  """A call that took too long. It is no Exception, because code that hangs often catches those."""


@dataclasses.dataclass(frozen=True)
class _Call:
  """A call of `call` that has not returned. process: where it began; failed: see `call`."""

  process: int
  failed: Callable[[BaseException], BaseException]


_entering = threading.Lock()   # guards what follows
_calls: dict[int, _Call] = {}   # by the thread that is in it
_outside: tuple[Callable, str] = (os._exit, "")   # os._exit, and the working directory, while no call is going on


def call(function: Callable, *arguments, failed: Callable[[BaseException], BaseException] = lambda error: error) -> Any:
  """function(*arguments) in this process alone, and in its directory. Threads may call it at one time.

  A child that the function forks ends here, so that it never goes on as a second trainer. `os._exit` of the calling
  thread becomes SystemExit: it would end a run in the middle with whatever exit code.
  failed: what the caller makes of an error of the function; `give_up` needs it, for a thread that never comes back
  """
  process, thread = os.getpid(), threading.get_ident()
  before = _enter(thread, _Call(process, failed))
  try:
    return function(*arguments)
  finally:
    if os.getpid() != process:   # first, and without the lock, which another thread may have held during the fork
      _outside[0](0)
    _leave(thread, before)


def _enter(thread: int, entered: _Call) -> _Call | None:
  """Notes a call of this thread, and returns the one that it is in already."""
  global _outside
  with _entering:
    before = _calls.get(thread)
    if not _calls:
      _outside, os._exit = (os._exit, _directory()), _refuse
    _calls[thread] = entered
    return before


def _leave(thread: int, before: _Call | None) -> None:
  """Ends a call of this thread, which goes on with the one before."""
  leave, directory = _outside
  with _entering:
    if before is None:
      del _calls[thread]
    else:
      _calls[thread] = before
    if not _calls:
      os._exit = leave
    if directory and _directory() != directory:   # a workdir may be a path from here
      os.chdir(directory)


def _refuse(status: int) -> None:
  """`os._exit` while calls are going on: as ever, but for the threads that are in one."""
  entered = _calls.get(threading.get_ident())
  if entered is None or entered.process != os.getpid():
    _outside[0](status)
  raise SystemExit(status)


def give_up(thread: int, seconds: float) -> BaseException:
  """Tells a thread to end what it calls, and returns the error to go on with: OutOfTime, whose traceback ends in the
  line where the thread is, or what the caller of `call` makes of it.

  The thread gets OutOfTime in its next line of Python. It may never have one (a socket that is silent, a computation
  in C), or catch it, so nobody should wait for it.
  """
  frame, trace = sys._current_frames().get(thread), None
  while frame is not None:
    trace, frame = TracebackType(trace, frame, frame.f_lasti, frame.f_lineno), frame.f_back
  error, entered = _out_of_time(seconds).with_traceback(trace), _calls.get(thread)
  interrupt(thread)
  return entered.failed(error) if entered else error


def interrupt(thread: int) -> None:
  """Raises OutOfTime in another thread, in its next line of Python."""
  ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(OutOfTime))


def _out_of_time(seconds: float) -> OutOfTime:
  return OutOfTime(f"no verdict within {seconds:g} s")


def _directory() -> str:
  """The working directory; "" if it has been removed."""
  try:
    return os.getcwd()
  except OSError:
    return ""


class Alarm:
  """The limit of calls that one thread makes one after another: its block sets a handler, `start` and `stop` a timer.

  A call that takes longer than `seconds` (0: any) is left by OutOfTime in the line where it is. Python delivers signals
  to the main thread alone, and not every system has timers: elsewhere there is no limit here, and whoever waits for the
  thread keeps one (verdict_pool.py). One long computation inside C is interrupted when it returns. A timer of the
  user's own is left alone.
  """

  def __init__(self, seconds: float = 0.0):
    self.seconds, self._active, self._before = seconds, False, None

  def __enter__(self) -> Alarm:
    self._active = bool(self.seconds) and threading.current_thread() is threading.main_thread() and hasattr(
        signal, "setitimer") and not signal.getitimer(signal.ITIMER_REAL)[0]
    if self._active:
      self._before = signal.signal(signal.SIGALRM, self._ring)
    return self

  def __exit__(self, *error) -> None:
    if self._active:
      signal.signal(signal.SIGALRM, self._before)

  def start(self) -> None:
    """Begins the seconds of a call."""
    if self._active:   # again every second: a bare `except` may swallow the first
      signal.setitimer(signal.ITIMER_REAL, self.seconds, 1.0)

  def stop(self) -> None:
    """Ends them."""
    if self._active:
      signal.setitimer(signal.ITIMER_REAL, 0)
      if signal.getsignal(signal.SIGALRM) != self._ring:   # of the user's code, which has returned
        signal.signal(signal.SIGALRM, self._ring)

  def _ring(self, number: int, frame: FrameType | None) -> None:
    raise _out_of_time(self.seconds)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
  """Raises OutOfTime in the line where the block is after so many seconds (0: never), see Alarm."""
  with Alarm(seconds) as alarm:
    alarm.start()
    try:
      yield
    finally:
      alarm.stop()


def is_signal(error: BaseException) -> bool:
  """Whether the process was really asked to stop: by Ctrl-C or a handler of programs/.

  A KeyboardInterrupt or SystemExit that the user's code raises is an error like any other.
  """
  trace = error.__traceback__
  while trace is not None and trace.tb_next is not None:
    trace = trace.tb_next
  if trace is None or isinstance(error, (Exception, OutOfTime)):
    return False
  code = trace.tb_frame.f_code
  raised = dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
  return code.co_filename.startswith(PROGRAMS) or (isinstance(error, KeyboardInterrupt) and not raised)


def describe(error: BaseException) -> str:
  """`KeyError: 'a'`: the type and the text of an error, shortened."""
  try:
    text = str(error)
  except Exception:   # of the user's own class
    text = ""
  text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"
  name = "TimeoutError" if isinstance(error, OutOfTime) else type(error).__name__
  return f"{name}: {text}".rstrip(": ")
