"""Measured steps are compared with a plan, and a file that is no plan of this run is refused."""

import json

import pytest

from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.check import plan_check
from sftrl_jax.programs.check.expert_episodes import CheckFailed
from sftrl_jax.programs.config.errors import ConfigError


def plan(**changed):
  functions = [
      {"name": "state", "peak_gib": 3.0, "calls_per_step": 0, "seconds_bound": 9.0},
      {"name": "score", "peak_gib": 2.0, "calls_per_step": 1, "seconds_bound": 0.5, "predicted_seconds": 1.0},
      {"name": "train step", "peak_gib": 4.0, "calls_per_step": 2, "seconds_bound": 1.0, "predicted_seconds": 1.5}]
  return {"functions": functions, "chips": 16, "verb": "rl", "only": [], **changed}


@pytest.fixture
def read(tmp_path):
  def written(plan, *within):
    path = tmp_path / "plan.json"
    path.write_text(plan if isinstance(plan, str) else json.dumps(plan))
    return plan_check.read_plan(path, *within)
  return written


def test_seconds_are_predicted_where_the_plan_predicts_and_a_bound_where_not(read):
  local = read(plan())
  assert (local.seconds, local.predicted, local.memory) == (4.0, True, 4 * GIB)
  bare = plan()
  del bare["functions"][2]["predicted_seconds"]
  assert (read(bare).seconds, read(bare).predicted) == (2.5, False)


def test_above_twice_the_plan_is_refused_unless_more_is_allowed(read):
  local = read(plan())
  assert "1.50 times predicted" in plan_check.compare(local, 6.0, 5 * GIB)
  assert "do not report" in plan_check.compare(local, 6.0, None)
  with pytest.raises(CheckFailed, match="2.25 times predicted"):
    plan_check.compare(local, 9.0, None)
  with pytest.raises(CheckFailed, match="2.50 times planned"):
    plan_check.compare(local, 4.0, 10 * GIB)
  bare = plan()
  del bare["functions"][1]["predicted_seconds"]
  with pytest.raises(CheckFailed) as error:
    plan_check.compare(read(bare), 6.0, GIB)   # of a bound of 2.5
  assert "2.40 times the least" in error.value.args[0] and "--within=3" in error.value.args[1]
  assert "times the least" in plan_check.compare(read(bare, "3"), 6.0, GIB)


@pytest.mark.parametrize("within", ["0.9", "two", "nan", "inf"])
def test_how_much_is_allowed_is_a_number(read, within):
  with pytest.raises(ConfigError, match=f"--within={within} must be a number of at least 1"):
    read(plan(), within)


def test_a_plan_of_another_run_is_refused(read):
  local = read(plan())
  plan_check.refuse_other_run(local, "rl", 16)
  for verb, chips in (("sft", 16), ("rl", 8)):
    with pytest.raises(CheckFailed, match="the plan is of rl on 16"):
      plan_check.refuse_other_run(local, verb, chips)


@pytest.mark.parametrize("text", ["{", "[]", "{}", plan(only=["train"]), plan(functions=[]), plan(chips="many"),
                                  plan(functions=[{"name": "x", "peak_gib": 0.0, "calls_per_step": 0}])])
def test_what_is_no_whole_plan_is_refused(read, text, tmp_path):
  with pytest.raises(ConfigError, match=f"--plan={tmp_path}"):
    read(text)
