import dataclasses
import math

import numpy as np
import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.stats import flops_axis


def test_reading_between_evaluations_is_linear_and_held_at_the_ends():
  flops, values = [0, 10, 20], np.array([[0.0, 1.0, 0.5]])
  for at, value in ((-1, 0), (0, 0), (5, 0.5), (10, 1), (15, 0.75), (20, 0.5), (99, 0.5), (math.inf, 0.5)):
    assert flops_axis.read_at(flops, values, at)[0] == pytest.approx(value)


def test_the_first_crossing_counts():
  along, read = np.array([[0.2, 0.6, 0.4, 0.9]]), np.array([[1.0, 0.8, 0.5, 0.0]])
  assert flops_axis.first_crossing(along, read, np.array([0.4]))[0] == pytest.approx(0.9)
  assert flops_axis.first_crossing(along, read, np.array([0.6]))[0] == pytest.approx(0.8)
  assert flops_axis.first_crossing(along, read, np.array([0.9]))[0] == pytest.approx(0.0)
  for never in (0.95, 0.2, 0.1):
    assert np.isnan(flops_axis.first_crossing(along, read, np.array([never]))[0])
  assert flops_axis.bracket(along[0], 0.7) == (2, 3) and flops_axis.bracket(along[0], 0.1) == ()


def test_equal_budgets_are_compared_at_their_ends(make_study, tmp_path):
  study = read_workdir.read_study(make_study(tmp_path, bases=2, episodes=20))
  chosen = flops_axis.comparison(study)
  assert set(chosen.at.values()) == {math.inf} and not chosen.notes and not chosen.left_out


def test_unequal_budgets_are_read_at_the_smaller_one_and_noted(make_study, make_run, tmp_path):
  make_study(tmp_path, bases=2, episodes=20, skip=("base-1-ppo-0",))
  make_run(tmp_path / "runs" / "base-1-ppo-0", "ppo", base=1, episodes=20, flops_scale=0.5)
  chosen = flops_axis.comparison(read_workdir.read_study(tmp_path))
  assert chosen.at[1, "sft", 0] == chosen.at[1, "ppo", 0] == pytest.approx(1.2e12)
  assert chosen.at[0, "sft", 0] == math.inf and "base-1" in chosen.notes[0]


def test_an_unfinished_run_waits_while_more_of_its_method_are_finished(make_study, make_run, tmp_path):
  make_study(tmp_path, bases=2, episodes=20, skip=("base-1-ppo-0",))
  make_run(tmp_path / "runs" / "base-1-ppo-0", "ppo", base=1, episodes=20, points=3, finished=False)
  chosen = flops_axis.comparison(read_workdir.read_study(tmp_path))
  assert chosen.left_out == ("base-1-ppo-0",) and (1, "ppo", 0) not in chosen.at


def test_a_run_that_was_only_evaluated_at_its_start_is_not_compared(make_study, tmp_path):
  study = read_workdir.read_study(make_study(tmp_path, bases=1, episodes=20, points=1))
  assert flops_axis.comparison(study).at == {}


def test_mean_curves():
  x, y = flops_axis.mean_curve([([0, 1, 2], [0, 1, 2]), ([0, 1, 2], [2, 3, 4])])
  assert x.tolist() == [0, 1, 2] and y.tolist() == [1, 2, 3]
  x, y = flops_axis.mean_curve([([0, 4], [0, 4]), ([0, 1, 2], [0, 1, 2])])
  assert x[-1] == 2 and np.allclose(x, y)
  assert flops_axis.mean_curve([])[0].size == 0


def test_only_keys_that_differ_are_listed():
  first = {"seed": 0, "ppo": {"clip": 0.2}, "env": {"name": "x"}}
  second = {"seed": 1, "ppo": {"clip": 0.2}, "env": {"name": "x", "cards": 4}}
  assert flops_axis.differing([first, second]) == [("env.cards", ["–", 4]), ("seed", [0, 1])]
  assert flops_axis.differing([first, first]) == []


def test_the_account_is_the_last_line(make_run, tmp_path):
  run = read_workdir.read_run(make_run(tmp_path / "run", "ppo", episodes=20))
  account = flops_axis.account(run)
  assert account["total"] == run.metrics[-1]["compute/total_flops"]
  assert account["rollout"] == run.metrics[-1]["compute/rollout_flops"]


def test_a_pair_is_read_at_the_smaller_flops_only_where_budgets_differ(arms_study):
  chosen = flops_axis.comparison(read_workdir.read_study(arms_study))
  assert set(chosen.at.values()) == {math.inf}
  assert chosen.equal_flops((0, "ppo", 0), (0, "sft", 0)) == (math.inf, math.inf)
  assert chosen.equal_flops((0, "ppo_half", 0), (0, "sft", 0)) == (1e12, 1e12)
  assert chosen.equal_flops((0, "sft_early", 0), (0, "ppo_half", 0)) == (2e11, 2e11)


def test_of_many_methods_one_that_stopped_early_does_not_shorten_the_others(arms_study):
  """ppo_late is at 40% of the budget; of two methods, both would be read there."""
  study = read_workdir.read_study(arms_study)
  chosen = flops_axis.comparison(study)
  assert chosen.at[0, "sft", 0] == math.inf and (0, "ppo_late", 0) in chosen.at
  assert chosen.equal_flops((0, "ppo_late", 0), (0, "sft", 0)) == (8e11, 8e11)
  notes = [note for note in chosen.notes if "before others" in note]
  assert len(notes) == 1 and notes[0].startswith("PPO LATE ends at 8e11 FLOPs")
  few = dataclasses.replace(study, methods={"sft": "SFT", "ppo_late": "LATE"}, budgets={})
  assert flops_axis.comparison(few).at[0, "sft", 0] == 8e11
