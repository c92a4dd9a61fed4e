"""Runs as processes, a few at once: started when what they need is complete, watched, stopped cleanly, never lost.

A run is complete when the `progress.json` of its workdir says so. A child is told to stop with the signal that this
process got, and with SIGTERM should this process die without a word.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = (sys.executable, "-m", "sftrl_jax")
# What a child is on Linux before it becomes the command: it asks for SIGTERM when its parent dies, even by SIGKILL
# (1 is PR_SET_PDEATHSIG of linux/prctl.h). Popen's preexec_fn would ask the same in a fork of this process, of which
# JAX warns wherever it has been imported; without one Popen never runs Python between fork and exec.
WARD = ("import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
        "os.getppid() == int(sys.argv[1]) or os._exit(143); os.execv(sys.argv[2], sys.argv[2:])")


@dataclasses.dataclass(frozen=True)
class Run:
  """One command of the command line.

  words: what follows `sftrl`. needs: the name of the run that has to be complete first, "" for none.
  """

  name: str
  words: tuple[str, ...]
  workdir: Path
  log: Path
  needs: str = ""


@dataclasses.dataclass(frozen=True)
class Moment:
  """How things stand: runs that are going, and (run, exit code) of those that ended since the moment before."""

  live: tuple[Run, ...]
  ended: tuple[tuple[Run, int], ...]


def progress(run) -> dict:
  """What the run last wrote to its progress.json; {} while there is none."""
  try:
    return json.loads((run.workdir / "progress.json").read_text())
  except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
    return {}


def is_complete(run) -> bool:
  return progress(run).get("phase") == "complete"


def supervise(runs, jobs, environment, received, keep=(), pause=0.2):
  """Runs everything, at most `jobs` at once, and yields a Moment every `pause` seconds.

  runs: in order of preference; of those that may go the first is started. A run whose `needs` failed is left out.
  environment: variables added for the children. received: a list to which signal numbers are added while this goes on;
  the first is handed to every child and ends the iteration when they have all ended, a second kills them. keep: file
  descriptors that the children inherit.
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
def signals():
  """A list that collects SIGINT and SIGTERM instead of what they do otherwise, for as long as the block lasts."""
  received = []
  before = {number: signal.signal(number, lambda got, frame: received.append(got))
            for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def tail(run, lines=12) -> str:
  """The last lines of the run's log."""
  try:
    return "\n".join(run.log.read_text(errors="replace").splitlines()[-lines:])
  except FileNotFoundError:
    return "(no log)"


def _next(waiting, complete):
  """The run to start now: the first one that may go, None if there is none."""
  return next((run for run in waiting if not run.needs or run.needs in complete), None)


def _still_possible(waiting, complete, live) -> list:
  possible = complete | {run.name for run in live} | {run.name for run in waiting}
  return [run for run in waiting if not run.needs or run.needs in possible]


def _start(run, environment, keep):
  run.log.parent.mkdir(parents=True, exist_ok=True)
  command = [*_warded(), *COMMAND, *run.words]
  with run.log.open("a") as log:
    log.write(f"$ sftrl {' '.join(run.words)}\n")
    log.flush()
    # A session of its own keeps Ctrl-C of the terminal from reaching the child twice: this process hands it on.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                            env={**os.environ, **environment}, pass_fds=keep, start_new_session=True)


def _warded() -> list[str]:
  """The words before a command that make it end with this process, where the system can do that."""
  if not sys.platform.startswith("linux"):
    return []
  return [sys.executable, "-I", "-S", "-c", WARD, str(os.getpid())]


def _stop(live, received) -> None:
  """Hands the first signal to every child and waits until all have written their checkpoints and ended."""
  for child in live.values():
    if child.poll() is None:
      child.send_signal(received[0])
  while any(child.poll() is None for child in live.values()):
    if len(received) > 1:
      for child in live.values():
        child.kill()
    time.sleep(0.05)
