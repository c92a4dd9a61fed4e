"""Runs as processes: order, limits, failures, and stopping without losing anything."""

import json
import signal
import subprocess
import sys
import time

from sftrl_jax.programs.study import process_pool


def run_of(directory, name, needs=""):
  words = ("sft", f"--workdir={directory / 'runs' / name}", "--config.mesh.cpu_threads=1")
  return process_pool.ChildRun(name, words, directory / "runs" / name, directory / "logs" / f"{name}.txt", needs)


def watch(runs, jobs, received=()):
  """(names in the order in which they ended, most at once, {name: exit code})."""
  order, most, codes = [], 0, {}
  for moment in process_pool.supervise(runs, jobs, {}, list(received), pause=0.02):
    most = max(most, len(moment.live))
    order += [run.name for run, _ in moment.ended]
    codes.update((run.name, code) for run, code in moment.ended)
  return order, most, codes


def test_a_run_waits_for_what_it_needs_and_the_first_that_may_go_goes(tmp_path, stand_in):
  runs = [run_of(tmp_path, "on-b", "b"), run_of(tmp_path, "a"), run_of(tmp_path, "b"), run_of(tmp_path, "c")]
  order, most, codes = watch(runs, jobs=1)
  assert order == ["a", "b", "on-b", "c"]
  assert most == 1
  assert set(codes.values()) == {0}


def test_as_many_as_allowed_go_at_once(tmp_path, stand_in):
  order, most, _ = watch([run_of(tmp_path, name) for name in "abcd"], jobs=2)
  assert sorted(order) == list("abcd")
  assert most == 2


def test_a_failure_takes_only_those_that_need_it_along(tmp_path, stand_in):
  (tmp_path / "fail-a").touch()
  runs = [run_of(tmp_path, "a"), run_of(tmp_path, "on-a", "a"), run_of(tmp_path, "b"), run_of(tmp_path, "on-b", "b")]
  _, _, codes = watch(runs, jobs=2)
  assert codes == {"a": 1, "b": 0, "on-b": 0}
  assert "gamma is out of range" in process_pool.tail(runs[0])
  assert process_pool.tail(runs[1]) == "(no log)"


def test_what_is_complete_is_not_run_again(tmp_path, stand_in):
  runs = [run_of(tmp_path, "a"), run_of(tmp_path, "on-a", "a")]
  assert watch(runs[:1], jobs=1)[0] == ["a"]
  assert watch(runs, jobs=1)[0] == ["on-a"]
  assert watch(runs, jobs=1)[0] == []


def test_a_signal_reaches_every_child_and_ends_the_iteration(tmp_path, stand_in):
  (tmp_path / "hold").touch()
  runs, received = [run_of(tmp_path, name) for name in "abc"], []
  for moment in process_pool.supervise(runs, 2, {}, received, pause=0.02):
    if all(process_pool.progress(run) for run in runs[:2]) and not received:
      received.append(signal.SIGTERM)
    assert len(moment.live) <= 2
  assert all("checkpoint written" in process_pool.tail(run) for run in runs[:2])
  assert not runs[2].log.exists()


def test_children_end_when_the_iteration_is_given_up(tmp_path, stand_in):
  (tmp_path / "hold").touch()
  only = run_of(tmp_path, "a")
  moments = process_pool.supervise([only], 1, {}, [], pause=0.02)
  while not process_pool.progress(only):
    next(moments)
  moments.close()
  assert "checkpoint written" in process_pool.tail(only)


PARENT = """
import pathlib, sys
from sftrl_jax.programs.study import process_pool as pool
home, script = map(pathlib.Path, sys.argv[1:])
pool.COMMAND = (sys.executable, str(script))
words = ("sft", f"--workdir={home / 'runs' / 'a'}", "--config.mesh.cpu_threads=1")
for moment in pool.supervise([pool.ChildRun("a", words, home / "runs" / "a", home / "a.txt")], 1, {}, []):
  pass
"""


def test_a_child_of_a_parent_that_is_killed_writes_its_checkpoint_and_ends(tmp_path, stand_in):
  (tmp_path / "hold").touch()
  parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), process_pool.COMMAND[1]])
  while not (tmp_path / "runs" / "a" / "progress.json").exists():
    assert parent.poll() is None, "the parent ended before its child began"
    time.sleep(0.02)
  parent.kill()
  parent.wait()
  until = time.monotonic() + 20
  while "checkpoint written" not in (tmp_path / "a.txt").read_text() and time.monotonic() < until:
    time.sleep(0.02)
  assert "checkpoint written" in (tmp_path / "a.txt").read_text()


def test_a_process_that_has_imported_jax_does_not_fork_by_hand(tmp_path, stand_in, recwarn):
  assert "jax" in sys.modules
  assert watch([run_of(tmp_path, "a")], jobs=1)[2] == {"a": 0}
  assert not [str(warning.message) for warning in recwarn if "fork" in str(warning.message)]


def test_signals_are_collected_and_given_back():
  before = signal.getsignal(signal.SIGTERM)
  with process_pool.signals() as received:
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
  assert received == [signal.SIGTERM, signal.SIGINT]
  assert signal.getsignal(signal.SIGTERM) is before


def test_progress_of_a_torn_file_is_unknown(tmp_path):
  only = run_of(tmp_path, "a")
  assert process_pool.progress(only) == {}
  only.workdir.mkdir(parents=True)
  (only.workdir / "progress.json").write_text('{"phase": "comp')
  assert not process_pool.is_complete(only)
  (only.workdir / "progress.json").write_text(json.dumps({"phase": "complete"}))
  assert not process_pool.is_complete(only)   # its model is not there
  (only.workdir / "checkpoints" / "3").mkdir(parents=True)
  assert process_pool.is_complete(only)
