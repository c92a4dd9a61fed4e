"""A signal before and after a run ends a command without a traceback, with its exit code."""

import signal
import subprocess
import sys

import pytest

BEGIN = """
import os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)   # whoever runs the tests may ignore it: nohup does, and libtpu
from sftrl_jax.programs.runtime import interrupt
{before}
interrupt.install()

def endless():
  print("ready", flush=True)
  while True:
    time.sleep(0.01)
"""
BOTH = pytest.mark.parametrize("number, code", [
    (signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)])


def ended(body, *signals, before=""):
  """(exit code, what it printed) of a process that gets these signals once it is ready."""
  script = BEGIN.format(before=before) + body
  child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  printed = child.stdout.readline()
  assert printed == "ready\n", printed + child.stdout.read()
  for number in signals:
    child.send_signal(number)
  printed = child.communicate()[0]
  return child.returncode, printed


@BOTH
def test_it_ends_the_process_at_once_wherever_the_main_thread_is(number, code):
  assert ended("endless()", number) == (code, f"Ended by {'Ctrl-C' if number == signal.SIGINT else number.name}. The "
                                              "same command begins again, or goes on from what it has saved.\n")
  waits = "import threading\nlock = threading.Lock()\nprint('ready', flush=True)\nlock.acquire()\nlock.acquire()"
  assert ended(waits, number)[0] == code


WITH_A_FILE = """
from sftrl_jax.main import main
import sftrl_jax.main as module

def run(arguments):
  with interrupt.as_exception():
    try:
      {work}
    finally:
      print("removed", flush=True)

module._run = run
sys.exit(main(["data"]))
"""


@BOTH
def test_a_program_that_asks_for_it_removes_what_is_half_written(number, code):
  status, printed = ended(WITH_A_FILE.format(work="endless()"), number)
  assert status == code and printed.startswith("removed\nInterrupted. The same command") and len(printed) < 120


def test_a_signal_that_is_read_after_its_exception_has_passed_ends_nothing():
  """The thread that reads signals may be late: here the block is over before it reads the one that was raised in it."""
  work = """
import types
inner, outer = interrupt.socket.socketpair()
interrupt.received.append(signal.SIGINT)
signal.signal(signal.SIGINT, interrupt._at_once)
inner.send(bytes([signal.SIGINT]))
interrupt.threading = types.SimpleNamespace(Thread=lambda **arguments: types.SimpleNamespace(start=inner.close))
print("ready", flush=True)
interrupt._listen(inner, outer)
print("goes on")
"""
  assert ended(work) == (0, "goes on\n")


def test_errors_that_a_library_makes_of_it_are_no_errors():
  work = """
      try: endless()
      except BaseException as error: raise ImportError("half imported") from error
"""
  status, printed = ended(WITH_A_FILE.format(work=work), signal.SIGTERM)
  assert status == 75 and "half imported" not in printed and "Traceback" not in printed


def test_a_second_signal_does_not_wait_for_the_first():
  work = """
      while True:
        try: endless()
        except KeyboardInterrupt:
          try: os.kill(os.getpid(), signal.SIGTERM), endless()
          except KeyboardInterrupt: pass
"""
  assert ended(WITH_A_FILE.format(work=work), signal.SIGINT)[0] == 75


def test_a_conversation_lives_on_after_ctrl_c():
  body = """
with interrupt.as_exception(), interrupt.for_conversation():
  try: endless()
  except KeyboardInterrupt: pass
  time.sleep(0.2)
  print("lives", flush=True)
"""
  assert ended(body, signal.SIGINT) == (0, "lives\n")


@BOTH
def test_a_signal_while_python_ends_does_not_change_the_exit_code(number, code):
  body = """
class Slow:
  def __del__(self, sleep=time.sleep, write=os.write):   # called when Python has given up its own handlers
    write(1, b"ready\\n")
    sleep(0.5)

slow = Slow()
slow.itself = slow
interrupt.ignore()
sys.exit(1)
"""
  assert ended(body, number) == (1, "")


def test_a_process_under_nohup_outlives_its_terminal():
  before = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
  assert ended("endless()", signal.SIGHUP, signal.SIGTERM, before=before)[0] == 75
  body = "print('ready', flush=True); time.sleep(0.3); print('lives', flush=True)"
  assert ended(body, signal.SIGHUP, before=before) == (0, "lives\n")
