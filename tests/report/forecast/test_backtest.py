"""Forecasts of ends that are known."""

import pytest
from scipy import stats

from sftrl_jax.report import read_workdir
from sftrl_jax.report.forecast import backtest
from sftrl_jax.report.forecast.backtest import Case

VARIANTS = ("id_seen", "rule_ood")


def run_of(sigmoid_run, home, **options):
  return read_workdir.read_run(sigmoid_run(home, **options))


def test_ends_of_sigmoids_are_inside_at_least_as_often_as_the_band_says(sigmoid_run, tmp_path):
  runs = [run_of(sigmoid_run, tmp_path / f"{method}{seed}", method=method, seed=seed)
          for method in ("sft", "ppo") for seed in range(20)]
  results, short = backtest.cases(runs, VARIANTS, 0.0, "success")
  assert len(results) == 80 and short == 0
  score = backtest.score(results)
  assert stats.binomtest(score.inside, 80, 0.8, alternative="less").pvalue > 0.01, score
  assert 0.05 < score.width < 0.4   # they drift less than the band allows for, but that is no reason to hold all
  assert score.low < score.inside / 80 < score.high
  interval = stats.binomtest(score.inside, 80).proportion_ci(method="wilson")
  assert (score.low, score.high) == (interval.low, interval.high)
  assert score.error < score.error_of_half   # these curves still move after the half


def test_the_second_half_is_not_looked_at(sigmoid_run, tmp_path):
  whole = run_of(sigmoid_run, tmp_path / "whole" / "run")
  home = sigmoid_run(tmp_path / "turned" / "run")
  lines = (home / "evals.jsonl").read_text().splitlines(keepends=True)
  kept = [line for line in lines if '"step": 750' not in line]
  assert len(kept) == len(lines) - 2
  (home / "evals.jsonl").write_text("".join(kept))
  ends = [[(case.low, case.middle, case.high) for case in backtest.cases([run], VARIANTS, 0.0, "success")[0]]
          for run in (whole, read_workdir.read_run(home))]
  assert ends[0] == ends[1]


def test_a_curve_that_turns_is_outside(sigmoid_run, tmp_path):
  home = sigmoid_run(tmp_path / "run", method="ppo")
  text = (home / "evals.jsonl").read_text()
  run = read_workdir.read_run(home)
  last = run.curve("id_seen", 0.0)[-1]
  lines = [line for line in text.splitlines(keepends=True) if not ('"step": 1000' in line and "id_seen" in line)]
  lines.append('{"step": 1000, "variant": "id_seen", "temperature": 0.0, "seed": 5000, "attempts": 1, "episodes": 512, '
               f'"successes": 5, "success": {5 / 512}, "flops": {last.flops}}}\n')
  (home / "evals.jsonl").write_text("".join(lines))
  case, = backtest.cases([read_workdir.read_run(home)], ["id_seen"], 0.0, "success")[0]
  assert not case.is_inside and case.end == 5 / 512


def test_unfinished_runs_are_no_cases_and_short_ones_are_counted(sigmoid_run, tmp_path):
  unfinished = run_of(sigmoid_run, tmp_path / "a", finished=False)
  short = run_of(sigmoid_run, tmp_path / "b", shares=(0, .25, .5, .75, 1))
  assert backtest.cases([unfinished, short], VARIANTS, 0.0, "success") == ([], 2)
  assert backtest.cases([unfinished], VARIANTS, 0.0, "success") == ([], 0)
  late = run_of(sigmoid_run, tmp_path / "c", shares=(0, .1, .2, .51, 1))   # a step past the half
  assert len(backtest.cases([late], VARIANTS, 0.0, "success")[0]) == 2


def test_a_score_is_means_over_cases():
  results = [Case("a", "id", 0.2, 0.3, 0.4, 0.35, 0.3), Case("b", "id", 0.2, 0.5, 0.6, 0.7, 0.4)]
  score = backtest.score(results)
  assert (score.cases, score.inside) == (2, 1)
  assert (score.width, score.error, score.error_of_half) == pytest.approx((0.3, 0.125, 0.175))
  with pytest.raises(ValueError, match="at least one case"):
    backtest.score([])
