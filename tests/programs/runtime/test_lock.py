"""One writer for one directory."""

import subprocess
import sys

import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.runtime.lock import only_writer


def test_a_second_writer_is_refused_by_name_and_the_first_lets_go(tmp_path):
  with only_writer(tmp_path / "run"):
    with pytest.raises(ConfigError, match="being written by process"):
      with only_writer(tmp_path / "run"):
        pass
  with only_writer(tmp_path / "run"):
    pass


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
