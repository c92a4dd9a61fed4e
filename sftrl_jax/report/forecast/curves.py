"""Runs as curves to fit, the forecasts of runs and methods, and what a FLOP of a run costs."""

import dataclasses
import math
import zlib
from collections.abc import Sequence

import numpy as np

from sftrl_jax.forecast.sigmoid import DRAWS, Curve, Forecast, fit
from sftrl_jax.report.labels import EMA
from sftrl_jax.report.records import PER_STEP, Evaluation, Run, Study, number
from sftrl_jax.report.stats.bootstrap import MIN_BASES

AHEAD = 2.0   # times the FLOPs of a run at its end: the backtest reaches as far


@dataclasses.dataclass(frozen=True)
class RunForecast:
  """One run on one variant: its curve and the draws; `fitted` is None where the data can't say."""

  base: int
  run: Run
  curve: Curve
  fitted: Forecast | None

  @property
  def target(self) -> float:
    """The FLOPs that are forecast: the end of the budget, or AHEAD times the last evaluation's of a run at its end."""
    end = budget(self.run)
    return end if end > self.curve.reached * 1.03 else AHEAD * self.curve.reached


@dataclasses.dataclass(frozen=True)
class MethodForecast:
  """A method on one variant: the runs that have a forecast, and how many have none."""

  method: str
  variant: str
  temperature: float
  runs: tuple[RunForecast, ...]
  without: int

  @property
  def bases(self) -> tuple[int, ...]:
    return tuple(dict.fromkeys(run.base for run in self.runs))

  @property
  def reached(self) -> float:
    """The FLOPs to which every run is evaluated."""
    return min((run.curve.reached for run in self.runs), default=0.0)

  @property
  def target(self) -> float:
    return max((run.target for run in self.runs), default=0.0)

  def rates(self, flops_G: np.ndarray, bases: Sequence[int] = ()) -> np.ndarray:
    """The mean over bases of the mean over seeds, per draw, [D, G].

    Bases are drawn with replacement, unless there are fewer than MIN_BASES: then the draws are of these bases alone.
    Methods with the same `bases` (all of them if left out) draw the same ones: their draws are paired.
    """
    bases = tuple(bases) or self.bases
    of_base = [np.mean([run.fitted.rates(flops_G) for run in self.runs if run.base == base], axis=0) for base in bases]
    values_BDG = np.stack(of_base)
    if len(bases) < MIN_BASES:
      return values_BDG.mean(axis=0)
    draws = values_BDG.shape[1]
    drawn_DB = np.random.default_rng((len(bases), DRAWS)).integers(0, len(bases), (draws, len(bases)))
    return np.mean([values_BDG[drawn, np.arange(draws)] for drawn in drawn_DB.T], axis=0)

  def measured(self) -> float:
    """The mean over bases of the last measured rates."""
    of_base = [np.mean([_last_rate(run.curve) for run in self.runs if run.base == base]) for base in self.bases]
    return float(np.mean(of_base)) if of_base else math.nan

  def chip_hours(self) -> float:
    """Chip-hours of a FLOP, mean over the runs that have measured it; NaN without one."""
    values = [value for value in (chip_hours_of_flop(run.run) for run in self.runs) if math.isfinite(value)]
    return sum(values) / len(values) if values else math.nan


def _last_rate(curve: Curve) -> float:
  _, right, trials = max(zip(curve.flops, curve.right, curve.trials, strict=True))
  return right / trials


def curve_of(evaluations: Sequence[Evaluation], measure: str) -> Curve:
  """What `fit` takes. Right responses of one episode are not independent: their trials are as many independent ones as
  would have the variance of the rate over episodes."""
  points = []
  for evaluation in evaluations:
    rate, trials = getattr(evaluation, measure), float(evaluation.episodes)
    if measure == PER_STEP:
      trials = _effective_trials(evaluation)
    if math.isfinite(rate) and trials:
      points.append((evaluation.flops, rate * trials, trials))
  return Curve(*map(tuple, zip(*points, strict=True))) if points else Curve((), (), ())


def _effective_trials(evaluation: Evaluation) -> float:
  responses = float(evaluation.responses_N.sum())
  if not responses:
    return 0.0
  rate = evaluation.right_N.sum() / responses
  variance = float(((evaluation.right_N - rate * evaluation.responses_N) ** 2).sum()) / responses**2
  return min(responses, rate * (1 - rate) / variance) if variance > 0 else float(evaluation.responses_N.size)


def budget(run: Run) -> float:
  """The FLOPs at which the run ends, by its config; what it has spent if it is complete. 0 if unknown."""
  last = max(run.evaluations, key=lambda evaluation: evaluation.step, default=None)
  if last is None or run.finished:
    return last.flops if last else 0.0
  ends = [number(run.config.get("flops"))]
  if last.step:
    ends.append(last.flops * number(run.config.get("steps")) / last.step)
  return min((end for end in ends if end > 0), default=last.flops)


def chip_hours_of_flop(run: Run) -> float:
  """Chip-hours of the run's steps, evaluation and compilation left out, by its FLOPs; NaN where it has not measured."""
  flops, hours = run.last("compute/total_flops"), run.last("compute/chip_hours")
  return hours / flops if flops > 0 and hours > 0 else math.nan


def of_run(run: Run, variant: str, temperature: float, measure: str, base: int = 0) -> RunForecast:
  curve = curve_of(run.curve(variant, temperature), measure)
  return RunForecast(base, run, curve, fit(curve, stream(run, variant, temperature)))


def stream(run: Run, variant: str, temperature: float) -> int:
  """The seed of a run's draws, by its name."""
  return zlib.crc32(f"{run.name} {variant} {temperature:g}".encode())


def of_study(study: Study) -> tuple[MethodForecast, ...]:
  """Every method on the variant trained on and the shifted one, at the lowest temperature, by what heads the report."""
  temperature, forecasts = min(study.temperatures, default=0.0), []
  for variant in dict.fromkeys((study.id, study.ood)):
    for method in study.methods:
      runs = [of_run(run, variant, temperature, study.measure, base) for (base, name, _), run in study.runs.items()
              if name == method and run.curve(variant, temperature)]
      fitted = tuple(run for run in runs if run.fitted)
      if runs:
        forecasts.append(MethodForecast(method, variant, temperature, fitted, len(runs) - len(fitted)))
  return tuple(forecasts)


def of_single(run: Run) -> tuple[MethodForecast, ...]:
  """The same of one run on every variant but probes and averages, by success."""
  temperature = min((evaluation.temperature for evaluation in run.evaluations), default=0.0)
  variants = dict.fromkeys(e.variant for e in run.evaluations
                           if e.verifies and not e.probe and not e.variant.startswith(EMA))
  forecasts = [(variant, of_run(run, variant, temperature, "success")) for variant in variants]
  return tuple(MethodForecast(run.name, variant, temperature, (forecast,) if forecast.fitted else (),
                              0 if forecast.fitted else 1) for variant, forecast in forecasts)
