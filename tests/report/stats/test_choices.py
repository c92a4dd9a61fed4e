import math

import numpy as np
import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.stats import choices

BASES = range(5)


def of(mean, spread=0.0, bases=BASES):
  return {base: mean + spread * (base - 2) for base in bases}


def test_the_largest_mean_is_chosen_and_what_lies_within_its_interval_is_beside_it():
  values = {"a": of(0.5), "b": of(0.7, 0.01), "c": {base: 0.69 + 0.05 * (-1) ** base for base in BASES}, "d": of(0.1)}
  choice = choices.choose(values)
  assert choice == choices.Choice("b", pytest.approx(0.7), 5, {"c": pytest.approx(0.7)}, ())
  assert choices.choose(values, sign=-1).method == "d"


def test_a_method_with_fewer_bases_is_not_the_best_by_those_that_it_lacks():
  choice = choices.choose({"a": of(0.5), "few": of(0.9, bases=(0, 1))})
  assert (choice.method, choice.equals, choice.unclear) == ("a", {}, ("few",))
  assert choices.choose({"a": {}, "b": {}}) is None and choices.choose({}) is None


def test_a_constant_difference_is_a_difference():
  assert choices.choose({"a": of(0.5, 0.1), "b": of(0.51, 0.1)}).equals == {}


def test_ends_are_those_of_finished_runs_and_changes_begin_at_their_own_start(whole_study):
  study = read_workdir.read_study(whole_study)
  for method in ("sft", "ppo"):
    for base in study.bases:
      curve = study.runs[base, method, 0].curve("rule_ood", 0.0)
      assert choices.ends(study, "rule_ood", 0.0)[method][base] == curve[-1].success
      change = choices.ends(study, "rule_ood", 0.0, change=True)[method][base]
      assert change == pytest.approx(curve[-1].success - curve[0].success)
  assert choices.kept(study, 0.0) == {}   # no probes


def test_unfinished_runs_are_left_out(make_study, tmp_path):
  study = read_workdir.read_study(make_study(tmp_path, bases=2, finished=False))
  assert choices.ends(study, "id_seen", 0.0) == {} and math.isnan(choices.costs(study, 0.0)[0])


def test_costs_are_of_the_highest_level_that_two_methods_come_to_on_all_their_bases(whole_study):
  study = read_workdir.read_study(whole_study)
  level, costs = choices.costs(study, 0.0)
  assert level == 0.5 and set(costs) == {"sft", "ppo"} and np.isfinite([*costs["ppo"].values()]).all()
  assert choices.choose(costs, sign=-1).method == "sft"


def test_what_a_wide_interval_does_not_distinguish_is_there_with_its_mean():
  choice = choices.choose({"a": of(0.98), "far": {**of(0.7), 0: 0.0, 1: 1.0}})
  assert choice.equals == {"far": pytest.approx(0.62)}
