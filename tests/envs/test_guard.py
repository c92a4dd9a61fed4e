"""Code of a user that leaves, doubles or never ends: the caller goes on, and a real signal still ends the process."""

import contextlib
import os
import signal
import sys
import threading
import time

import pytest

from sftrl_jax.envs import guard


def test_a_call_is_a_call():
  assert guard.call(divmod, 7, 2) == (3, 1)
  with pytest.raises(KeyError):
    guard.call({}.__getitem__, "a")


def test_a_call_comes_back_to_its_directory(tmp_path):
  here = os.getcwd()
  for goes in (lambda: os.chdir(tmp_path), lambda: os.chdir(tmp_path) or 1 / 0, lambda: tmp_path.rmdir()):
    with contextlib.suppress(ZeroDivisionError):
      guard.call(goes)
    assert os.getcwd() == here


@pytest.mark.parametrize("leave", [os._exit, sys.exit])
def test_leaving_becomes_an_exception(leave):
  real = os._exit
  with pytest.raises(SystemExit) as error:
    guard.call(lambda: (lambda: os._exit(0) if leave is real else sys.exit(0))())
  assert os._exit is real and not guard.is_signal(error.value) and guard.describe(error.value) == "SystemExit: 0"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")   # of a fork among threads
@pytest.mark.parametrize("in_child", [lambda: 1.0, lambda: 1 / 0, lambda: os._exit(3), sys.exit])
def test_a_child_never_goes_on_as_the_caller(in_child):
  children = []

  def forks():
    children.append(os.fork())
    return 1.0 if children[-1] else in_child()

  process = os.getpid()
  assert guard.call(forks) == 1.0 and os.getpid() == process   # a child that came here would run the other tests too
  assert os.waitstatus_to_exitcode(os.waitpid(children[-1], 0)[1]) in (0, 3)


@pytest.mark.parametrize("swallows", [False, True])
def test_what_never_ends_is_stopped_where_it_is(swallows):
  def hangs():
    while True:
      try:
        while True:
          time.sleep(0.001)
      except Exception:
        if not swallows:
          raise

  before = signal.getsignal(signal.SIGALRM)
  with pytest.raises(guard.OutOfTime, match=r"no verdict within 0\.05 s") as error, guard.time_limit(0.05):
    hangs()
  assert guard.describe(error.value).startswith("TimeoutError: no verdict")
  assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_no_limit_and_a_timer_of_the_users_own_are_left_alone():
  with guard.time_limit(0.0):
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
  signal.setitimer(signal.ITIMER_REAL, 100.0)
  with guard.time_limit(0.01):
    time.sleep(0.02)
  assert signal.setitimer(signal.ITIMER_REAL, 0.0)[0] > 90


def test_ctrl_c_is_told_from_a_raise():
  def interrupted():
    signal.raise_signal(signal.SIGINT)

  def raises():
    raise KeyboardInterrupt

  for function, real in ((interrupted, True), (raises, False)):
    with pytest.raises(KeyboardInterrupt) as error:
      guard.call(function)
    assert guard.is_signal(error.value) == real


def test_a_handler_of_the_programs_is_a_signal(monkeypatch):
  handler = compile("def handler(number, frame):\n  raise SystemExit(75)", f"{guard.PROGRAMS}/runtime/x.py", "exec")
  names = {}
  exec(handler, names)
  before = signal.signal(signal.SIGTERM, names["handler"])
  try:
    with pytest.raises(SystemExit) as error:
      guard.call(signal.raise_signal, signal.SIGTERM)
  finally:
    signal.signal(signal.SIGTERM, before)
  assert guard.is_signal(error.value)


def test_a_long_or_broken_text_is_shortened():
  class Broken(Exception):
    def __str__(self):
      raise ValueError

  assert guard.describe(Broken()) == "Broken" and guard.describe(GeneratorExit()) == "GeneratorExit"
  assert len(guard.describe(ValueError("x" * 10**6))) < 600


def test_calls_of_many_threads_are_each_guarded_and_the_process_is_as_it_was_after_the_last_one(tmp_path):
  """They are all inside at one time, and leave in another order than they came."""
  real, here, count = os._exit, os.getcwd(), 4
  inside, ended, errors = threading.Barrier(count), [threading.Event() for _ in range(count)], {}

  def leaves(number):
    os.chdir(tmp_path)
    inside.wait(20.0)
    if number + 1 < count:
      assert ended[number + 1].wait(20.0)
    os._exit(number)

  def run(number):
    try:
      guard.call(leaves, number)
    except SystemExit as error:
      errors[number] = error.code
    ended[number].set()

  threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(20.0)
  assert errors == {number: number for number in range(count)} and list(errors) == [3, 2, 1, 0]
  assert os._exit is real and os.getcwd() == here


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")   # of a fork among threads
def test_a_child_of_a_thread_never_goes_on_as_the_caller():
  children = []

  def forks():
    children.append(os.fork())

  thread = threading.Thread(target=guard.call, args=(forks,))
  thread.start()
  thread.join(20.0)
  assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


def test_a_thread_that_is_given_up_is_told_so_and_its_line_is_known():
  released, ended = threading.Event(), []

  def hangs():
    while not released.is_set():
      time.sleep(0.001)   # the line

  def run():
    try:
      guard.call(hangs, failed=lambda error: KeyError(error.__traceback__))
    except guard.OutOfTime:
      ended.append(True)

  thread = threading.Thread(target=run)
  thread.start()
  while not guard._calls:
    time.sleep(0.001)
  trace = guard.give_up(thread.ident, 3.0).args[0]
  thread.join(20.0)
  assert ended == [True] and not guard._calls
  names = []
  while trace is not None:
    names, trace = [*names, trace.tb_frame.f_code.co_name], trace.tb_next
  assert names[-2:] == ["call", "hangs"] or names[-1] in ("call", "_enter")   # it may have just begun
  released.set()


def test_an_alarm_rings_for_each_call_though_the_user_takes_its_signal():
  before = signal.getsignal(signal.SIGALRM)
  with guard.Alarm(0.05) as alarm:
    for _ in range(2):
      with pytest.raises(guard.OutOfTime):
        alarm.start()
        try:
          time.sleep(20.0)
        finally:
          alarm.stop()
      signal.signal(signal.SIGALRM, signal.SIG_IGN)
      alarm.start()
      alarm.stop()
  assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
