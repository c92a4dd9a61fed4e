"""Alarms: raised by what they are about, silent in a healthy step, each with a cause and a knob that exists."""

import json
import math
import re

import pytest

from sftrl_jax.alarms import ALARMS, PATIENCE, PREFIX, has_signal, raised, streaks

# One step of PPO on GeneralPoints, as it was logged.
HEALTHY = {
    "loss": 0.02, "nonfinite_steps": 0.0, "label_tokens": 6144.0, "objective/scores": -0.05,
    "objective/scores_std": 0.9, "response_length/clip_ratio": 0.01, "response_length/mean": 12.9,
    "policy/entropy_avg": 0.16, "sampling/sampling_logp_difference/mean": 1.8e-7}


def test_a_healthy_step_and_an_empty_one_raise_nothing():
  assert raised(HEALTHY) == {}
  assert raised({}) == {}
  assert raised({**HEALTHY, "response_length/clip_ratio": 0.999, "policy/entropy_avg": 0.02}) == {}
  assert raised({**HEALTHY, "frac_reward_zero_std": 0.9}) == {}
  assert raised({**HEALTHY, "policy/entropy_avg": 0.001, "success": 0.99}) == {}   # it has learned its task
  assert raised({**HEALTHY, "policy/approxkl_avg": 0.02, "val/ratio_max": 5.0}) == {}


@pytest.mark.parametrize("name, changed", [
    ("nonfinite", {"nonfinite_steps": 1.0}), ("nonfinite", {"nonfinite_steps": 0.1}), ("nonfinite", {"loss": math.nan}),
    ("nonfinite", {"loss": math.inf}), ("no_trainable_tokens", {"label_tokens": 0.0}),
    ("constant_rewards", {"objective/scores_std": 0.0}),
    ("constant_rewards", {"objective/scores": -1000.0, "objective/scores_std": 1e-5}),
    ("constant_rewards", {"objective/signal": 0.0}),
    ("constant_groups", {"frac_reward_zero_std": 1.0}),
    ("constant_groups", {"frac_reward_zero_std": 1.0, "objective/scores_std": 0.0}),   # the same, said once
    ("all_truncated", {"response_length/clip_ratio": 1.0}),
    ("entropy_collapse", {"policy/entropy_avg": 0.001}), ("entropy_collapse", {"policy/entropy_avg": 0.0}),
    ("entropy_collapse", {"policy/entropy_avg": 0.001, "success": 0.5}),
    ("large_update", {"policy/approxkl_avg": 0.36}), ("large_update", {"val/ratio_max": 184.0}),
    ("sampler_gap", {"sampling/sampling_logp_difference/mean": 0.05}),
    ("sampler_gap", {"sampling/sampling_logp_difference/mean": math.nan})])
def test_each_alarm_is_raised_alone_by_what_it_is_about(name, changed):
  assert raised({**HEALTHY, **changed}) == {PREFIX + name: 1.0}


@pytest.mark.parametrize("bad", [{"critic/vf_explained_var": -1.1},
                                 {"critic/values/max": 18.0, "critic/values/bound": 10.0}])
def test_values_run_away_if_they_do_so_in_several_lines_in_a_row(bad):
  found, lines = [], {}
  for number in range(8):
    line = {**HEALTHY, **(bad if number != 1 else {"critic/values/max": 5.0, "critic/values/bound": 0.0})}
    lines = streaks(line, lines)
    found.append(raised(line, lines))
  late = 2 + PATIENCE["runaway_values"] - 1
  assert found == [{}] * late + [{PREFIX + "runaway_values": 1.0}] * (8 - late)


def test_values_are_poor_if_their_mean_would_have_done_better_for_some_lines_in_a_row():
  found, lines = [], {}
  for explained in (*[-0.2] * 9, 0.3, *[-0.2] * 12):
    line = {**HEALTHY, "critic/vf_explained_var": explained}
    lines = streaks(line, lines)
    found.append(raised(line, lines))
  assert found == [{}] * 19 + [{PREFIX + "poor_values": 1.0}] * 3


@pytest.mark.parametrize("bad", [{"objective/kl": 0.26 * 12.9}, {"reward_model/outside": 0.03}])
def test_a_policy_far_from_what_its_reward_model_knows_is_over_optimised(bad):
  found, lines = [], {}
  fine = {"reward_model/score": 1.0, "objective/kl": 0.2 * 12.9, "reward_model/outside": 0.01}
  for number in range(8):
    line = {**HEALTHY, **fine, **(bad if number != 1 else {})}
    lines = streaks(line, lines)
    found.append(raised(line, lines))
  late = 2 + PATIENCE["over_optimisation"] - 1
  assert found == [{}] * late + [{PREFIX + "over_optimisation": 1.0}] * (8 - late)
  assert not raised({**HEALTHY, "objective/kl": 100.0}, {"over_optimisation": 9})   # no reward model: the KL is fine


@pytest.mark.parametrize("moved", ["chosen", "rejected", "margins"])
def test_pairs_whose_rewards_stay_0_say_that_the_model_is_still_its_start(moved):
  stuck = {f"rewards/{name}": 3e-7 for name in ("chosen", "rejected", "margins")}
  found, lines = [], {}
  for number in range(8):
    line = {**HEALTHY, **stuck, **({f"rewards/{moved}": -1e-4} if number == 1 else {})}
    lines = streaks(line, lines)
    found.append(raised(line, lines))
  late = 2 + PATIENCE["zero_margins"] - 1
  assert found == [{}] * late + [{PREFIX + "zero_margins": 1.0}] * (8 - late)


def followed(successes, lines=None):
  """([whether success_collapse is raised in each line], what is known after the last one)."""
  alarmed, lines = [], lines or {}
  for success in successes:
    line = {**HEALTHY, **({} if success is None else {"success": success})}
    lines = streaks(line, lines)
    alarmed.append(PREFIX + "success_collapse" in raised(line, lines))
  return alarmed, lines


def test_a_success_that_falls_below_half_of_its_best_and_stays_there_is_a_collapse():
  alarmed, _ = followed([0.4, 0.5, 0.6, 0.8, 0.9, 0.95, 1.0, *[0.0] * 20])
  first = alarmed.index(True)
  assert 7 + PATIENCE["success_collapse"] - 1 <= first < 18 and all(alarmed[first:])


@pytest.mark.parametrize("successes", [
    [0.0] * 30,   # never solved
    [0.1] * 10 + [0.0] * 30,   # no level to lose
    [1.0] + [0.3] * 30,   # a single line is no level
    [0.9] * 10 + [0.5] * 30,   # above half
    [0.9] * 10 + [0.0, 0.0, 0.0] + [0.9] * 10,   # it comes back
    [0.1 * min(line, 9) for line in range(40)],   # it learns
    [None] * 30])   # nothing is played
def test_other_courses_of_success_are_no_collapse(successes):
  assert not any(followed(successes)[0])


def test_a_steep_fall_is_seen_before_the_average_shows_it():
  """PPO on V-IRL, whose run ended five lines after the fall."""
  assert followed([0.9] * 10 + [0.02, 0.0, 0.0, 0.0, 0.0])[0][-2:] == [False, True]


def test_after_a_collapse_a_policy_that_comes_back_is_sound_again():
  alarmed, _ = followed([0.9] * 10 + [0.0] * 20 + [0.9] * 20)
  assert alarmed[29] and not alarmed[-1]


def test_what_is_known_of_the_lines_before_goes_through_json():
  """A checkpoint holds it, and a run that goes on raises its alarms in the same lines."""
  course = [0.9] * 10 + [0.05] * 20
  whole, known = followed(course)
  for cut in (3, 12, 17):
    before, lines = followed(course[:cut])
    after, last = followed(course[cut:], json.loads(json.dumps(lines)))
    assert before + after == whole and last == known


def test_a_step_has_a_signal_unless_rewards_or_groups_are_alike():
  assert has_signal({}) and has_signal(HEALTHY) and has_signal({"frac_reward_zero_std": 0.9, "objective/scores_std": 0})
  assert not has_signal({"frac_reward_zero_std": 1.0}) and not has_signal({"objective/signal": 0.0})
  assert has_signal({"objective/signal": 1.0, "objective/scores_std": 0.0})   # equal sums, other turns


def test_entropy_is_judged_by_the_response():
  """A long response with little entropy a token still differs from sample to sample."""
  low = {**HEALTHY, "policy/entropy_avg": 0.004}
  assert raised({**low, "response_length/mean": 10.0}) == {PREFIX + "entropy_collapse": 1.0}
  assert raised({**low, "response_length/mean": 500.0}) == {}


def test_every_alarm_says_why_and_names_keys_that_exist():
  from sftrl_jax.programs.config.nested import flat
  from sftrl_jax.programs.config.schema import keys_of
  from sftrl_jax.programs.experiment.kinds import KINDS
  from sftrl_jax.training.algorithms import ALGORITHMS
  trees = [{"env": {"name": "general_points"}, "algorithm": name} for name in ALGORITHMS]
  known = {key for kind in KINDS.values() for tree in trees for key in flat(keys_of(tree, kind.schema))}
  sections = {key.split(".")[0] for key in known}
  for alarm in ALARMS.values():
    assert alarm.cause.endswith(".") and alarm.knob.endswith(".")
    named = re.findall(r"--config\.([\w.]*\w)", alarm.knob)
    assert named and all(key in known or key in sections for key in named), named
