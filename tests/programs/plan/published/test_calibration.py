"""The calibrating half gives the efficiency, and the tested half has no influence on it."""

import dataclasses

import numpy as np
import pytest

from sftrl_jax.programs.plan.published import calibration, runs


def test_half_of_the_runs_calibrate_and_each_generation_has_both():
  predicted = calibration.predictions()
  assert [run.run.name for run in predicted] == sorted(run.run.name for run in predicted)
  assert [run.calibrates for run in predicted] == [place % 2 == 0 for place in range(len(predicted))]
  for chip in {run.run.chip for run in predicted}:
    assert {run.calibrates for run in predicted if run.run.chip == chip} == {True, False}


def test_the_order_in_which_runs_are_written_changes_nothing():
  names = tuple(run.name for run in runs.RUNS)
  assert calibration.is_calibrating(names) == calibration.is_calibrating(names[::-1])


def test_the_fit_has_the_least_log_error():
  some = tuple(run for run in calibration.predictions() if run.run.chip == "v5p")
  error = lambda efficiency: sum(abs(np.log(run.efficiency / efficiency)) for run in some)
  fitted = calibration.fit(some)
  assert all(error(fitted) <= error(fitted * factor) + 1e-12 for factor in (0.9, 0.99, 1.01, 1.1))
  assert calibration.fit(some[:1]) == pytest.approx(some[0].efficiency)


def test_tested_runs_do_not_calibrate(monkeypatch):
  before = calibration.predictions()
  tested = {run.run.name for run in before if not run.calibrates}
  slower = tuple(dataclasses.replace(run, seconds=2 * run.seconds, tflops=run.tflops / 2) if run.name in tested else run
                 for run in runs.RUNS)
  monkeypatch.setattr(calibration, "RUNS", slower)
  after = calibration.predictions.__wrapped__()
  assert [run.predicted for run in before] == [run.predicted for run in after]
  assert calibration.tested_errors(after)[0] > calibration.tested_errors(before)[0]


def test_a_bound_is_below_what_was_measured():
  for run in calibration.predictions():
    assert 0 < run.bound < run.seconds, run.run.name


def test_efficiencies_enclose_the_fitted_one():
  for chip in calibration.CHIPS:
    efficiency = calibration.efficiency(chip)
    assert 0 < efficiency.lowest <= efficiency.fitted <= efficiency.highest < 1
  assert calibration.efficiency("h100") is None
