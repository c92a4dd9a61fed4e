"""A pool of calls: outcomes as of calls one after another, whenever each ends, and no call keeps the process alive."""

import functools
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from sftrl_jax.envs import guard
from sftrl_jax.envs.referee import EpisodeError, TaskError
from sftrl_jax.envs.verdict_pool import SLOW, TRIALS, VerdictPool, shared

LONG = 20.0   # seconds: a test that waits so long has failed


def slow_pool(workers=4):
  """A pool whose calls of the kind "step" all go to threads."""
  pool = VerdictPool(workers)
  pool.start("step", [functools.partial(time.sleep, 2 * SLOW)])()
  return pool


def outcomes(pool, calls, **options):
  return [outcome.value if outcome.error is None else outcome.error for outcome in pool.start(
      "step", calls, **options)()]


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("seconds", [0.0, LONG])
def test_outcomes_come_in_the_order_of_the_calls(workers, seconds):
  spoiled = EpisodeError("reward", "none")

  def call(number):
    if number == 5:
      raise spoiled
    return number

  calls = [functools.partial(call, number) for number in range(20)]
  expected = [*range(5), spoiled, *range(6, 20)]
  for pool in (VerdictPool(workers), slow_pool(workers)):
    assert outcomes(pool, calls, seconds=seconds) == expected
    assert outcomes(pool, []) == []


def test_calls_that_end_in_reverse_order_change_nothing():
  count = 4
  ended = [threading.Event() for _ in range(count + 1)]
  ended[count].set()
  order = []

  def call(number):
    assert ended[number + 1].wait(LONG)   # of the call after it: they must run at one time
    order.append(number)
    ended[number].set()
    return number

  assert outcomes(slow_pool(count), [functools.partial(call, number) for number in range(count)]) == [0, 1, 2, 3]
  assert order == [3, 2, 1, 0]


def test_no_more_than_workers_run_at_one_time_and_all_of_them_do():
  barrier, lock, running, most = threading.Barrier(3), threading.Lock(), [0], [0]

  def call():
    with lock:
      running[0] += 1
      most[0] = max(most[0], running[0])
    barrier.wait(LONG)   # passes three together
    with lock:
      running[0] -= 1

  assert outcomes(slow_pool(3), [call] * 9) == [None] * 9
  assert most[0] == 3


def test_fast_calls_and_calls_that_are_not_for_threads_stay_in_the_calling_thread():
  fast, slow = threading.get_ident, lambda: time.sleep(2 * SLOW) or threading.get_ident()
  here = threading.get_ident()
  assert set(outcomes(VerdictPool(4), [fast] * 30)) == {here}
  assert set(outcomes(VerdictPool(1), [slow] * 3)) == {here}
  assert set(outcomes(slow_pool(), [slow] * 3, at_once=False)) == {here}
  assert set(outcomes(VerdictPool(4), [slow, *[fast] * 30])) == {here}   # a single slow one
  threads = outcomes(pool := VerdictPool(4), [slow] * (TRIALS + 5))
  assert set(threads[:TRIALS]) == {here} and here not in threads[TRIALS:]   # the first ones showed that they are slow
  assert here not in outcomes(pool, [slow] * 3)
  assert pool.start("reset", [fast])()[0].value == here   # each kind by itself


def test_one_very_slow_call_is_trial_enough(monkeypatch):
  monkeypatch.setattr("sftrl_jax.envs.verdict_pool.PATIENCE", SLOW)
  threads = outcomes(VerdictPool(4), [lambda: time.sleep(2 * SLOW) or threading.get_ident()] * 5)
  assert threads[0] == threading.get_ident() and threads[0] not in threads[1:]


def test_calls_that_have_become_fast_come_back_to_the_calling_thread():
  pool = slow_pool()
  pool.start("step", [threading.get_ident] * 5)()
  assert set(outcomes(pool, [threading.get_ident] * 5)) == {threading.get_ident()}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_mistake_ends_the_play_and_of_several_the_first_one_is_raised(workers):
  later = threading.Event()

  def mistake(number):
    if workers > 1 and number == 1:
      assert later.wait(LONG)
    later.set()
    raise TaskError(f"mistake {number}")

  wait = lambda: slow_pool(workers).start("step", [int, *(functools.partial(mistake, number) for number in (1, 2))])()
  with pytest.raises(TaskError, match="mistake 1"):
    wait()


def test_what_starts_is_not_waited_for_until_it_is_asked_for():
  released = threading.Event()
  collect = slow_pool().start("step", [lambda: released.wait(LONG)] * 6)
  released.set()   # were `start` to wait, this would come too late
  assert [outcome.value for outcome in collect()] == [True] * 6


def hanging(released):
  while not released.is_set():
    time.sleep(0.001)


@pytest.mark.parametrize("hang", [lambda released: released.wait(LONG), hanging])   # in C, and in Python
def test_a_hang_ends_at_its_limit_in_its_line_and_the_others_never_notice(hang):
  """Two hang, and two workers have more to do: others take their places."""
  released, pool = threading.Event(), slow_pool(2)
  made = lambda error: EpisodeError("reward", f"{error.__traceback__ is not None} {guard.describe(error)}")
  hangs = lambda: guard.call(hang, released, failed=made)
  began = time.monotonic()
  try:
    got = outcomes(pool, [hangs, *[lambda: "right"] * 5, hangs, lambda: "right"], seconds=0.2)
    assert time.monotonic() - began < LONG / 2
    assert [type(each) for each in got] == [EpisodeError, *[str] * 5, EpisodeError, str]
    assert str(got[0]) == "True TimeoutError: no verdict within 0.2 s"
    assert outcomes(pool, [lambda: "right"] * 5, seconds=0.2) == ["right"] * 5
    assert outcomes(slow_pool(2), [lambda: hang(released)], seconds=0.05)[0].__class__ is guard.OutOfTime
  finally:
    released.set()
  for thread in [*pool._given_up]:
    thread.join(LONG)
    assert not thread.is_alive()


def test_a_loop_that_catches_its_end_is_told_again():
  caught, pool = [], slow_pool(2)

  def stubborn():
    while len(caught) < 2:
      try:
        while True:
          time.sleep(0.001)
      except BaseException as error:
        caught.append(error)

  assert isinstance(outcomes(pool, [stubborn], seconds=0.05)[0], guard.OutOfTime)
  thread, = pool._given_up
  deadline = time.monotonic() + LONG
  while thread.is_alive() and time.monotonic() < deadline:
    outcomes(pool, [int])
    thread.join(0.01)
  assert not thread.is_alive() and all(isinstance(error, guard.OutOfTime) for error in caught)


def test_an_exception_while_waiting_drops_what_has_not_begun(monkeypatch):
  begun, released, pool = [], threading.Event(), slow_pool(1 + 1)
  calls = [lambda: begun.append(0) or released.wait(LONG)] * 2 + [lambda: begun.append(1)] * 5
  collect = pool.start("step", calls)

  def interrupted(*arguments):
    raise KeyboardInterrupt

  monkeypatch.setattr("sftrl_jax.envs.verdict_pool._left", interrupted)
  with pytest.raises(KeyboardInterrupt):
    collect()
  monkeypatch.undo()
  released.set()
  assert outcomes(pool, [int] * 3) == [0, 0, 0] and 1 not in begun


def test_a_call_that_never_returns_does_not_keep_the_process_alive():
  code = textwrap.dedent("""
      import threading, time
      from sftrl_jax.envs.verdict_pool import VerdictPool
      pool, never = VerdictPool(3), threading.Event()
      pool.start("step", [lambda: time.sleep(0.05)])()
      for outcome in pool.start("step", [never.wait, lambda: 7, never.wait, never.wait, lambda: 8], 0.1)():
        print(type(outcome.error).__name__ if outcome.error else outcome.value)
      pool.start("step", [never.wait] * 5)   # and one that is never asked for
  """)
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG, check=False,
                        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
  assert (done.returncode, done.stdout.split(), done.stderr) == (
      0, ["OutOfTime", "7", "OutOfTime", "OutOfTime", "8"], "")


def test_the_pool_of_a_process_is_one_for_each_number_of_workers():
  assert shared(3) is shared(3) and shared(3) is not shared(4) and shared(3).workers == 3
