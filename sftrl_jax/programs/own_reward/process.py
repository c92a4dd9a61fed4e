"""The run's end of the process of a user's reward function (worker.py): begun anew where it dies or hangs."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sftrl_jax.envs.referee import TaskError
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.own_reward.calls import Form
from sftrl_jax.programs.own_reward.config import OwnRewardConfig
from sftrl_jax.programs.own_reward.worker import PATIENCE, receive, send

PACKAGE = Path(__file__).parents[3]
MOST = 1 << 24          # bytes of an answer
TRIES = 3               # of a call whose worker was ended for another call
TRACE_SECONDS = 0.5     # for a traceback of what hangs


class NoAnswer(Exception):
  """A call that has no answer: it took too long, or its process has ended. The text names the line if it is known.

  own: whether this call may be the reason; else the process was ended for another one
  """

  def __init__(self, message: str, own: bool = True):
    super().__init__(message)
    self.own = own


class WorkerProcess:
  """One life of the process, from its import of the file to its end. Several threads may call at one time."""

  def __init__(self, name: str, own: OwnRewardConfig):
    """Starts it and waits until the file is imported. ConfigError for what cannot be, which names file and line."""
    self.given_up = False   # whether the run has ended it, for a call that took too long
    self._own, self._pid, self._changed = own, 0, threading.Condition()
    self._control, control = socket.socketpair()
    self._lanes: list[socket.socket] = []   # a request and its answer at a time on each
    self._free: list[socket.socket] = []
    traces, trace = os.pipe()
    os.set_blocking(traces, False)
    self._traces = os.fdopen(traces, "rb", buffering=0)
    paths = os.pathsep.join(dict.fromkeys([str(PACKAGE), *filter(None, sys.path)]))
    words = [str(control.fileno()), str(trace), name, str(int(own.memory_gib * 2**30)), str(own.output_kib << 10)]
    try:   # JAX_PLATFORMS: an accelerator is the run's own
      self._keeper = subprocess.Popen(
          [sys.executable, "-uP", "-m", "sftrl_jax.programs.own_reward.worker", *words], stdin=subprocess.DEVNULL,
          stdout=subprocess.DEVNULL, pass_fds=(control.fileno(), trace), start_new_session=True,
          env={**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"})
    finally:
      control.close()
      os.close(trace)
    self.form, self._pid = self._greeted(name)
    self._add_lane()

  def _greeted(self, name: str) -> tuple[Form, int]:
    """(what the function is, the worker's process)."""
    try:
      hello = receive(self._control, MOST, _until(time.monotonic() + self._own.start_seconds))
    except TimeoutError:
      self.end()
      raise ConfigError(f"config.reward is {name!r}, but importing the file takes over {self._own.start_seconds:g} s: "
                        "use a larger --config.own_reward.start_seconds, or load less there.") from None
    except (OSError, ValueError):
      hello = None
    if not isinstance(hello, dict):
      how = self.end()
      line = self._traced(name.rpartition(":")[0])
      raise ConfigError(f"{line or name}: config.reward names this file, but its process {how} while it was imported: "
                        "run it with Python to see why.")
    if "error" in hello:
      self.end()
      raise ConfigError(hello["error"])
    form = {key: tuple(value) if isinstance(value, list) else value for key, value in hello["form"].items()}
    return Form(**form), int(hello["pid"])

  def ask(self, request: dict) -> dict:
    """The answer to a request. NoAnswer where there is none, after which this process is over."""
    lane, until = self._taken(), time.monotonic() + self._own.seconds
    try:
      lane.settimeout(self._own.seconds)
      send(lane, request)
      answer = receive(lane, MOST, _until(until))
    except TimeoutError:
      self.given_up = True
      line = self._line_of_hanging()
      self.end()
      raise NoAnswer(f"{line or self.form.where}: TimeoutError: no reward within {self._own.seconds:g} s "
                     "(config.own_reward.seconds); its process was ended, and begins anew") from None
    except (OSError, ValueError, RecursionError):   # it is gone, or what came is no answer
      answer = None
    except BaseException:   # a limit of the run's own: the answer to this would be taken for that of the next request
      self.given_up = True
      self.end()
      raise
    if not isinstance(answer, dict):
      given_up, how = self.given_up, self.end()
      line = self._traced(self.form.file)
      raise NoAnswer(f"{line or self.form.where}: the process of the reward function {how}; another one begins",
                     own=not given_up)
    with self._changed:
      self._free.append(lane)
      self._changed.notify()
    return answer

  def end(self) -> str:
    """Ends the process with all that it has started, and says how it had ended by itself."""
    for sock in (self._control, *self._lanes):
      with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)   # wakes the threads that wait for an answer
    try:
      code = self._keeper.wait(2 * PATIENCE)
    except subprocess.TimeoutExpired:
      for group in filter(None, (self._pid, self._keeper.pid)):
        with contextlib.suppress(OSError):
          os.killpg(group, signal.SIGKILL)
      return "did not end in time"
    if code > 128:
      return f"was killed by {_name_of(code - 128)}"
    return f"has left with exit code {code}"

  @property
  def ended(self) -> bool:
    return self._keeper.poll() is not None

  def _taken(self) -> socket.socket:
    """A lane that nobody uses: another one where threads may call at one time, else the only one."""
    with self._changed:
      if not self._free and self.form.thread_safe:
        self._add_lane()
      while not self._free:
        self._changed.wait(1.0)
        if self.given_up or self.ended:
          raise NoAnswer(f"{self.form.where}: the process of the reward function has ended", own=False)
      return self._free.pop()

  def _add_lane(self) -> None:
    ours, theirs = socket.socketpair()
    with contextlib.suppress(OSError), theirs:   # of a process that has ended, a lane says so
      socket.send_fds(self._control, [b"L"], [theirs.fileno()])
    self._lanes.append(ours)
    self._free.append(ours)

  def _line_of_hanging(self) -> str:
    with contextlib.suppress(OSError):
      os.kill(self._pid, signal.SIGUSR1)
      select.select([self._traces], [], [], TRACE_SECONDS)
      time.sleep(0.05)   # it is written in pieces
    return self._traced(self.form.file)

  def _traced(self, file: str) -> str:
    """The line of the user's file in the newest traceback that the process has left; "" if there is none."""
    text = b""
    while part := self._traces.read(1 << 16):   # None where there is no more for now
      text += part
    for path, line, function in re.findall(r'File "(.+)", line (\d+) in (.+)', text.decode(errors="replace")):
      if file and Path(path) == Path(file):
        return f"{path}, line {line}, in {function}"
    return ""

  def __del__(self):
    for each in (self._control, *self._lanes, self._traces):
      each.close()


class FunctionProcess:
  """The process of a function through all its lives."""

  def __init__(self, name: str, own: OwnRewardConfig):
    self._name, self._own, self._starting = name, own, threading.Lock()
    self._worker = WorkerProcess(name, own)
    self.form = self._worker.form

  def ask(self, request: dict) -> dict:
    """The answer to a request. NoAnswer where there is none; TaskError if the file can no longer be imported."""
    for attempt in range(TRIES):
      worker = self._living()
      try:
        return worker.ask(request)
      except NoAnswer as error:
        if error.own or attempt + 1 == TRIES:
          raise
    raise AssertionError("the last try returns or raises")

  def _living(self) -> WorkerProcess:
    with self._starting:
      if self._worker.given_up or self._worker.ended:
        try:
          self._worker = WorkerProcess(self._name, self._own)
        except ConfigError as error:
          raise TaskError(str(error)) from error
      return self._worker

  def end(self) -> None:
    """Ends it. A call after this begins another one."""
    self._worker.end()


def _until(end: float) -> Callable[[], float]:
  """The seconds that are left, for a socket; TimeoutError where none are."""
  def left() -> float:
    seconds = end - time.monotonic()
    if seconds <= 0:
      raise TimeoutError
    return seconds
  return left


def _name_of(number: int) -> str:
  try:
    return signal.Signals(number).name
  except ValueError:
    return f"signal {number}"
