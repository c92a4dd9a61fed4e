"""Calls of a user's own code that may hang, leave or double the process: the caller gets an exception instead."""

import contextlib
import dis
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

PROGRAMS = str(Path(__file__).parents[1] / "programs")   # handlers of signals are there
LONGEST = 500   # characters of an error's text; a judge may answer with a whole page


class OutOfTime(BaseException):
  """A call that took too long. It is no Exception, because code that hangs often catches those."""


def call(function: Callable, *arguments) -> Any:
  """function(*arguments) in this process alone, and in its directory.

  A child that the function forks ends here, so that it never goes on as a second trainer. `os._exit` of the calling
  thread becomes SystemExit: it would end a run in the middle with whatever exit code.
  """
  process, thread, leave, directory = os.getpid(), threading.get_ident(), os._exit, _directory()

  def refuse(status: int) -> None:
    if os.getpid() != process or threading.get_ident() != thread:
      leave(status)
    raise SystemExit(status)

  os._exit = refuse
  try:
    return function(*arguments)
  finally:
    os._exit = leave
    if os.getpid() != process:
      leave(0)
    if directory and _directory() != directory:   # a workdir may be a path from here
      os.chdir(directory)


def _directory() -> str:
  """The working directory; "" if it has been removed."""
  try:
    return os.getcwd()
  except OSError:
    return ""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
  """Raises OutOfTime in the line where the block is after so many seconds (0: never).

  Python delivers signals to the main thread alone, and not every system has timers: elsewhere there is no limit. One
  long computation inside C is interrupted when it returns. A timer of the user's own is left alone.
  """
  if (not seconds or threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer")
      or signal.getitimer(signal.ITIMER_REAL)[0]):
    yield
    return

  def stop(number: int, frame: FrameType | None) -> None:
    raise OutOfTime(f"no verdict within {seconds:g} s")

  before = signal.signal(signal.SIGALRM, stop)
  signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)   # again every second: a bare `except` may swallow the first
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


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
