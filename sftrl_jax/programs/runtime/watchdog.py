"""A run that makes no progress is ended: on a pod one process that hangs holds all the others, silently, for ever."""

import faulthandler
import os
import sys
import threading

HUNG = 70   # exit code, a crash
AUTOMATIC = 1800.0   # seconds, where several processes run together


class Watchdog:
  """Dumps the stacks of all threads and ends the process after so many seconds without `fed`; 0: never.

  It counts its own ticks instead of asking a clock, so that a process that was suspended has time to go on.
  """

  def __init__(self, seconds: float, tick: float = 1.0):
    self.seconds, self.tick, self._hungry, self._ended = seconds, tick, 0.0, threading.Event()
    self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
    if seconds:
      self._thread.start()

  def heartbeat(self) -> None:
    """There is progress: a step, a turn of conversations, a program compiled, a variant evaluated."""
    self._hungry = 0.0

  def close(self) -> None:
    self._ended.set()

  def _watch(self) -> None:
    while not self._ended.wait(self.tick):
      self._hungry += self.tick
      if self._hungry > self.seconds:
        print(f"error: no progress for {self.seconds:.0f} s (config.log.watchdog_seconds): this process ends; below is "
              "where it stood. The same command goes on from the last checkpoint.", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        sys.stdout.flush()
        os._exit(HUNG)


def patience(seconds: float, several: bool) -> float:
  """config.log.watchdog_seconds, of which -1 stands for what suits the number of processes."""
  return (AUTOMATIC if several else 0.0) if seconds == -1 else seconds
