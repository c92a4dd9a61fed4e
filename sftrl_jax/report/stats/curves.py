"""Every run's evaluations as curves over FLOPs, with the resamples of bases, seeds and episodes (bootstrap.py)."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from sftrl_jax.report.records import PER_STEP, Evaluation, RunKey, Study
from sftrl_jax.report.stats import bootstrap


@dataclasses.dataclass(frozen=True)
class ResampledCurve:
  """A run on one variant and temperature: flops [K] and rates [R+1, K] by (measure, attempts)."""

  flops: np.ndarray
  rates: dict[tuple[str, int], np.ndarray]
  episodes: int
  attempts: int

  def rate(self, measure: str) -> np.ndarray | None:
    """[R+1, K], within all attempts; None if this run's lines do not hold the measure."""
    return self.rates.get((measure, self.attempts))


Curves = Mapping[tuple[RunKey, str, float], ResampledCurve]


def resampled_curves(study: Study, keys: Iterable[RunKey], resamples: int) -> tuple[Curves, int]:
  """(curves by (run, variant, temperature), the largest number of attempts).

  One draw of episodes serves every curve, so all of them must have played the same episodes of a variant; ValueError
  otherwise.
  """
  curves, most = {}, 1
  for variant in study.variants:
    slots, vectors, played = [], [], {}
    for key in keys:
      for temperature in study.temperatures:
        evaluations = study.runs[key].curve(variant, temperature)
        for evaluation in evaluations:
          if not evaluation.outcomes.size:
            raise ValueError(f"{study.runs[key].directory}/evals.jsonl: step {evaluation.step}, {variant} has no "
                             "outcomes, one digit an episode, without which runs cannot be paired. Evaluate its "
                             "checkpoints again.")
          played[evaluation.seed, evaluation.episodes, evaluation.attempts] = study.runs[key].directory
        for name, of_curve in _vectors(evaluations, study.measures):
          slots.append((key, temperature, name, evaluations))
          vectors += of_curve
    if len(played) > 1:
      sets = "; ".join(f"{run}: seed {s}, {n} episodes, {a} attempts" for (s, n, a), run in played.items())
      raise ValueError(f"Runs of a study pair by episode, but {variant} was evaluated differently ({sets}). Give every "
                       "run the same evals section.")
    if not vectors:
      continue
    means, start = bootstrap.episode_means(np.stack(vectors), variant, resamples), 0
    for key, temperature, (measure, attempts), evaluations in slots:
      flops = np.array([e.flops for e in evaluations])
      curve = curves.setdefault((key, variant, temperature), ResampledCurve(
          flops, {}, len(vectors[0]), evaluations[0].attempts))
      values, start = means[:, start : start + len(flops)], start + len(flops)
      if measure != "success":
        values, start = bootstrap.ratios(values, means[:, start : start + len(flops)]), start + len(flops)
      curve.rates[measure, attempts] = values
      most = max(most, attempts)
  return curves, most


def _vectors(evaluations: Sequence[Evaluation], measures: Sequence[str]
             ) -> Iterator[tuple[tuple[str, int], list[np.ndarray]]]:
  """((measure, attempts), vectors over episodes) of a curve: an evaluation each, of a ratio all parts, then wholes.

  measures: of the study; those that are neither success nor right responses are parts of verdicts
  """
  if not evaluations:
    return
  most = evaluations[0].attempts
  for attempts in sorted({1, most}):
    yield ("success", attempts), [e.within(attempts) for e in evaluations]
  if PER_STEP in measures and all(e.responses_N.size for e in evaluations):
    yield (PER_STEP, most), [*(e.right_N for e in evaluations), *(e.responses_N for e in evaluations)]
  for part in measures:
    if all(part in e.parts for e in evaluations):
      yield (part, most), [e.parts[part][side] for side in (0, 1) for e in evaluations]


def estimate_of(values: Mapping[RunKey, np.ndarray], episodes: int) -> bootstrap.Estimate:
  """An estimate from a statistic [R+1] of each run."""
  return bootstrap.estimate(np.stack(list(values.values()), axis=1), [base for base, _, _ in values], episodes)


def rate_of(curves: Curves, key: RunKey, variant: str, temperature: float, measure: str) -> np.ndarray | None:
  """[R+1, K] of a run, None if it has none."""
  curve = curves.get((key, variant, temperature))
  return None if curve is None else curve.rate(measure)
