import numpy as np
import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.figures.rows import (
  attempt_rows,
  curve_rows,
  frontier_rows,
  matched_rows,
  verdict_groups,
  verdict_rows,
)
from sftrl_jax.report.stats import effects, flops_axis


@pytest.fixture(scope="module")
def study(whole_study):
  return read_workdir.read_study(whole_study)


def test_the_mean_curve_is_the_mean_of_the_bases(study):
  rows = [r for r in curve_rows(study) if (r["variant"], r["temperature"], r["method"]) == ("rule_ood", 0.0, "sft")]
  assert {row["base"] for row in rows} == {"mean", *(f"base-{b}" for b in range(5))}
  ends = [[r["success"] for r in rows if r["base"] == f"base-{b}"][-1] for b in range(5)]
  assert [r["success"] for r in rows if r["base"] == "mean"][-1] == pytest.approx(np.mean(ends))


def test_kl_is_drawn_where_it_was_written(study):
  rows = curve_rows(study, "kl")
  assert {row["temperature"] for row in rows} == {1.0} and all(row["kl"] >= 0 for row in rows)


def test_the_frontier_pairs_both_sides_of_an_evaluation(study):
  rows = [r for r in frontier_rows(study) if (r["temperature"], r["method"], r["base"]) == (0.0, "ppo", "base-2")]
  run = study.runs[2, "ppo", 0]
  assert [r["in_distribution"] for r in rows] == pytest.approx([e.success for e in run.curve("id_seen", 0.0)])
  assert [r["shifted"] for r in rows] == pytest.approx([e.success for e in run.curve("rule_ood", 0.0)])


def test_success_grows_with_attempts_and_shares_add_up(study):
  chosen = flops_axis.comparison(study)
  rows = attempt_rows(study, chosen)
  assert {row["group"] for row in rows} == {"start", "sft", "ppo"} and {row["attempt"] for row in rows} == {1, 2, 3}
  for row in rows:
    later = [r for r in rows if r["attempt"] == row["attempt"] + 1 and all(
      r[k] == row[k] for k in ("variant", "temperature", "group"))]
    assert all(r["success"] >= row["success"] for r in later)
  shares = {}
  for row in verdict_rows(study, chosen, verdict_groups(study.runs.values())):
    key = row["variant"], row["group"]
    shares[key] = shares.get(key, 0) + row["share"]
  assert len(shares) == 9 and all(total == pytest.approx(1) for total in shares.values())


def test_matched_rows_agree_with_the_estimate(study):
  measured = effects.measure(study, resamples=20)
  rows = {(row["temperature"], row["base"]): row["gap"] for row in matched_rows(study, measured)}
  assert rows[0.0, "mean"] == pytest.approx(measured.find("matched", "ppo", "rule_ood", 0.0).value, abs=1e-4)


def test_curves_may_be_over_updates_and_are_of_the_measure_that_heads_the_report(points_study):
  study = read_workdir.read_study(points_study)
  rows = [row for row in curve_rows(study, x="updates")
          if (row["variant"], row["temperature"], row["base"]) == ("id", 0.0, "base-1")]
  for method, updates in (("sft", 2500), ("ppo", 256)):
    curve = study.runs[1, method, 0].curve("id", 0.0)
    of_method = [row for row in rows if row["method"] == method]
    assert [row["updates"] for row in of_method] == [e.updates for e in curve] and curve[-1].updates == updates
    assert [row["per_step"] for row in of_method] == pytest.approx([e.per_step for e in curve])


def test_older_lines_have_no_curve_over_updates(study):
  assert not curve_rows(study, x="updates") and curve_rows(study)


def test_verdicts_of_many_points_are_those_of_all_responses(points_study):
  study = read_workdir.read_study(points_study)
  rows = verdict_rows(study, flops_axis.comparison(study), verdict_groups(study.runs.values()))
  right, = (r["share"] for r in rows if (r["variant"], r["group"], r["verdict"]) == ("id", "ppo", "correct"))
  ends = [study.runs[base, "ppo", 0].curve("id", 0.0)[-1].per_step for base in study.bases]
  assert right == pytest.approx(np.mean(ends))


def test_every_group_of_bases_has_a_start_of_its_own(arms_study):
  study = read_workdir.read_study(arms_study)
  rows = verdict_rows(study, flops_axis.comparison(study), verdict_groups(study.runs.values()))
  right = {r["group"]: r["share"] for r in rows if (r["variant"], r["verdict"]) == ("id", "correct")}
  assert right["start of PPO CLEAN"] < right["start"] - 0.2
