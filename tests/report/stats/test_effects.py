import numpy as np
import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.stats import effects, flops_axis


@pytest.fixture(scope="module")
def measured(whole_study):
  study = read_workdir.read_study(whole_study)
  return study, effects.measure(study, resamples=300)


def success(study, base, method, variant, point, temperature=0.0):
  return study.runs[base, method, 0].curve(variant, temperature)[point].success


def test_changes_are_end_minus_start_averaged_over_bases(measured):
  study, result = measured
  for method in ("sft", "ppo"):
    for variant in study.variants:
      direct = [success(study, b, method, variant, -1) - success(study, b, method, variant, 0) for b in study.bases]
      estimate = result.find("change", method, variant, 0.0)
      assert estimate.value == pytest.approx(np.mean(direct), abs=1e-5)
      assert estimate.per_base == pytest.approx(direct, abs=1e-5) and estimate.bases == 5
      assert estimate.low < estimate.value < estimate.high


def test_the_gap_is_the_difference_of_changes_when_starts_are_the_same(measured):
  study, result = measured
  ends = [result.find("end", method, "rule_ood", 0.0).value for method in ("ppo", "sft")]
  assert result.find("gap", "ppo", "rule_ood", 0.0).value == pytest.approx(ends[0] - ends[1], abs=1e-5)
  assert result.find("gap", "sft", "rule_ood", 0.0) is None


def test_the_matched_gap_interpolates_sfts_curve(measured):
  study, result = measured
  direct = []
  for base in study.bases:
    inside, outside = ([success(study, base, "sft", v, k) for k in range(5)] for v in ("id_seen", "rule_ood"))
    target = success(study, base, "ppo", "id_seen", -1)
    direct.append(success(study, base, "ppo", "rule_ood", -1) - np.interp(target, inside, outside))
  estimate = result.find("matched", "ppo", "rule_ood", 0.0)
  assert estimate.value == pytest.approx(np.mean(direct), abs=1e-4) and estimate.kept == 1
  assert 0 < result.brackets["ppo", 0.0] < 0.5


def test_first_attempts_are_measured_too(measured):
  study, result = measured
  direct = [np.mean(study.runs[b, "ppo", 0].curve("rule_ood", 0.0)[-1].outcomes == 1) for b in study.bases]
  assert result.find("end", "ppo", "rule_ood", 0.0, 1).value == pytest.approx(np.mean(direct), abs=1e-5)


def test_early_stopping_picks_the_best_evaluation_after_the_start(measured):
  study, result = measured
  direct = []
  for base in study.bases:
    curve = [success(study, base, "sft", "rule_ood", k) for k in range(5)]
    direct.append(max(curve[1:]) - curve[0])
  assert result.find("early_best", "sft", "rule_ood", 0.0).value == pytest.approx(np.mean(direct), abs=1e-5)


def test_memory_is_seen_minus_held_out(measured):
  _, result = measured
  seen, unseen = (result.find("change", "sft", variant, 0.0).value for variant in ("id_seen", "id_unseen"))
  assert result.find("memory", "sft", "id_seen", 0.0).value == pytest.approx(seen - unseen, abs=1e-5)


def test_a_pair_that_never_matches_is_left_out_and_noted(make_study, make_run, tmp_path):
  make_study(tmp_path, bases=2, episodes=60, skip=("base-1-sft-0",))
  make_run(tmp_path / "runs" / "base-1-sft-0", "sft", base=1, episodes=60, points=2)
  study = read_workdir.read_study(tmp_path)
  result = effects.measure(study, resamples=50)
  matched = result.find("matched", "ppo", "rule_ood", 0.0)
  pairs = sum("left out" in note and "T=0" in note for note in result.notes)
  assert matched.bases + pairs == 2 and flops_axis.comparison(study).notes


def test_runs_that_played_different_episodes_do_not_pair(make_study, make_run, tmp_path):
  make_study(tmp_path, bases=1, episodes=60, skip=("base-0-ppo-0",))
  make_run(tmp_path / "runs" / "base-0-ppo-0", "ppo", episodes=50)
  with pytest.raises(ValueError, match=r"pair by episode.*same evals section"):
    effects.measure(read_workdir.read_study(tmp_path), resamples=10)


def test_no_runs_give_no_effects(make_study, tmp_path):
  study = read_workdir.read_study(make_study(tmp_path, bases=1, skip=("base-0-sft-0", "base-0-ppo-0")))
  assert effects.measure(study).rows == ()
