"""The options of tasks are read whole, and one message says what is wrong with one."""

import pytest

from sftrl_jax.main import scan
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.harness.task_options import TaskOptions, read_options


def options(*words):
  command = scan(["evaluate", "FROM", *words])
  return read_options(command.flags, command.switches)


def test_options_of_a_command_line():
  assert options("--tasks=a, b,") == TaskOptions(("a", "b"))
  assert options("--tasks=a", "--limit=9", "--shots=0", "--task_path=d", "--chat", "--dtype=float32") == TaskOptions(
      ("a",), 9, 0, "d", True, "float32")
  assert options("--weights") is None


@pytest.mark.parametrize(("words", "message"), [
    (["--tasks=,"], "--tasks is ','; it must be names"), (["--tasks=a,b,a"], "--tasks names a twice"),
    (["--tasks=a", "--limit=0"], "--limit is '0'; it must be a whole number from 1"),
    (["--tasks=a", "--limit=0.5"], "--limit is '0.5'"), (["--tasks=a", "--shots=-1"], "--shots is '-1'"),
    (["--tasks=a", "--shots=1e9"], "--shots is '1e9'"),
    (["--tasks=a", "--limit=99999999999"], "--limit is '99999999999'"),
    (["--tasks=a", "--weights"], "--weights compares weights: give one of the two"),
    (["--tasks=a", "--interpolate=0,1"], "--interpolate compares weights: give one of the two"),
    (["--limit=3"], "--limit is of --tasks, which is not given: add --tasks=NAME"),
    (["--chat"], "--chat is of --tasks"), (["--task_path=d"], "--task_path is of --tasks")])
def test_a_wrong_option_is_one_error(words, message):
  with pytest.raises(ConfigError, match=message):
    options(*words)
