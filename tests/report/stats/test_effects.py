import json

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
  assert 0 < result.bracket("ppo", 0.0) < 0.5


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


@pytest.fixture(scope="module")
def of_points(points_study):
  study = read_workdir.read_study(points_study)
  return study, effects.measure(study, resamples=300)


def test_right_responses_are_a_measure_like_success(of_points):
  study, result = of_points
  for variant in study.variants:
    ends = [study.runs[base, "ppo", 0].curve(variant, 1.0)[-1] for base in study.bases]
    direct = [sum(e.right_N) / sum(e.responses_N) for e in ends]
    estimate = result.find("end", "ppo", variant, 1.0)
    assert estimate.per_base == pytest.approx(direct, abs=1e-5) and estimate.low < estimate.value < estimate.high
    success = result.find("end", "ppo", variant, 1.0, measure="success")
    assert success.per_base == pytest.approx([e.success for e in ends], abs=1e-5)
  quantities = {(row.quantity, row.measure) for row in result.rows}
  assert {(q, m) for q in ("gap", "matched", "early_best") for m in ("success", "per_step")} <= quantities


def test_where_an_episode_has_one_response_right_responses_have_no_estimate_of_their_own(make_study, tmp_path):
  directory = make_study(tmp_path / "once", bases=3)
  for path in directory.glob("runs/*/evals.jsonl"):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
      right = [int(digit == "1") for digit in line["outcomes"]]
      line.update(episode_right=right, episode_responses=[1] * len(right))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  study = read_workdir.read_study(directory)
  assert study.measures == ("success",) and {row.measure for row in effects.measure(study, 20).rows} == {"success"}


def test_hands_read_are_a_measure_like_success(make_study, tmp_path):
  """A digit an episode says whether the first response has the cards right; here it does where it is right."""
  directory = make_study(tmp_path / "seen", bases=3)
  for path in directory.glob("runs/*/evals.jsonl"):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
      line["first_parts"] = {"cards": line["outcomes"].translate(str.maketrans("23", "00"))}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  study = read_workdir.read_study(directory)
  result = effects.measure(study, resamples=100)
  assert study.measures == ("success", "cards")
  for quantity in ("start", "end", "change"):
    cards, first = (result.find(quantity, "sft", "rule_ood", 0.0, attempts, measure)
                    for attempts, measure in ((0, "cards"), (1, "success")))
    assert cards.per_base == pytest.approx(first.per_base, abs=1e-6) and cards.low == pytest.approx(first.low, abs=1e-6)


def test_a_part_of_all_responses_is_a_ratio_as_right_responses_are(points, tmp_path):
  """Here a response has the sign right where it is right, and every response has one."""
  directory = points.write_study(tmp_path, bases=3)
  for run in (directory / "runs").iterdir():
    (run / "labels.json").write_text(json.dumps({"codes": {}, "variants": {}, "parts": {"sign": "signs read"}}))
    lines = [json.loads(line) for line in (run / "evals.jsonl").read_text().splitlines()]
    for line in lines:
      line["episode_parts"] = {"sign": [line["episode_right"], line["episode_responses"]], "landmark": [[], []]}
    (run / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  study = read_workdir.read_study(directory)
  result = effects.measure(study, resamples=100)
  assert study.measures == ("per_step", "success", "sign")
  for quantity in ("start", "end", "change"):
    sign, whole = (result.find(quantity, "sft", "rule_ood", 0.0, measure=measure) for measure in ("sign", "per_step"))
    assert sign == whole and sign.bases == 3


def test_a_gap_in_right_responses_is_paired_by_episode(of_points):
  """Both methods play the same episodes, of unequal ease: their difference varies less than two apart would."""
  study, result = of_points
  gap, *ends = (result.find(q, m, "id", 0.0) for q, m in (("gap", "ppo"), ("end", "ppo"), ("end", "sft")))
  assert gap.value == pytest.approx(ends[0].value - ends[1].value, abs=1e-6)
  assert gap.per_base == pytest.approx(np.subtract(*(end.per_base for end in ends)), abs=1e-6)


def test_a_matched_gap_says_between_which_evaluations_it_reads(of_points):
  study, result = of_points
  reads = [read for read in result.reads if (read.method, read.temperature) == ("ppo", 0.0)]
  assert len(reads) == result.find("matched", "ppo", "rule_ood", 0.0).runs
  for read in reads:
    curve = study.runs[int(read.run.split("-")[1]), "sft", 0].curve("id", 0.0)
    index = [e.flops for e in curve].index(read.flops[0])
    assert read.success[0] < read.target <= read.success[1]
    assert read.success == pytest.approx([e.per_step for e in curve[index : index + 2]])
    assert (read.flops[1], read.updates[1]) == (curve[index + 1].flops, curve[index + 1].updates)


def test_runs_whose_lines_are_older_still_have_their_success(points, tmp_path):
  study = points.write_study(tmp_path, bases=3)
  path = study / "runs" / "base-0-ppo-0" / "evals.jsonl"
  path.write_text(path.read_text().replace('"episode_right"', '"x"').replace('"episode_responses"', '"y"'))
  study = read_workdir.read_study(study)
  result = effects.measure(study, resamples=20)
  assert result.find("end", "ppo", "id", 0.0).bases == 2
  assert result.find("end", "ppo", "id", 0.0, measure="success").bases == 3


def test_a_budget_of_its_own_is_read_at_its_end_and_its_gap_at_equal_flops(arms_study):
  study = read_workdir.read_study(arms_study)
  result = effects.measure(study, resamples=20)
  rate = lambda base, method, index: study.runs[base, method, 0].curve("rule_ood", 0.0)[index].per_step
  for method in ("sft_early", "ppo_half", "sft", "ppo"):
    end = result.find("end", method, "rule_ood", 0.0)
    assert end.per_base == pytest.approx([rate(base, method, -1) for base in range(3)], abs=1e-5), method
  # 2e11 is the second evaluation of SFT, and 1e12 lies a third of the way between its third and its last one.
  early = [rate(base, "sft_early", -1) - rate(base, "sft", 1) for base in range(3)]
  assert result.find("gap", "sft_early", "rule_ood", 0.0).per_base == pytest.approx(early, abs=1e-5)
  half = [rate(b, "ppo_half", -1) - (5 * rate(b, "sft", 2) + rate(b, "sft", 3)) / 6 for b in range(3)]
  assert result.find("gap", "ppo_half", "rule_ood", 0.0).per_base == pytest.approx(half, abs=1e-5)
  assert sum("budget of its own" in note for note in result.notes) == 2


def test_other_bases_are_compared_with_their_own_start_alone(arms_study):
  study = read_workdir.read_study(arms_study)
  result = effects.measure(study, resamples=20)
  change = [run.curve("id", 0.0)[-1].per_step - run.curve("id", 0.0)[0].per_step
            for run in (study.runs[base, "ppo_clean", 0] for base in range(3))]
  assert result.find("change", "ppo_clean", "id", 0.0).per_base == pytest.approx(change, abs=1e-5)
  assert result.find("gap", "ppo_clean", "id", 0.0) is result.find("matched", "ppo_clean", "rule_ood", 0.0) is None
  # A claim may name any two methods; it is no gap to the reference.
  assert result.find("gap", "ppo_half", "rule_ood", 0.0, comparison="sft_early").bases == 3
