import numpy as np
import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.stats import curves


@pytest.fixture(scope="module")
def study(whole_study):
  return read_workdir.read_study(whole_study)


def test_row_0_of_a_curve_is_the_data_as_they_are(study):
  keys = list(study.runs)
  resampled, attempts = curves.resampled_curves(study, keys, 50)
  assert attempts == 3
  for key in keys:
    rate_RK = curves.rate_of(resampled, key, "rule_ood", 0.0, "success")
    assert rate_RK.shape == (51, 5)
    assert rate_RK[0] == pytest.approx([e.success for e in study.runs[key].curve("rule_ood", 0.0)], abs=1e-6)


def test_a_run_or_measure_that_was_not_evaluated_has_no_rate(study):
  key = next(iter(study.runs))
  resampled, _ = curves.resampled_curves(study, [key], 10)
  assert curves.rate_of(resampled, key, "rule_ood", 0.0, "cards") is None
  assert curves.rate_of(resampled, key, "nowhere", 0.0, "success") is None


def test_the_unit_of_an_estimate_is_the_base(study):
  values = {(base, "ppo", seed): np.full(11, base + 0.1 * seed, np.float32) for base in range(4) for seed in range(2)}
  estimate = curves.estimate_of(values, 100)
  assert estimate.per_base == pytest.approx([0.05, 1.05, 2.05, 3.05]) and (estimate.bases, estimate.runs) == (4, 8)
