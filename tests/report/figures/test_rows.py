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
