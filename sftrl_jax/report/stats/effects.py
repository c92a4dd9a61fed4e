"""The numbers of a study with their intervals: changes, gaps between methods, early stopping and matched success.

Every quantity is computed inside each resample of bases, seeds and episodes (bootstrap.py), so an interpolation or a
difference carries the noise of everything that enters it. Which evaluation counts as "early stopping" is chosen once,
on the data as they are. In texts and names here SFT stands for the study's reference method.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from sftrl_jax.report.records import RunKey, Study
from sftrl_jax.report.stats import bootstrap, flops_axis


@dataclasses.dataclass(frozen=True)
class Effect:
  """One estimate and what it is of.

  `quantity`: start, end, change, gap (method minus SFT at equal FLOPs), matched (the same at matched success in
  distribution), early_best (SFT at its best shifted evaluation, minus its start), early_unseen (SFT where held-out
  success peaks, minus start), memory (change on the episodes seen in training minus change on those held out).
  `attempts`: right within so many attempts.
  """

  quantity: str
  method: str
  variant: str
  temperature: float
  attempts: int
  estimate: bootstrap.Estimate


@dataclasses.dataclass(frozen=True)
class Effects:
  """All effects of a study.

  `notes` list what was interpolated or left out. `brackets`, by (method, temperature), is how far apart in success the
  two evaluations of SFT are between which a matched point was read. `attempts` is the largest number of attempts.
  """

  rows: tuple[Effect, ...]
  notes: tuple[str, ...]
  brackets: dict[tuple[str, float], float]
  comparison: flops_axis.Comparison
  attempts: int

  def find(self, quantity: str, method: str, variant: str, temperature: float,
           attempts: int = 0) -> bootstrap.Estimate | None:
    """The estimate, or None if the study does not hold it; attempts 0 means all of them."""
    key = (quantity, method, variant, temperature, attempts or self.attempts)
    for row in self.rows:
      if (row.quantity, row.method, row.variant, row.temperature, row.attempts) == key:
        return row.estimate
    return None


@dataclasses.dataclass(frozen=True)
class ResampledCurve:
  """A run's success on one variant and temperature: flops [K], means [R+1, K] by number of attempts."""

  flops: np.ndarray
  means: dict[int, np.ndarray]
  episodes: int

  @property
  def attempts(self) -> int:
    return max(self.means)

  @property
  def success(self) -> np.ndarray:
    """[R+1, K], within all attempts."""
    return self.means[self.attempts]


Curves = Mapping[tuple[RunKey, str, float], ResampledCurve]


def _resampled_curves(study: Study, keys: list[RunKey], resamples: int) -> tuple[Curves, int]:
  """{(run key, variant, temperature): curve} of the runs compared, and the largest number of attempts.

  Runs pair by episode, so all of them must have played the same episodes of a variant; ValueError otherwise.
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
        for attempts in sorted({1, evaluations[0].attempts}) if evaluations else ():
          slots.append((key, temperature, attempts, np.array([e.flops for e in evaluations])))
          vectors += [e.within(attempts) for e in evaluations]
    if len(played) > 1:
      sets = "; ".join(f"{run}: seed {s}, {n} episodes, {a} attempts" for (s, n, a), run in played.items())
      raise ValueError(f"Runs of a study pair by episode, but {variant} was evaluated differently ({sets}). Give every "
                       "run the same evals section.")
    if not vectors:
      continue
    means, start = bootstrap.episode_means(np.stack(vectors), variant, resamples), 0
    for key, temperature, attempts, flops in slots:
      curve = curves.setdefault((key, variant, temperature), ResampledCurve(flops, {}, len(vectors[0])))
      curve.means[attempts] = means[:, start : start + len(flops)]
      start, most = start + len(flops), max(most, attempts)
  return curves, most


def measure(study: Study, resamples: int = bootstrap.RESAMPLES) -> Effects:
  """Every effect of the study's finished runs (none where nothing has been trained yet)."""
  comparison = flops_axis.comparison(study)
  curves, most = _resampled_curves(study, list(comparison.at), resamples)
  rows, notes, brackets = [], list(comparison.notes), {}
  for temperature in study.temperatures:
    rows += _plain_effects(study, comparison, curves, temperature)
    rows += _early_effects(study, comparison, curves, temperature)
    rows += _memory_effects(study, comparison, curves, temperature)
    for method in () if study.has_many_methods else study.compared_methods:
      effects, left_out, width = _matched_effect(study, comparison, curves, temperature, method)
      rows, notes = rows + effects, notes + left_out
      brackets[method, temperature] = width
  return Effects(tuple(rows), tuple(notes), brackets, comparison, most)


def _estimate(values: Mapping[RunKey, np.ndarray], episodes: int) -> bootstrap.Estimate:
  """An estimate from a statistic [R+1] of each run."""
  return bootstrap.estimate(np.stack(list(values.values()), axis=1), [base for base, _, _ in values], episodes)


def _plain_effects(study: Study, comparison: flops_axis.Comparison, curves: Curves, temperature: float) -> list[Effect]:
  """start, end and change of every method, and the gap to SFT over the (base, seed) pairs that both have."""
  rows = []
  for variant in study.variants:
    of_runs = {key: curve for (key, v, t), curve in curves.items() if (v, t) == (variant, temperature)}
    for attempts in sorted({a for curve in of_runs.values() for a in curve.means}):
      start, end = {}, {}
      for key, curve in of_runs.items():
        if attempts in curve.means:
          start[key] = curve.means[attempts][:, 0]
          end[key] = flops_axis.read_at(curve.flops, curve.means[attempts], comparison.at[key])
      episodes = next(iter(of_runs.values())).episodes
      for quantity, method, values in _plain_values(study, start, end):
        if values:
          rows.append(Effect(quantity, method, variant, temperature, attempts, _estimate(values, episodes)))
  return rows


def _plain_values(study: Study, start: dict[RunKey, np.ndarray], end: dict[RunKey, np.ndarray]) -> Iterable[tuple]:
  """(quantity, method, {run: values}) from the values of every run at its start and end."""
  for method in study.methods:
    keys = [key for key in start if key[1] == method]
    yield "start", method, {key: start[key] for key in keys}
    yield "end", method, {key: end[key] for key in keys}
    yield "change", method, {key: end[key] - start[key] for key in keys}
    if method != study.reference:
      partners = {key: (key[0], study.reference, key[2]) for key in keys}
      yield "gap", method, {key: end[key] - end[partner] for key, partner in partners.items() if partner in end}


def _early_effects(study: Study, comparison: flops_axis.Comparison, curves: Curves, temperature: float) -> list[Effect]:
  """SFT stopped early, two ways: where shifted success was best (an oracle) and where held-out success was best."""
  rows = []
  for quantity, selector in (("early_best", study.ood), ("early_unseen", study.held_out)):
    changes: dict[str, dict[RunKey, np.ndarray]] = {study.id: {}, study.ood: {}}
    for key in comparison.at:
      selecting = curves.get((key, selector, temperature))
      if key[1] != study.reference or selecting is None or len(selecting.flops) < 2:
        continue
      best = 1 + int(np.argmax(selecting.success[0][1:]))
      for variant, values in changes.items():
        curve = curves.get((key, variant, temperature))
        if curve is not None and len(curve.flops) == len(selecting.flops):
          values[key] = curve.success[:, best] - curve.success[:, 0]
    for variant, values in changes.items():
      if values:
        curve = curves[next(iter(values)), variant, temperature]
        rows.append(Effect(quantity, study.reference, variant, temperature, curve.attempts,
                           _estimate(values, curve.episodes)))
  return rows


def _memory_effects(study: Study, comparison: flops_axis.Comparison, curves: Curves,
                    temperature: float) -> list[Effect]:
  """How much more each method gains on the episodes seen in training than on those held out."""
  rows = []
  for method in study.methods:
    values, first = {}, None
    for key in comparison.at:
      pair = [curves.get((key, variant, temperature)) for variant in (study.id, study.held_out)]
      if key[1] == method and None not in pair:
        seen, unseen = (flops_axis.read_at(curve.flops, curve.success, comparison.at[key]) - curve.success[:, 0]
                        for curve in pair)
        values[key], first = seen - unseen, first or pair[0]
    if values:
      rows.append(Effect("memory", method, study.id, temperature, first.attempts, _estimate(values, first.episodes)))
  return rows


def _matched_effect(study: Study, comparison: flops_axis.Comparison, curves: Curves, temperature: float,
                    method: str) -> tuple[list[Effect], list[str], float]:
  """Shifted success of `method` minus SFT's where SFT first had the same success in distribution.

  Returns ([the effect], a note for each pair left out, the mean bracket).
  """
  values, notes, widths, method_ood = {}, [], [], None
  for key in comparison.at:
    partner = (key[0], study.reference, key[2])
    if key[1] != method or partner not in comparison.at:
      continue
    quads = [curves.get((k, v, temperature)) for k in (key, partner) for v in (study.id, study.ood)]
    if any(curve is None for curve in quads) or len(quads[2].flops) != len(quads[3].flops):
      continue
    method_id, method_ood, sft_id, sft_ood = quads
    target = flops_axis.read_at(method_id.flops, method_id.success, comparison.at[key])
    end = flops_axis.read_at(method_ood.flops, method_ood.success, comparison.at[key])
    values[key] = end - flops_axis.first_crossing(sft_id.success, sft_ood.success, target)
    before_after = flops_axis.bracket(sft_id.success[0], target[0])
    if before_after:
      before, after = before_after
      widths.append(float(sft_id.success[0, after] - sft_id.success[0, before]))
    else:
      why = "starts at or above" if sft_id.success[0, 0] >= target[0] else "never reaches"
      notes.append(f"Matched comparison, T={temperature:g}: {study.runs[partner].name} {why} the {target[0]:.1%} of "
                   f"{study.runs[key].name} in distribution; this pair is left out.")
  if not values:
    return [], notes, float("nan")
  estimate = _estimate(values, method_ood.episodes)
  effect = Effect("matched", method, study.ood, temperature, method_ood.attempts, estimate)
  return [effect] if estimate.bases else [], notes, float(np.mean(widths)) if widths else float("nan")
