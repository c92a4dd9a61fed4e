"""The process of a reward function, the real one: whatever the function does, the run gets an answer or a reason, goes
on, and leaves no process behind."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Verdict
from sftrl_jax.envs.referee import EpisodeError, TaskError
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.own_reward.config import OwnRewardConfig
from sftrl_jax.programs.own_reward.function import RewardFunction
from sftrl_jax.programs.own_reward.process import FunctionProcess

CHAT, VERDICT = (Message("user", "hi"),), Verdict(0.5, True, False, True, True, "", None, "right")
SECONDS = 2.0
REWARD = '''
import ctypes, os, pathlib, subprocess, sys, threading, time

HERE, lives, barrier = pathlib.Path(__file__).parent, os.getpid(), threading.Barrier(2, timeout=60)

def leave(pid):
  """Tells the test of a process that must not outlive the run."""
  with open(HERE / "pids", "a") as file:
    file.write(f"{pid}\\n")

def reward(chat, response, verdict):
  leave(os.getpid())
  if response == "sleeps":
    time.sleep(1000)
  if response == "never gives up":
    while True:
      try:
        time.sleep(0.01)
      except BaseException:
        pass
  if response == "exits":
    ctypes.CDLL(None)._exit(3)
  if response == "crashes":
    ctypes.string_at(0)
  if response == "forks":
    os.fork()
  if response == "forks and stays" and not os.fork():
    leave(os.getpid())
    time.sleep(1000)
  if response == "starts a daemon":
    leave(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
  if response == "prints":
    for _ in range(64):
      print("x" * 2**20)
  if response == "closes all files":
    os.closerange(3, 1000)
  return float(len(response))

def together(chat, response, verdict):
  return float(barrier.wait())

together.thread_safe = True

def second_time(chat, response, verdict):
  flag = HERE / "flag"
  if not flag.exists():
    flag.touch()
    time.sleep(1000)
  return 5.0
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp("reward") / "reward.py"
  path.write_text(REWARD)
  return path


def function(file, name="reward", **settings):
  process = FunctionProcess(f"{file}:{name}", OwnRewardConfig(**{"seconds": SECONDS, "output_kib": 1, **settings}))
  return RewardFunction(process.form, process.ask), process


@pytest.fixture(scope="module")
def reward(file):
  """(the function, its process), through several lives."""
  return function(file)


def judged(reward, response):
  return reward.judged(CHAT, response, VERDICT, after=("state", VERDICT))


def gone(pid):
  """Whether a process has ended; one that nobody has waited for yet has."""
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
  except (FileNotFoundError, ProcessLookupError):
    return True


def wait_until(condition):
  until = time.monotonic() + 30
  while not condition() and time.monotonic() < until:
    time.sleep(0.01)
  assert condition()


FATES = {
    "sleeps": r"line \d+, in reward: TimeoutError: no reward within 2 s \(config\.own_reward\.seconds\)",
    "never gives up": r"line \d+, in reward: TimeoutError: no reward within 2 s",
    "exits": r"line \d+, in reward: the process of the reward function has left with exit code 3; another one begins",
    "crashes": r"line \d+, in reward: the process of the reward function was killed by SIGSEGV; another one begins",
    "closes all files": r"line \d+, in reward: the process of the reward function ",
    "forks": None, "forks and stays": None, "starts a daemon": None}


@pytest.mark.parametrize("response", FATES)
def test_whatever_one_call_does_the_next_one_has_its_reward(reward, file, response):
  if FATES[response]:
    with pytest.raises(EpisodeError, match=f"^{file}, {FATES[response]}") as error:
      judged(reward[0], response)
    assert error.value.kind == "reward" and error.value.after == ("state", VERDICT)
  else:
    assert judged(reward[0], response) == float(len(response))
  assert judged(reward[0], "four") == 4.0


def test_what_it_prints_is_shown_in_part_and_never_waited_for(file, capfd):
  reward, process = function(file, seconds=60.0)
  assert judged(reward, "prints") == 6.0   # 64 MiB
  seen = []
  wait_until(lambda: seen.append(capfd.readouterr().err) or "left out" in "".join(seen))
  assert 1024 <= len("".join(seen)) < 2048
  process.end()


def test_the_line_of_a_crash_is_that_of_the_function(reward, file):
  lines = REWARD.splitlines()
  with pytest.raises(EpisodeError, match=f"{file}, line {lines.index('    ctypes.string_at(0)') + 1}, in reward"):
    judged(reward[0], "crashes")


def test_nothing_outlives_the_process(reward, file):
  for response in ("forks and stays", "starts a daemon"):
    judged(reward[0], response)
  pids = {int(line) for line in (file.parent / "pids").read_text().split()}
  assert len(pids) > 3 and not all(map(gone, pids))
  reward[1].end()
  wait_until(lambda: all(map(gone, pids)))
  assert judged(reward[0], "four") == 4.0   # whoever asks again has another one


RUN = '''
import sys, time
sys.path[:0] = [{root!r}, {here!r}]
from test_process import *
reward, _ = function({file!r})
for response in ("forks and stays", "starts a daemon"):
  judged(reward, response)
print("ready", flush=True)
judged(reward, "sleeps")
'''


def test_nothing_outlives_a_run_that_is_killed(tmp_path):
  (tmp_path / "reward.py").write_text(REWARD)
  here = pathlib.Path(__file__)
  words = dict(root=str(here.parents[3]), here=str(here.parent), file=str(tmp_path / "reward.py"))
  run = subprocess.Popen([sys.executable, "-c", RUN.format(**words)], stdout=subprocess.PIPE, text=True)
  assert run.stdout.readline() == "ready\n"
  pids = {int(line) for line in (tmp_path / "pids").read_text().split()}
  assert len(pids) == 3 and not any(map(gone, pids))
  run.send_signal(signal.SIGKILL)
  wait_until(lambda: all(map(gone, pids)))
  run.communicate()


def test_threads_call_at_one_time_where_the_function_says_so(file):
  reward, process = function(file, "together", seconds=30.0)
  assert reward.judge.thread_safe
  rewards = []
  threads = [threading.Thread(target=lambda: rewards.append(judged(reward, "x"))) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(rewards) == [0.0, 1.0]   # neither returns before the other has come
  process.end()


def test_a_call_whose_process_was_ended_for_another_one_is_made_again(file):
  reward, process = function(file, "second_time", seconds=60.0)
  rewards = []
  thread = threading.Thread(target=lambda: rewards.append(judged(reward, "x")))
  thread.start()
  wait_until((file.parent / "flag").exists)
  process._worker.given_up = True
  process.end()
  thread.join()
  assert rewards == [5.0]
  process.end()


def test_memory_has_a_limit(file, tmp_path):
  path = tmp_path / "greedy.py"
  path.write_text("def reward(chat, response, verdict):\n  return float(len(bytearray(2**int(response))))\n")
  reward, process = function(path, memory_gib=1.0)
  with pytest.raises(EpisodeError, match=rf"^{path}, line 2, in reward: MemoryError"):
    judged(reward, "31")
  assert judged(reward, "10") == 1024.0
  process.end()


@pytest.mark.parametrize("text, message", [
    ("x = 1\nimport no_such_module\n", r"{file}, line 2, in <module>: ModuleNotFoundError"),
    ("import ctypes\nctypes.string_at(0)\n", r"{file}, line 2, in .*its process was killed by SIGSEGV while it"),
    ("import time\ntime.sleep(1000)\n", r"importing the file takes over 1 s: use a larger .*start_seconds"),
    ("def reward(chat):\n  return 1\n", r"{file}, line 1, in reward: config\.reward names this function, which takes"),
    ("reward = 3\n", r"of type int, but should be a function"), ("", r"has no reward")])
def test_what_cannot_be_imported_is_told_before_anything_else(tmp_path, text, message):
  path = tmp_path / "broken.py"
  path.write_text(text)
  with pytest.raises(ConfigError, match=message.format(file=path)):
    function(path, start_seconds=1.0 if "sleep" in text else 60.0)


def test_a_file_that_breaks_later_ends_the_run(tmp_path):
  path = tmp_path / "reward.py"
  path.write_text("def reward(chat, response, verdict):\n  return 1\n")
  reward, process = function(path)
  assert judged(reward, "x") == 1.0
  path.write_text("def reward(:")
  process.end()
  with pytest.raises(TaskError, match=rf"{path}, line 1: "):
    judged(reward, "x")


def test_the_process_has_no_accelerator_and_is_another_one(tmp_path):
  path = tmp_path / "reward.py"
  path.write_text("import os\ndef reward(chat, response, verdict):\n"
                  f"  return float(os.environ['JAX_PLATFORMS'] == 'cpu' and os.getpid() != {os.getpid()})\n")
  reward, process = function(path)
  assert judged(reward, "x") == 1.0
  process.end()
