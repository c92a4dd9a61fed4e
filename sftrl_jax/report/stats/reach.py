"""How many FLOPs a run needs to first come to a success in distribution."""

import math

import numpy as np

from sftrl_jax.report.records import Run, RunKey, Study
from sftrl_jax.report.stats.flops_axis import first_crossing

LEVELS = (0.25, 0.5, 0.75, 0.9, 0.95)


def flops_to(flops_K: np.ndarray, rate_K: np.ndarray, level: float) -> float:
  """FLOPs at which a curve first is at `level`, linear between evaluations: 0 where it starts there, inf for never.

  flops_K, rate_K: of its evaluations, by FLOPs
  """
  if rate_K[0] >= level:
    return 0.0
  crossing = first_crossing(rate_K[None], flops_K[None], np.full(1, level))[0]
  return float(crossing) if math.isfinite(crossing) else math.inf


def reached(study: Study, temperature: float) -> dict[str, dict[float, dict[RunKey, float]]]:
  """{method: {level: {run: FLOPs, inf for never}}} of the measure that heads the report, on the variant of training.

  Runs of one evaluation are left out, and so are levels that every run starts at, or that none comes to.
  """
  curves = {key: curve for key, run in study.runs.items() if (curve := _curve(study, run, temperature)) is not None}
  by_level = {level: {key: flops_to(*curve, level) for key, curve in curves.items()} for level in LEVELS}
  shown = [level for level, runs in by_level.items() if any(0 < flops < math.inf for flops in runs.values())]
  return {method: {level: {key: flops for key, flops in by_level[level].items() if key[1] == method} for level in shown}
          for method in study.methods if any(key[1] == method for key in curves)}


def _curve(study: Study, run: Run, temperature: float) -> tuple[np.ndarray, np.ndarray] | None:
  """(FLOPs, rates) of a run's evaluations."""
  evaluations = run.curve(study.id, temperature)
  if len(evaluations) < 2:
    return None
  flops_K = np.array([e.flops for e in evaluations], float)
  rate_K = np.array([getattr(e, study.measure) for e in evaluations], float)
  return (flops_K, rate_K) if np.isfinite(rate_K).all() else None
