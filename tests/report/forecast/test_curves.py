"""Curves, budgets and prices of runs; means over bases, paired between methods."""

import dataclasses
import json

import numpy as np
import pytest

from sftrl_jax.forecast.sigmoid import Forecast
from sftrl_jax.report import read_workdir
from sftrl_jax.report.forecast import curves
from sftrl_jax.report.forecast.curves import MethodForecast, RunForecast
from sftrl_jax.report.stats.bootstrap import MIN_BASES

FLOPS_G = np.array([0.0, 1e12, 4e12])


def test_success_is_counted_in_episodes(sigmoid_run, tmp_path):
  run = read_workdir.read_run(sigmoid_run(tmp_path / "run"))
  curve = curves.curve_of(run.curve("id_seen", 0.0), "success")
  assert curve.trials == (512.0,) * 7 and curve.reached == 2e12
  assert curve.right == pytest.approx([e.success * 512 for e in run.curve("id_seen", 0.0)])
  assert curves.curve_of(run.curve("id_seen", 0.0), "per_step").flops == ()   # these lines hold none
  assert curves.curve_of((), "success").reached == 0


@pytest.mark.parametrize("together", [True, False])
def test_responses_of_an_episode_are_one_trial_if_they_go_together(sigmoid_run, tmp_path, together):
  run, random = read_workdir.read_run(sigmoid_run(tmp_path / "run")), np.random.default_rng(0)
  right_N = 4 * random.binomial(1, 0.5, 400) if together else random.binomial(4, 0.5, 400)
  evaluation = dataclasses.replace(run.evaluations[0], right_N=right_N, responses_N=np.full(400, 4))
  curve = curves.curve_of([evaluation], "per_step")
  assert curve.trials[0] == pytest.approx(400 if together else 1600, rel=0.1)
  assert curve.right[0] / curve.trials[0] == pytest.approx(right_N.sum() / 1600)
  perfect = dataclasses.replace(evaluation, right_N=np.full(400, 4))
  assert curves.curve_of([perfect], "per_step").trials == (400.0,)


@pytest.mark.parametrize(("config", "shares", "finished", "end"), [
    (dict(flops=2e12, steps=10**6), (0, .1, .2, .3), False, 2e12),
    (dict(flops=0, steps=2000), (0, .1, .2, .3), False, 4e12),
    (dict(flops=1e13, steps=2000), (0, .1, .2, .3), False, 4e12),
    (dict(flops="many", steps=None), (0, .1, .2, .3), False, 6e11),
    (dict(flops=9e12, steps=2000), (0, .1, .2, .3), True, 6e11)])
def test_a_budget_is_flops_or_steps_whichever_ends_first(sigmoid_run, tmp_path, config, shares, finished, end):
  home = sigmoid_run(tmp_path / "run", shares=shares, finished=finished)
  (home / "config.json").write_text(json.dumps(config))
  run = read_workdir.read_run(home)
  assert curves.budget(run) == pytest.approx(end)
  forecast, = [row for row in curves.of_single(run) if row.variant == "id_seen"]
  assert forecast.target == pytest.approx(end if end > 6e11 else 1.2e12)


def test_a_flop_costs_what_the_run_measured(sigmoid_run, tmp_path, make_run):
  assert curves.chip_hours_of_flop(read_workdir.read_run(sigmoid_run(tmp_path / "run"))) == pytest.approx(1e-12)
  assert np.isnan(curves.chip_hours_of_flop(read_workdir.read_run(make_run(tmp_path / "old", "sft"))))


def test_a_study_has_a_forecast_a_method_and_variant(sigmoid_study, tmp_path):
  home = sigmoid_study(tmp_path / "study")
  sft_id, ppo_id, sft_ood, ppo_ood = curves.of_study(read_workdir.read_study(home))
  assert [(f.method, f.variant) for f in (sft_id, ppo_ood)] == [("sft", "id_seen"), ("ppo", "rule_ood")]
  assert sft_id.bases == (0, 1, 2) and sft_id.without == 0 and sft_id.reached == 2e12 and sft_id.target == 4e12
  rates = [np.median(forecast.rates(np.array([4e12]))) for forecast in (sft_id, ppo_id, sft_ood, ppo_ood)]
  assert rates == pytest.approx([0.94, 0.76, 0.05, 0.41], abs=0.05)
  assert sft_id.measured() == pytest.approx(0.92, abs=0.03)


def test_what_has_too_few_evaluations_is_counted(sigmoid_study, tmp_path):
  study = read_workdir.read_study(sigmoid_study(tmp_path / "study", shares=(0, .5, 1)))
  forecasts = curves.of_study(study)
  assert [(forecast.runs, forecast.without) for forecast in forecasts] == [((), 3)] * 4
  assert np.isnan(forecasts[0].measured()) and forecasts[0].target == 0 and np.isnan(forecasts[0].chip_hours())


def level_forecast(level, draws=1000):
  """Draws that are `level` wherever they are read."""
  same = lambda value: np.full(draws, value)
  return Forecast(same(level), same(level), same(1e12), same(1.0), same(0.0), np.array([1e12]), np.zeros((draws, 1)),
                  same(0.0))


def method(*levels):
  runs = tuple(RunForecast(base, None, None, level_forecast(level)) for base, level in enumerate(levels))
  return MethodForecast("sft", "id_seen", 0.0, runs, 0)


def test_bases_are_drawn_in_pairs_if_there_are_enough():
  levels = [0.1, 0.2, 0.6]
  first, second = method(*levels).rates(FLOPS_G), method(*[level + 0.1 for level in levels]).rates(FLOPS_G)
  assert np.allclose(second - first, 0.1)   # the same bases on both sides
  assert first.mean() == pytest.approx(0.3, abs=0.02) and first.std() == pytest.approx(np.std(levels) / 3**0.5, rel=0.1)
  assert len(levels) == MIN_BASES and method(0.1, 0.6).rates(FLOPS_G).std() == pytest.approx(0)
  assert np.allclose(method(*levels).rates(FLOPS_G, bases=(1,)), 0.2)


def test_seeds_of_a_base_are_averaged_first():
  runs = tuple(RunForecast(base, None, None, level_forecast(level))
               for base, level in ((0, 0.2), (0, 0.4), (1, 0.9)))
  assert np.allclose(MethodForecast("sft", "id_seen", 0.0, runs, 0).rates(FLOPS_G), 0.6)
