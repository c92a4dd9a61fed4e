"""One writer for one directory."""

import os
import subprocess
import sys
import threading

import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.runtime.lock import only_output, only_writer


def test_a_second_writer_is_refused_by_name_and_the_first_lets_go(tmp_path):
  with only_writer(tmp_path / "run"):
    with pytest.raises(ConfigError, match="being written by process"):
      with only_writer(tmp_path / "run"):
        pass
  with only_writer(tmp_path / "run"):
    pass


@pytest.mark.parametrize("inside", [False, True])
def test_an_output_has_one_writer_and_nothing_stays_beside_it(tmp_path, inside):
  out = tmp_path / "new" / "out"
  for _ in range(2):
    with only_output(out, "TO", inside):
      with pytest.raises(ConfigError, match=rf"out is being written by process {os.getpid()}: .* another TO\."):
        with only_output(out, "TO", inside):
          pass
    assert [path.name for path in out.parent.rglob("*")] == (["out"] if inside else [])


def test_the_lock_of_a_dead_writer_of_an_output_counts_for_nothing(tmp_path):
  (tmp_path / ".out.lock").write_text("1")
  with only_output(tmp_path / "out", "--out"):
    assert (tmp_path / ".out.lock").read_text() == str(os.getpid())
  assert not (tmp_path / ".out.lock").exists()


def test_a_writer_of_an_output_may_wait_for_the_one_before(tmp_path):
  script = ("import sys; from sftrl_jax.programs.runtime.lock import only_output\n"
            f"with only_output(__import__('pathlib').Path({str(tmp_path / 'out')!r}), '--out'):\n"
            "  print('held', flush=True); sys.stdin.read()")
  child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  assert child.stdout.readline() == "held\n"
  timer = threading.Timer(0.3, child.stdin.close)
  timer.start()
  with only_output(tmp_path / "out", "--out", patience=60.0):
    child.wait()


def test_children_hold_the_lock_after_their_parent_died(tmp_path, capsys):
  with only_writer(tmp_path) as lock:
    wait = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    child = subprocess.Popen(wait, stdin=subprocess.PIPE, pass_fds=(lock,))
  dead = subprocess.Popen([sys.executable, "-c", ""])
  dead.wait()
  (tmp_path / "lock").write_text(str(dead.pid))
  with pytest.raises(ConfigError, match="being written"):
    with only_writer(tmp_path, patience=0.1):
      pass
  assert "killed process" in capsys.readouterr().out
  child.communicate(b"\n")
  with only_writer(tmp_path, patience=0.0):
    pass
