"""A sigmoid and its band: least squares against the library's, parameters recovered, bands as wide as they say."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from sftrl_jax.forecast import sigmoid
from sftrl_jax.forecast.sigmoid import CHANGE, LEVEL, MIDPOINT, NOISES, START, STEEPNESS, Curve, band, fit

FLOPS = 1e12


def curve_of(rates, flops, trials=512):
  return Curve(tuple(flops), tuple(np.round(np.array(rates) * trials)), (float(trials),) * len(flops))


def exact(flops, start, end, midpoint, steepness):
  return start + (end - start) * sigmoid.sigmoid(np.array(flops), np.array(midpoint), np.array(steepness))


def simulated(random, points, trials):
  """(curve up to FLOPs, the rate measured at twice that), of parameters that are distributed as the penalties say."""
  *_, weights = zip(*NOISES, strict=True)
  while True:
    start, change = random.normal(*START), random.normal(0, CHANGE)
    if 0 <= start <= 1 and 0 <= start + change <= 1:
      break
  flops = np.array([*np.linspace(0, FLOPS, points), 2 * FLOPS])
  rates = exact(flops, start, start + change, FLOPS * math.exp(random.normal(*MIDPOINT)),
                math.exp(random.normal(*STEEPNESS)))
  spread, walk, _ = NOISES[random.choice(len(NOISES), p=weights)]
  steps = np.diff(sigmoid.drift_time(flops, FLOPS), prepend=0.0)
  rates += np.cumsum(walk * np.sqrt(steps) * random.standard_normal(points + 1))
  rates += spread * random.standard_normal(points + 1) * (flops > 0)
  right = random.binomial(trials, np.clip(rates, 0, 1))
  return Curve(tuple(flops[:-1]), tuple(right[:-1]), (trials,) * points), right[-1] / trials


@pytest.mark.parametrize(("points", "trials"), [(4, 512), (6, 512), (11, 128)])
def test_a_band_holds_as_many_as_it_says(points, trials):
  """200 runs of the right model: within three standard errors of 80%."""
  random, inside, count = np.random.default_rng(points), 0, 200
  for number in range(count):
    curve, end = simulated(random, points, trials)
    low, _, high = band(fit(curve, number, draws=300).measured(2 * FLOPS, trials, number))
    inside += low <= end <= high
  assert abs(inside / count - LEVEL) < 3 * math.sqrt(LEVEL * (1 - LEVEL) / count), inside / count


@pytest.mark.parametrize("truth", [(0.3, 0.9, 3e11, 2.0), (0.35, 0.02, 5e11, 1.5), (0.1, 0.6, 2e11, 1.0)])
def test_parameters_are_recovered(truth):
  flops = np.linspace(0, 2 * FLOPS, 21)
  forecast = fit(curve_of(exact(flops, *truth), flops, 100_000))
  draws = (forecast.start_D, forecast.end_D, forecast.midpoint_D, forecast.steepness_D)
  for name, values, true in zip(("R0", "A", "M", "B"), draws, truth, strict=True):
    low, middle, high = band(values, 0.99)
    assert low <= true <= high, name
    assert middle == pytest.approx(true, rel=0.1, abs=0.01), name
  later = np.array([4 * FLOPS])
  assert np.median(forecast.rates(later)) == pytest.approx(exact(later, *truth)[0], abs=0.01)


def test_least_squares_and_likelihood_are_the_library_s():
  """R0 and the change by lstsq on the data and two rows of penalties; the likelihood by scipy's normal distribution."""
  random = np.random.default_rng(0)
  flops_K, trials_K = np.linspace(0, 1, 5), np.full(5, 200.0)
  right_K = np.array([60.0, 75, 80, 120, 130])
  squares, u_K = sigmoid._Squares.of(flops_K, right_K, trials_K), flops_K
  rate_K, share_NK = right_K / trials_K, random.random((3, 5))
  variance_K = (right_K + 1) / (trials_K + 2) * (1 - (right_K + 1) / (trials_K + 2)) / trials_K
  _, _, _, start_NT, change_NT, logs_NT = squares.solved(share_NK)
  constants = []
  for place, (spread, walk, _) in enumerate(NOISES):
    noise_KK = np.diag(variance_K + spread**2 * (flops_K > 0)) + walk**2 * np.minimum.outer(u_K, u_K)
    white_KK, logs = np.linalg.inv(np.linalg.cholesky(noise_KK)), []
    for number, share_K in enumerate(share_NK):
      design = np.stack([np.ones(5), share_K], axis=1)
      rows = np.concatenate([white_KK @ design, np.diag([1 / START[1], 1 / CHANGE])])
      solution, *_ = np.linalg.lstsq(rows, np.concatenate([white_KK @ rate_K, [START[0] / START[1], 0.0]]))
      assert np.allclose(solution, [start_NT[number, place], change_NT[number, place]])
      covariance = design @ np.diag([START[1]**2, CHANGE**2]) @ design.T + noise_KK
      logs.append(stats.multivariate_normal(design @ [START[0], 0.0], covariance).logpdf(rate_K))
    assert np.allclose(np.diff(logs), np.diff(logs_NT[:, place]))
    constants.append(logs[0] - logs_NT[0, place])
    alone = squares.solved(share_NK, np.full(3, place))
    assert all(np.allclose(one, many if many.ndim == 1 else many[:, place]) for one, many in zip(
        alone[1:], squares.solved(share_NK)[1:], strict=True))
  assert np.allclose(constants, constants[0])   # so that noises compare too


def rising(trials=512, last=FLOPS):
  flops = np.linspace(0, last, 6)
  return curve_of(exact(flops, 0.3, 0.8, 0.4 * last, 1.5), flops, trials)


def test_the_order_of_lines_is_nothing():
  curve = rising()
  order = [3, 0, 5, 1, 4, 2]
  shuffled = Curve(*(tuple(column[place] for place in order) for column in (curve.flops, curve.right, curve.trials)))
  for field in dataclasses.fields(sigmoid.Forecast):
    assert np.array_equal(getattr(fit(curve), field.name), getattr(fit(shuffled), field.name))


def test_a_unit_of_flops_is_nothing():
  small, large = fit(rising(last=1.0)), fit(rising(last=2.0**60))
  assert np.array_equal(small.midpoint_D * 2.0**60, large.midpoint_D)
  flops = np.array([0.0, 0.7, 3.0])
  assert np.allclose(small.rates(flops), large.rates(flops * 2.0**60), rtol=0, atol=1e-12)


def test_a_seed_fixes_the_draws():
  first, again, other_seed = fit(rising(), 3), fit(rising(), 3), fit(rising(), 4)
  assert np.array_equal(first.end_D, again.end_D) and not np.array_equal(first.end_D, other_seed.end_D)
  assert np.array_equal(first.measured(2e12, 100, 1), again.measured(2e12, 100, 1))


def test_too_few_evaluations_have_no_answer():
  assert fit(Curve((), (), ())) is None
  assert fit(curve_of([0.3, 0.4, 0.5], [0, 1e11, 2e11])) is None
  assert fit(curve_of([0.3, 0.4, 0.5, 0.5], [0, 1e11, 2e11, 2e11])) is None   # of which two are one
  assert fit(curve_of([0.3] * 5, [0.0] * 5)) is None   # a run that charges nothing
  assert fit(curve_of([0.3, 0.4, 0.5, 0.5], [0, 1e11, 2e11, 3e11])) is not None
  assert fit(curve_of([0.3, 0.4, 0.5, 0.5], [1e11, 2e11, 3e11, 4e11])) is not None   # nor is the start needed


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_a_flat_curve_goes_on(rate):
  flops = np.linspace(0, FLOPS, 6)
  forecast = fit(curve_of([rate] * 6, flops))
  low, middle, high = band(forecast.measured(2 * FLOPS, 512))
  assert low <= rate <= high and abs(middle - rate) < 0.02 and high - low < 0.25
  assert np.isfinite(forecast.rates(np.array([0.0, 1e9, 1e15]))).all()


def test_rates_stay_in_their_range_and_begin_at_the_start():
  forecast = fit(curve_of([0.01, 0.9, 0.97, 1.0, 1.0], [0, 2e11, 4e11, 7e11, 1e12]))
  rates_DG = forecast.rates(np.array([0.0, 1e10, 1e12, 1e14]))
  assert rates_DG.min() >= 0 and rates_DG.max() <= 1
  assert np.array_equal(rates_DG[:, 0], forecast.start_D)
  assert (forecast.start_D >= 0).all() and (forecast.end_D <= 1).all()


def test_a_band_is_wider_further_on_and_with_fewer_episodes():
  width = lambda forecast, flops: np.ptp(np.quantile(forecast.rates(np.array([flops])), [0.1, 0.9]))
  many, few = fit(rising(5000)), fit(rising(50))
  assert width(many, FLOPS) < width(many, 2 * FLOPS) < width(many, 10 * FLOPS)
  assert width(many, 2 * FLOPS) < width(few, 2 * FLOPS)


def test_what_a_run_moves_between_evaluations_widens_the_band():
  flops, random = np.linspace(0, FLOPS, 12), np.random.default_rng(1)
  rates = exact(flops, 0.3, 0.8, 3e11, 1.5)
  unsteady = np.clip(rates + 0.06 * random.standard_normal(12) * (flops > 0), 0, 1)
  steady, moved = (fit(curve_of(values, flops, 20_000)) for values in (rates, unsteady))
  assert moved.residual_D.std() > 0.02 > 0.01 > steady.residual_D.std()


def test_the_early_part_is_left_out_where_enough_stays():
  curve = rising()
  early = Curve((*curve.flops, 0.01 * FLOPS), (*curve.right, 500.0), (*curve.trials, 512.0))
  assert np.array_equal(fit(early).end_D, fit(curve).end_D)
  short = Curve((0.0, 0.01 * FLOPS, 0.5 * FLOPS, FLOPS), (100, 110, 200, 220), (512.0,) * 4)
  assert fit(short).points == 4


def test_no_number_of_episodes_is_too_large():
  curve = rising(1e300)
  assert np.isfinite(fit(curve).end_D).all() and np.isfinite(fit(curve).measured(2 * FLOPS, 1e300)).all()


def test_a_curve_ends_where_it_is_cut():
  assert rising().until(0.5 * FLOPS).flops == (0.0, 0.2 * FLOPS, 0.4 * FLOPS)
  assert rising().until(-1.0) == Curve((), (), ()) and rising().reached == FLOPS
