"""Signals end a run in good order, in time, and never with a step half saved."""

import os
import signal
import subprocess
import sys
import time

import pytest

# A run of a process: what it does on its main thread is given by a test, `kept` and the rest are the real ones.
BEGIN = """
import os, signal, sys, time
from sftrl_jax.programs.runtime.shutdown import stopping

def save():
  print("saved", flush=True)

def endless():
  while True:
    time.sleep(0.01)

with stopping({grace}) as stop:
  stop.set_savepoint(save)
  print("ready", flush=True)
"""


def run(body, *signals, grace=0.3):
  """(exit code, output, seconds from the first signal) of a process that gets these signals once it is ready."""
  script = BEGIN.format(grace=grace) + "".join(f"  {line}\n" for line in body.strip().splitlines())
  child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  assert child.stdout.readline() == "ready\n"
  began = time.monotonic()
  for number in signals:
    child.send_signal(number)
    time.sleep(0.1)
  printed = child.stdout.read()
  return child.wait(), printed, time.monotonic() - began


BOTH = pytest.mark.parametrize("number, code", [(signal.SIGTERM, 75), (signal.SIGINT, 130)])


@BOTH
def test_a_step_that_ends_in_time_is_finished_and_saved_by_its_own_thread(number, code):
  body = """
while not stop.requested: time.sleep(0.01)
try: stop.leave(save)
except KeyboardInterrupt: sys.exit(130)
"""
  status, printed, _ = run(body, number, grace=60)
  assert (status, printed) == (code, "saved\n")


@BOTH
def test_a_step_that_does_not_end_is_dropped_after_the_grace_and_what_was_kept_is_saved(number, code):
  status, printed, seconds = run("endless()", number)
  assert (status, printed) == (code, "saved\n") and seconds >= 0.3


def test_a_computation_that_never_comes_back_to_python_is_dropped_too():
  body = "import threading; threading.Lock().__enter__(); os.read(os.pipe()[0], 1)"
  assert run(body, signal.SIGTERM)[:2] == (75, "saved\n")


def test_between_steps_nothing_is_waited_for():
  assert run("stop.set_savepoint(save, between=True); endless()", signal.SIGTERM, grace=60)[:2] == (75, "saved\n")


def test_while_an_update_consumes_the_state_nothing_is_saved():
  body = """
stop.begin_update(0.0)
while not stop.requested: time.sleep(0.01)
time.sleep(0.8)
print("updated", flush=True)
stop.set_savepoint(lambda: print("saved after", flush=True))
endless()
"""
  assert run(body, signal.SIGTERM)[:2] == (75, "updated\nsaved after\n")


def test_an_update_that_would_not_end_in_time_is_not_begun():
  body = """
while not stop.requested: time.sleep(0.01)
stop.begin_update(100.0)
print("never")
"""
  status, printed, seconds = run(body, signal.SIGTERM, grace=20)
  assert (status, printed) == (75, "saved\n") and seconds < 10


def test_a_second_signal_ends_at_once_with_the_code_of_the_first():
  status, printed, _ = run("endless()", signal.SIGINT, signal.SIGTERM, grace=60)
  assert status == 130 and "A second signal" in printed and "saved" not in printed


def test_a_save_that_fails_is_told_and_is_no_clean_stop():
  body = """
def save(): raise RuntimeError("no room")
stop.set_savepoint(save)
endless()
"""
  status, printed, _ = run(body, signal.SIGTERM)
  assert status == 1 and "no room" in printed


def test_signals_are_as_they_were_afterwards():
  from sftrl_jax.programs.runtime.shutdown import stopping
  before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  with stopping(60) as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    while not stop.requested:
      time.sleep(0.01)
    assert stop.received == [signal.SIGTERM]
    with pytest.raises(SystemExit) as ended:
      stop.leave(lambda: None)
    assert ended.value.code == 75
  assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
