"""How good forecasts were: each finished run's end, forecast from its first half, beside what was measured there."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from sftrl_jax.forecast.sigmoid import band, fit
from sftrl_jax.report.forecast.curves import curve_of, stream
from sftrl_jax.report.records import Run

HALF = 0.5
TOLERANCE = 1.03   # an evaluation falls due at the first step past its share


@dataclasses.dataclass(frozen=True)
class Case:
  """One run on one variant: the band from the first half, what was measured at the end and at the half."""

  run: str
  variant: str
  low: float
  middle: float
  high: float
  end: float
  half: float

  @property
  def is_inside(self) -> bool:
    return self.low <= self.end <= self.high


@dataclasses.dataclass(frozen=True)
class Score:
  """Cases together. share and its 95% Wilson interval; width of the bands; mean distances from the end, of the forecast
  and of the rate at the half."""

  cases: int
  inside: int
  low: float
  high: float
  width: float
  error: float
  error_of_half: float


def cases(runs: Iterable[Run], variants: Sequence[str], temperature: float, measure: str) -> tuple[list[Case], int]:
  """(the cases, how many finished curves have too few evaluations in their first half)."""
  results, short = [], 0
  for run in runs:
    for variant in variants if run.finished else ():
      curve = curve_of(run.curve(variant, temperature), measure)
      if len(curve.flops) < 2 or not curve.reached:
        continue
      until = curve.until(HALF * curve.reached * TOLERANCE)
      seed = stream(run, variant, temperature)
      forecast = fit(until, seed)
      if forecast is None:
        short += 1
        continue
      end, right, trials = max(zip(curve.flops, curve.right, curve.trials, strict=True))
      low, middle, high = map(float, band(forecast.measured(end, trials, seed)))
      _, right_before, trials_before = max(zip(until.flops, until.right, until.trials, strict=True))
      results.append(Case(run.name, variant, low, middle, high, right / trials, right_before / trials_before))
  return results, short


def score(results: Sequence[Case]) -> Score:
  """ValueError without a case."""
  if not results:
    raise ValueError("A score needs at least one case.")
  from scipy import stats  # a second to import: only where there is something to score
  inside = sum(case.is_inside for case in results)
  interval = stats.binomtest(inside, len(results)).proportion_ci(confidence_level=0.95, method="wilson")
  width, error, error_of_half = np.mean([(
      case.high - case.low, abs(case.middle - case.end), abs(case.half - case.end)) for case in results], axis=0)
  return Score(len(results), inside, float(interval.low), float(interval.high), float(width), float(error),
               float(error_of_half))
