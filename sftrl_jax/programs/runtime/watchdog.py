"""Ends a run that makes no progress: on a pod, one process that hangs would block all others without a message."""

import faulthandler
import os
import sys
import threading

HUNG = 70   # exit code: a crash, after which a supervisor starts the run again
AUTOMATIC = 1800.0   # seconds, for several processes


class Watchdog:
  """Dumps the stacks of all threads and ends the process after `seconds` without a heartbeat; 0: never.

  tick: seconds between two looks. It counts ticks instead of reading a clock, so that the time in which a process is
  suspended does not count.
  """

  def __init__(self, seconds: float, tick: float = 1.0):
    self.seconds, self.tick, self._silent, self._ended = seconds, tick, 0.0, threading.Event()
    self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
    if seconds:
      self._thread.start()

  def heartbeat(self) -> None:
    """Reports progress: a step, a turn of conversations, a compilation, the evaluation of a variant."""
    self._silent = 0.0

  def close(self) -> None:
    """Ends the watch; the process lives on."""
    self._ended.set()

  def _watch(self) -> None:
    while not self._ended.wait(self.tick):
      self._silent += self.tick
      if self._silent > self.seconds:
        print(f"error: no progress for {self.seconds:.0f} s (config.log.watchdog_seconds): this process ends; below "
              "are the stacks of its threads. The same command resumes from the last checkpoint.", file=sys.stderr,
              flush=True)
        faulthandler.dump_traceback(all_threads=True)
        sys.stdout.flush()
        os._exit(HUNG)


def patience(seconds: float, several: bool) -> float:
  """The seconds of a watchdog.

  seconds: config.log.watchdog_seconds; -1: AUTOMATIC for several processes, else never
  """
  return (AUTOMATIC if several else 0.0) if seconds == -1 else seconds
