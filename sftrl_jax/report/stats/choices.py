"""Which method serves which purpose, from measured values alone: the best one, and which are not distinguished from it.

Two methods are compared on the bases that both have, by the t interval of their difference over these (bootstrap.py).
"""

import dataclasses
import math
from collections.abc import Mapping

from sftrl_jax.report.records import Run, RunKey, Study
from sftrl_jax.report.stats.bootstrap import MIN_BASES, t_interval
from sftrl_jax.report.stats.reach import reached


@dataclasses.dataclass(frozen=True)
class Choice:
  """The method with the best mean over bases, and what is not distinguished from it.

  value: that mean; bases: how many it is over
  equals: methods whose difference to it has an interval with zero in it, best first, with their means: an interval is
    wide where bases differ, and a method far below may be among them
  unclear: methods that share fewer than MIN_BASES bases with it: of these nothing can be said
  """

  method: str
  value: float
  bases: int
  equals: Mapping[str, float]
  unclear: tuple[str, ...]


def choose(values: Mapping[str, Mapping[int, float]], sign: int = 1) -> Choice | None:
  """The method with the largest mean of sign * value; None without a method that has a value.

  values: {method: {base: value}}; the best one is of those with the most bases, so that a method is not the best by
    the bases that it lacks
  """
  values = {method: of for method, of in values.items() if of}
  most = max((len(of) for of in values.values()), default=0)
  if not most:
    return None
  mean = lambda method: sum(values[method].values()) / len(values[method])
  ranked = sorted(values, key=lambda method: -sign * mean(method))
  best = next(method for method in ranked if len(values[method]) == most)
  equals, unclear = {}, []
  for method in ranked:
    shared = [base for base in values[best] if base in values[method]]
    if method == best:
      continue
    if len(shared) < MIN_BASES:
      unclear.append(method)
      continue
    low, high = t_interval([values[method][base] - values[best][base] for base in shared])
    if low <= 0 <= high:
      equals[method] = mean(method)
  return Choice(best, mean(best), most, equals, tuple(unclear))


def ends(study: Study, variant: str, temperature: float, change: bool = False) -> dict[str, dict[int, float]]:
  """{method: {base: the measure of the report at the end, mean over seeds}}, of finished runs.

  change: minus that at the run's own start
  """
  values: dict[str, dict[int, list[float]]] = {}
  for (base, method, _), run in _finished(study).items():
    curve = run.curve(variant, temperature)
    rates = [getattr(e, study.measure) for e in curve]
    if len(rates) > 1 and all(map(math.isfinite, (rates[0], rates[-1]))):
      values.setdefault(method, {}).setdefault(base, []).append(rates[-1] - (rates[0] if change else 0.0))
  return _means(values)


def kept(study: Study, temperature: float) -> dict[str, dict[int, float]]:
  """{method: {base: mean change over the probes}}; {} for a study without probes."""
  changes = [ends(study, probe, temperature, change=True) for probe in study.probes]
  methods = dict.fromkeys(method for of_probe in changes for method in of_probe)
  return {method: {base: sum(of[method][base] for of in changes) / len(changes)
                   for base in changes[0].get(method, {}) if all(base in of.get(method, {}) for of in changes)}
          for method in methods}


def costs(study: Study, temperature: float) -> tuple[float, dict[str, dict[int, float]]]:
  """(level, {method: {base: FLOPs to it}}) of the highest level that two methods come to on every base that they have.

  (NaN, {}) where there is none
  """
  finished = _finished(study)
  of_finished = lambda runs: {key: flops for key, flops in runs.items() if key in finished}
  methods = {method: {level: of_finished(runs) for level, runs in of.items()}
             for method, of in reached(study, temperature).items()}
  levels = sorted({level for of in methods.values() for level in of}, reverse=True)
  for level in levels:
    whole = {method: of[level] for method, of in methods.items()
             if of[level] and all(map(math.isfinite, of[level].values()))}
    if len(whole) > 1:
      return level, _means({method: _by_base(of) for method, of in whole.items()})
  return math.nan, {}


def _finished(study: Study) -> dict[RunKey, Run]:
  return {key: run for key, run in study.runs.items() if run.finished}


def _by_base(of_runs: Mapping[RunKey, float]) -> dict[int, list[float]]:
  by_base: dict[int, list[float]] = {}
  for (base, _, _), value in of_runs.items():
    by_base.setdefault(base, []).append(value)
  return by_base


def _means(values: Mapping[str, Mapping[int, list[float]]]) -> dict[str, dict[int, float]]:
  return {method: {base: sum(of_seeds) / len(of_seeds) for base, of_seeds in of.items()}
          for method, of in values.items()}
