"""A run that hangs is ended with its stacks; one that makes progress, however slowly, is not."""

import subprocess
import sys
import time

from sftrl_jax.programs.runtime.watchdog import HUNG, Watchdog, patience

HANGS = """
import threading
from sftrl_jax.programs.runtime.watchdog import Watchdog
dog = Watchdog(0.2, tick=0.05)
def the_collective_that_never_ends():
  threading.Event().wait()
the_collective_that_never_ends()
"""


def test_a_hang_dumps_the_stacks_and_ends_the_process():
  done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False)
  assert done.returncode == HUNG
  assert "no progress for 0 s (config.log.watchdog_seconds)" in done.stderr
  assert "in the_collective_that_never_ends" in done.stderr


def test_progress_keeps_it_quiet_and_none_is_asked_of_one_process():
  dog = Watchdog(0.2, tick=0.02)
  for _ in range(10):
    dog.heartbeat()
    time.sleep(0.05)
  dog.close()
  assert patience(-1, several=False) == 0.0 and patience(-1, several=True) == 1800.0
  assert patience(60.0, several=False) == 60.0 and patience(0.0, several=True) == 0.0
