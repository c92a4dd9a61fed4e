"""Runs as child processes, a few at once. A run starts when the run that it needs is complete.

A run is complete when the `progress.json` of its workdir has the phase "complete" and a checkpoint is there. Children
get the signals that this process gets, and SIGTERM when this process dies, even by SIGKILL.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from sftrl_jax import paths

COMMAND = (sys.executable, "-m", "sftrl_jax")
# The program that a child runs on Linux before it becomes the command: it asks for SIGTERM when its parent dies (1 is
# PR_SET_PDEATHSIG of linux/prctl.h), ends if the parent has died before that (143 is the exit code of SIGTERM), and
# replaces itself. Popen's preexec_fn could ask the same, but it runs Python in a fork of this process, of which JAX
# warns wherever it has been imported.
ASK_FOR_SIGTERM = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == int(sys.argv[1]) or os._exit(143); os.execv(sys.argv[2], sys.argv[2:])")


@dataclasses.dataclass(frozen=True)
class ChildRun:
  """One command of the command line.

  words: the words after `sftrl`
  log: file for its stdout and stderr
  needs: the name of the run that has to be complete first, "" for none
  """

  name: str
  words: tuple[str, ...]
  workdir: Path
  log: Path
  needs: str = ""


@dataclasses.dataclass(frozen=True)
class Moment:
  """The runs that are alive, and (run, exit code) of those that ended since the last moment."""

  live: tuple[ChildRun, ...]
  ended: tuple[tuple[ChildRun, int], ...]


def progress(run: ChildRun) -> dict:
  """The content of the run's progress.json; {} while there is none."""
  try:
    return json.loads((run.workdir / "progress.json").read_text())
  except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
    return {}


def is_complete(run: ChildRun) -> bool:
  """Whether a run has ended and its model is there."""
  return progress(run).get("phase") == "complete" and bool(paths.steps(run.workdir / "checkpoints"))


def supervise(runs: Sequence[ChildRun], jobs: int, environment: Mapping[str, str], received: list[int],
              keep: Sequence[int] = (), pause: float = 0.2) -> Iterator[Moment]:
  """Starts all runs that are not complete, at most `jobs` at once, and yields a Moment every `pause` seconds.

  runs: in order of preference. It starts the first one that may start, and none whose `needs` failed.
  environment: variables added for the children
  received: signal numbers (see `signals`), to which the caller may add while this iterates. It sends the first one to
    every child and ends when all of them have ended; a second one kills them.
  keep: file descriptors that the children inherit

  A caller that stops iterating closes this generator; the `finally` block then ends the children.
  """
  complete = {run.name for run in runs if is_complete(run)}
  waiting = [run for run in runs if run.name not in complete]
  live = {}
  try:
    while waiting or live:
      ended = [(run, child.returncode) for run, child in live.items() if child.poll() is not None]
      live = {run: child for run, child in live.items() if child.returncode is None}
      complete |= {run.name for run, code in ended if code == 0}
      waiting = _still_possible(waiting, complete, live)
      while not received and len(live) < jobs and (run := _next(waiting, complete)):
        live[run] = _start(run, environment, keep)
        waiting.remove(run)
      yield Moment(tuple(live), tuple(ended))
      if received:
        _stop(live, received)
        return
      time.sleep(pause if live else 0)
  finally:
    _stop(live, [signal.SIGTERM])


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
  """Yields a list that collects SIGINT and SIGTERM. They have no other effect until the block ends."""
  received = []
  before = {number: signal.signal(number, lambda signal_number, frame: received.append(signal_number))
            for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def tail(run: ChildRun, lines: int = 12) -> str:
  """The last lines of the run's log."""
  try:
    return "\n".join(run.log.read_text(errors="replace").splitlines()[-lines:])
  except FileNotFoundError:
    return "(no log)"


def _next(waiting: Sequence[ChildRun], complete: Collection[str]) -> ChildRun | None:
  """The first run that may start, None if there is none. complete: names of runs."""
  return next((run for run in waiting if not run.needs or run.needs in complete), None)


def _still_possible(waiting: Sequence[ChildRun], complete: set[str], live: Collection[ChildRun]) -> list[ChildRun]:
  """The waiting runs whose `needs` is complete, alive or waiting too: the run that others need has not failed."""
  possible = complete | {run.name for run in live} | {run.name for run in waiting}
  return [run for run in waiting if not run.needs or run.needs in possible]


def _start(run: ChildRun, environment: Mapping[str, str], keep: Sequence[int]) -> subprocess.Popen:
  run.log.parent.mkdir(parents=True, exist_ok=True)
  command = [*_with_parent(), *COMMAND, *run.words]
  with run.log.open("a") as log:
    log.write(f"$ sftrl {' '.join(run.words)}\n")
    log.flush()
    # In a session of its own, a child gets Ctrl-C once, from this process, and not a second time from the terminal.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                            env={**os.environ, **environment}, pass_fds=keep, start_new_session=True)


def _with_parent() -> list[str]:
  """The words before a command that make it end when this process dies; none where the system cannot do that."""
  if not sys.platform.startswith("linux"):
    return []
  return [sys.executable, "-I", "-S", "-c", ASK_FOR_SIGTERM, str(os.getpid())]


def _stop(live: Mapping[ChildRun, subprocess.Popen], received: Sequence[int]) -> None:
  """Sends the first signal to every child and waits until all have written their checkpoints and ended."""
  for child in live.values():
    if child.poll() is None:
      child.send_signal(received[0])
  while any(child.poll() is None for child in live.values()):
    if len(received) > 1:
      for child in live.values():
        child.kill()
    time.sleep(0.05)
