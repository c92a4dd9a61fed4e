"""From where on a curve is above another, in every draw."""

import numpy as np
import pytest

from sftrl_jax.forecast.crossing import LEAST_SHARE, crossing, grid
from sftrl_jax.forecast.sigmoid import Curve, fit, sigmoid

FLOPS_G = np.linspace(1.0, 11.0, 11)


def line(*values):
  return np.interp(FLOPS_G, np.linspace(1, 11, len(values)), values)[None]


def test_lines_cross_where_they_cross():
  passing = crossing(line(0, 1), line(0.5, 0.5), FLOPS_G)
  assert passing.at_D[0] == pytest.approx(6.0) and passing.share == 1.0
  assert crossing(line(0, 1), line(0.25, 0.25), FLOPS_G).at_D[0] == pytest.approx(3.5)


def test_the_last_crossing_counts():
  """Above, below, above again: it passes at the second time."""
  assert crossing(line(0.6, 0.4, 0.6), line(0.5, 0.5), FLOPS_G).at_D[0] == pytest.approx(8.5)


def test_who_never_passes_and_who_is_above_from_the_first():
  low, high = line(0.2, 0.3), line(0.4, 0.5)
  assert crossing(low, high, FLOPS_G).at_D[0] == np.inf and crossing(high, low, FLOPS_G).at_D[0] == 0
  assert crossing(low, low, FLOPS_G).at_D[0] == np.inf   # two that are equal do not pass one another


def test_one_direction_or_the_other():
  random = np.random.default_rng(0)
  first, second = random.random((2, 50, 11))
  ahead, behind = crossing(first, second, FLOPS_G), crossing(second, first, FLOPS_G)
  assert (np.isfinite(ahead.at_D) ^ np.isfinite(behind.at_D)).all()
  assert ahead.share + behind.share == pytest.approx(1)


@pytest.mark.parametrize(("passing", "known"), [(100, True), (91, True), (90, True), (89, False), (0, False)])
def test_it_is_known_if_the_whole_interval_is_within_the_horizon(passing, known):
  first = np.concatenate([np.repeat(line(0, 1), passing, axis=0), np.repeat(line(0, 0), 100 - passing, axis=0)])
  result = crossing(first, np.repeat(line(0.5, 0.5), 100, axis=0), FLOPS_G)
  assert result.share == passing / 100 and result.is_known is known
  assert np.isfinite(result.interval()[2]) == known and LEAST_SHARE == 0.9


def fitted(unit, truth, seed):
  start, end, midpoint, steepness = truth
  flops = np.linspace(0, 10, 9) * unit
  rates = start + (end - start) * sigmoid(flops, np.array(midpoint * unit), np.array(steepness))
  return fit(Curve(tuple(flops), tuple(np.round(rates * 2000)), (2000.0,) * 9), seed)


@pytest.mark.parametrize("unit", [1.0, 2.0**40])
def test_a_crossing_of_known_curves_is_inside_its_interval_and_scales_with_flops(unit):
  """One falls from 30%, one rises from 10%: they meet where both are at the same rate."""
  falls, rises = (0.3, 0.05, 4.0, 2.0), (0.1, 0.4, 5.0, 1.5)
  fine = np.linspace(0.01, 20, 200_000)
  rates = [s + (e - s) * sigmoid(fine, np.array(m), np.array(b)) for s, e, m, b in (falls, rises)]
  truth = fine[np.argmax(rates[1] > rates[0])]
  flops_G = grid(unit, 20 * unit)
  draws = [fitted(unit, parameters, seed).rates(flops_G) for seed, parameters in enumerate((rises, falls))]
  low, middle, high = crossing(*draws, flops_G).interval()
  assert low <= truth * unit <= high and middle == pytest.approx(truth * unit, rel=0.1)
  if unit == 1.0:
    scaled = grid(2.0**40, 20 * 2.0**40)
    again = [fitted(2.0**40, parameters, seed).rates(scaled) for seed, parameters in enumerate((rises, falls))]
    assert crossing(*again, scaled).interval() == pytest.approx([2.0**40 * flops for flops in (low, middle, high)])
