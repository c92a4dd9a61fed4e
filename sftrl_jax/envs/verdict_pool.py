"""Calls of an environment at one time, in threads: for those that wait, for a server, a process or a sleep.

The threads are daemons, and not those of concurrent.futures, because Python ends only after it has joined the latter:
a verdict that never comes would keep a run from its end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import queue
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sftrl_jax.envs import guard
from sftrl_jax.envs.referee import EpisodeError

# Threads take turns in Python, and handing a call to one costs about 0.1 ms: faster calls gain nothing by them.
SLOW = 1e-3   # seconds of a call from which on threads are used
# Calls, and seconds, of which one is reached before others go to threads: a single call is slow where it loads
# something, or where another process has the processor.
TRIALS, PATIENCE = 3, 1.0
SPOILS = (EpisodeError, guard.OutOfTime)   # errors of one episode, which the others never notice


class Outcome(NamedTuple):
  """What a call returned, or the error that it raised."""

  value: Any = None
  error: BaseException | None = None

  def get(self) -> Any:
    """The value. Raises the error."""
    if self.error is None:
      return self.value
    raise self.error


@dataclasses.dataclass(eq=False)
class _Task:
  """A call on its way through a thread.

  ended: gets (number, outcome, seconds)
  running: of the tasks that are handed over together, those that a thread has taken and `ended` has not given back
  settled: acquired once, by the thread when the call has ended, or by whoever waits for it no longer
  thread, began: which took it, and when (time.monotonic)
  """

  number: int
  call: Callable[[], Any]
  ended: queue.SimpleQueue
  running: dict[int, _Task]
  settled: threading.Lock = dataclasses.field(default_factory=threading.Lock)
  thread: threading.Thread | None = None
  began: float = 0.0


class VerdictPool:
  """At most `workers` calls at one time; with 1, all run in the calling thread, one after another.

  Of a pool with more, each kind of call begins in the calling thread, and stays there as long as it is fast. So the
  outcomes of calls that depend on their arguments alone are the same for any `workers`.
  """

  def __init__(self, workers: int = 1):
    self.workers = workers
    self._waiting: queue.SimpleQueue = queue.SimpleQueue()
    self._threads: list[threading.Thread] = []
    self._given_up: list[threading.Thread] = []
    self._slow: dict[str, bool] = {}   # by kind of call, as the last of them were

  def start(self, kind: str, calls: Sequence[Callable[[], Any]], seconds: float = 0.0, at_once: bool = True
            ) -> Callable[[], list[Outcome]]:
    """Begins calls, and returns the function that waits for them and returns their outcomes, in order.

    kind: of calls that take about equally long
    seconds: that each of them may take, from when it begins (0: any); one that takes longer ends in OutOfTime
    at_once: whether threads may call at one time; else all have been called, in order, when this returns

    Raises at once, or where one waits, what a call raises that is none of SPOILS: of several, the first one's.
    """
    self._given_up = [thread for thread in self._given_up if thread.is_alive()]
    for thread in self._given_up:   # it may have caught the first OutOfTime
      guard.interrupt(thread.ident)
    outcomes, spent, took, late = [], 0.0, [], 0
    threads, slow = at_once and self.workers > 1, self._slow.get(kind, False)
    with guard.Alarm(seconds) as alarm:
      for number, call in enumerate(calls):
        if threads and (slow or (2 * late > number and (number >= TRIALS or spent > PATIENCE))):
          break
        outcome, each = _timed(call, alarm)
        if outcome.error is not None and not isinstance(outcome.error, SPOILS):
          raise outcome.error
        outcomes.append(outcome)
        took.append(each)
        spent, late = spent + each, late + (each > SLOW)
    if len(outcomes) == len(calls):
      self._note(kind, took)
      return lambda: outcomes
    ended, running = queue.SimpleQueue(), {}
    tasks = [_Task(number, call, ended, running) for number, call in enumerate(calls[len(outcomes):])]
    self._add_threads(len(tasks))
    for task in tasks:
      self._waiting.put(task)

    def collect() -> list[Outcome]:
      later = self._collect(tasks, seconds, took)
      self._note(kind, took)
      for outcome in later:
        if outcome.error is not None and not isinstance(outcome.error, SPOILS):
          raise outcome.error
      return [*outcomes, *later]

    return collect

  def _note(self, kind: str, took: Sequence[float]) -> None:
    if took:
      self._slow[kind] = statistics.median(took) > SLOW

  def _add_threads(self, wanted: int) -> None:
    self._threads = [thread for thread in self._threads if thread.is_alive()]
    for _ in range(min(wanted, self.workers) - len(self._threads)):
      thread = threading.Thread(target=_serve, args=(self._waiting,), name="verdicts", daemon=True)
      self._threads.append(thread)
      thread.start()

  def _collect(self, tasks: Sequence[_Task], seconds: float, took: list[float]) -> list[Outcome]:
    """The outcomes of the tasks. took: gets the seconds of each."""
    outcomes: dict[int, Outcome] = {}
    ended, running = tasks[0].ended, tasks[0].running
    try:
      while len(outcomes) < len(tasks):
        try:
          number, outcome, each = ended.get(timeout=_left(list(running.values()), seconds))
          took.append(each)
        except queue.Empty:
          for task in list(running.values()):
            if time.monotonic() >= task.began + seconds and task.settled.acquire(blocking=False):
              outcomes[task.number] = self._give_up(task, seconds)
              took.append(seconds)
        else:
          outcomes[number] = outcome
          del running[number]
    finally:   # where this ends by an exception, those that have not begun never do
      for task in tasks:
        task.settled.acquire(blocking=False)
    return [outcomes[task.number] for task in tasks]

  def _give_up(self, task: _Task, seconds: float) -> Outcome:
    """The outcome of a call that is overdue. Its thread ends with the call, if ever; another one takes its place."""
    error = guard.give_up(task.thread.ident, seconds)
    del task.running[task.number]
    self._threads = [thread for thread in self._threads if thread is not task.thread]
    self._given_up.append(task.thread)
    self._add_threads(len(self._threads) + 1)
    return Outcome(error=error)


@functools.cache
def shared(workers: int) -> VerdictPool:
  """The pool of this process with so many workers, which knows from earlier calls which kinds are slow."""
  return VerdictPool(workers)


def _serve(waiting: queue.SimpleQueue) -> None:
  """The life of a thread: it ends when its call was given up.

  OutOfTime may be raised in any line of a thread that was given up: so there are no locks here but `settled`, which
  is never released, and queues written in C.
  """
  with contextlib.suppress(guard.OutOfTime):
    while True:
      task = waiting.get()
      if task.settled.locked():
        continue
      task.thread, task.began = threading.current_thread(), time.monotonic()
      task.running[task.number] = task
      outcome, each = _timed(task.call, guard.Alarm())
      if not task.settled.acquire(blocking=False):
        return
      task.ended.put((task.number, outcome, each))


def _timed(call: Callable[[], Any], alarm: guard.Alarm) -> tuple[Outcome, float]:
  """(the outcome of a call, the seconds that it took)."""
  began = time.perf_counter()
  try:
    alarm.start()
    try:
      outcome = Outcome(call())
    finally:
      alarm.stop()
  except BaseException as error:   # whoever waits for the outcome raises it
    outcome = Outcome(error=error)
  return outcome, time.perf_counter() - began


def _left(running: Sequence[_Task], seconds: float) -> float | None:
  """Seconds in which no call becomes overdue; None without a limit."""
  if not seconds:
    return None
  now = time.monotonic()   # what begins after it has at least `seconds`
  return max(0.0, min([seconds, *(task.began + seconds - now for task in running)]))
