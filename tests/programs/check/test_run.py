"""`sftrl check`: which runs a config means, a line a check, and its exit codes."""

import os
import re

import pytest

from sftrl_jax.main import main
from sftrl_jax.programs.check import run, run_checks
from sftrl_jax.programs.check.task_checks import CheckResult


@pytest.fixture
def tried(monkeypatch):
  """Parts are not tried here (test_run_checks.py tries them); [(verb, config)] of what would be."""
  asked = []

  def check_run(config, verb, planned, scratch):
    asked.append((verb, config))
    yield CheckResult("3 steps", True, "quick")
  monkeypatch.setattr(run_checks, "check_run", check_run)
  for name in ("NPROC", "XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL"):   # what a command sets for its own process
    monkeypatch.setenv(name, os.environ.get(name, ""))
  return asked


def test_a_config_is_its_run_and_a_study_its_base_and_methods(stranger, tmp_path):
  path = stranger(tmp_path)
  for choice, verb in (("sft", "sft"), ("rl", "rl"), ("base", "sft")):
    case, = run.cases(f"{path}:{choice}", [("seed", "3")])
    assert (case.verb, case.spec, case.overrides, case.training) == (verb, f"{path}:{choice}", (("seed", "3"),), True)
  cases = run.cases(f"{path}:study", [("study.flops", "7"), ("study.overrides.ppo", "{'ppo.clip': 0.1}")])
  assert [(case.name, case.verb, case.id_variant) for case in cases] == [
      ("base-0", "sft", "three"), ("base-0-ppo-0", "rl", "three"), ("base-0-sft-0", "sft", "three")]
  assert [dict(case.overrides).get("start") for case in cases] == [None, "scratch", "scratch"]
  assert dict(cases[1].overrides)["ppo.clip"] == "0.1" and dict(cases[1].overrides)["flops"] == "7.0"
  assert [case.training for case in cases] == [False, True, True]
  assert run.threads(cases) == int(dict(cases[0].overrides)["mesh.cpu_threads"])


def test_all_of_a_study_is_checked_and_nothing_is_written(stranger, tmp_path, tried, capsys, monkeypatch):
  path = stranger(tmp_path)
  monkeypatch.chdir(tmp_path)
  assert main(["check", "--config=sort_numbers.py:study"]) == 0
  output = capsys.readouterr().out
  assert output.count("the expert is right") == 3 and output.endswith("All 35 checks passed.\n")
  assert [verb for verb, _ in tried] == ["sft", "rl", "sft"]
  assert tried[1][1].env.name == f"{path}:Sort" and tried[1][1].start == "scratch"
  assert [name.name for name in tmp_path.iterdir() if name.name != "__pycache__"] == ["sort_numbers.py"]


@pytest.mark.parametrize("old, new, message", [
    ("right = response == self.expert(state)", "right = response == ' '.join(numbers)",
     r"FAILED  the expert is right: .*sort_numbers\.py, line \d+, in expert: no success in "),
    ("right = response == self.expert(state)", "right = numbers == tuple(map(int, response.split()))",
     r"FAILED  the expert is right: |sort_numbers\.py, line \d+, in step: ValueError"),
    ("reward=float(right)", "reward=None", r"FAILED  .*sort_numbers\.py, line \d+, in step: the reward is None"),
    ("reward=float(right)", "reward=float('nan')", r"FAILED  .*numbers\.py, line \d+, in step: the reward is nan")])
def test_a_failure_names_the_line_and_exits_1_before_any_part_is_tried(
    stranger, tmp_path, tried, capsys, old, new, message):
  path = stranger(tmp_path, (old, new))
  assert main(["check", f"--config={path}:sft"]) == 1
  output = capsys.readouterr()
  assert re.search(message, output.out), output.out
  assert "checks failed; each says above what to mend" in output.err and "Traceback" not in output.err
  assert "tried when this is mended" in output.out and not tried


def test_a_wrong_config_is_refused_before_anything_is_played(stranger, tmp_path, tried, capsys):
  path = stranger(tmp_path)
  assert main(["check", f"--config={path}:rl", "--config.env.count=4"]) == 1
  assert "config.env.count is not a key of config.env: did you mean config.env.counts?" in capsys.readouterr().err
  assert main(["check", f"--config={path}:rl", f"--config.env.name={path}:Sart"]) == 1
  assert "has no Sart: did you mean Sort?" in capsys.readouterr().err
  assert main(["check"]) == 2 and main(["check", f"--config={path}", "--out=x"]) == 2
  assert main(["check", f"--config={path}:rl", "--help"]) == 0
  assert "--config.env.counts=(3,)" in capsys.readouterr().out and not tried
