"""One writer for one directory of a bucket, also when a holder dies or the store answers late."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from sftrl_jax import paths
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.runtime import bucket_lock


@pytest.fixture
def home(bucket, request):
  return paths.as_path(f"gs://bucket/lease/{request.node.name}")


def left_behind(bucket, home, host, process, age):
  """The lock of a holder that has ended without a word."""
  (home / "lock").write_text(json.dumps({"host": host, "process": process, "token": "t"}))
  name = "/".join((home / "lock").parts[3:])
  bucket.objects[name] = bucket.objects[name]._replace(time=time.time() - age)


def test_a_second_writer_is_refused_by_name_and_the_first_lets_go(home):
  with bucket_lock.held(home, beat=0.05, stale=30.0):
    with pytest.raises(ConfigError, match=f"is being written by process .* on {socket.gethostname()}: wait"):
      with bucket_lock.held(home, stale=30.0):
        pass
  assert not (home / "lock").exists()


def test_a_holder_elsewhere_is_believed_dead_after_a_while(bucket, home, capsys):
  left_behind(bucket, home, "elsewhere", 1, age=100)
  with bucket_lock.held(home):
    assert json.loads((home / "lock").read_text())["host"] == socket.gethostname()
  assert capsys.readouterr().out == ""
  left_behind(bucket, home, "elsewhere", 1, age=0)
  with bucket_lock.held(home, stale=0.3):
    pass
  assert "for process 1 on elsewhere, which wrote into" in capsys.readouterr().out


def test_a_dead_holder_of_this_machine_and_a_torn_lock(bucket, home):
  dead = subprocess.Popen([sys.executable, "-c", ""])
  dead.wait()
  for process in (dead.pid, os.getpid()):   # another one had our number before this one
    left_behind(bucket, home, socket.gethostname(), process, age=0)
    with bucket_lock.held(home):
      pass
  (home / "lock").write_text("{")
  with bucket_lock.held(home, stale=0.2):
    pass


def test_of_two_who_take_over_at_once_one_wins_and_a_lost_answer_loses_nothing(home):
  first = bucket_lock._write(home, "a", 0)
  second = bucket_lock._write(home, "b", first)
  with pytest.raises(bucket_lock._taken_over()):
    bucket_lock._write(home, "a", first)
  assert bucket_lock._write(home, "b", first) == second   # asked for again


def test_a_holder_that_was_given_up_is_told_and_leaves_the_lock_to_the_other(home):
  messages, ended = [], threading.Event()
  with bucket_lock.held(home, lost=lambda text: (messages.append(text), ended.set()), beat=0.05):
    (home / "lock").write_text(json.dumps({"host": "elsewhere", "process": 1, "token": "other"}))
    assert ended.wait(10)
  assert "has another writer now" in messages[0]
  assert json.loads((home / "lock").read_text())["token"] == "other"
