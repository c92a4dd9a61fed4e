"""The numbers of a study with their intervals: changes, gaps between methods, early stopping and matched success.

Every quantity is computed inside each resample of bases, seeds and episodes (bootstrap.py), so an interpolation or a
difference carries the noise of everything that enters it. Which evaluation counts as "early stopping" is chosen once,
on the data as they are. In texts and names here SFT stands for the study's reference method.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from sftrl_jax.report.records import RunKey, Study
from sftrl_jax.report.registered_claim import RegisteredClaim
from sftrl_jax.report.stats import bootstrap, flops_axis, matched_claim
from sftrl_jax.report.stats.curves import Curves, estimate_of, rate_of, resampled_curves


@dataclasses.dataclass(frozen=True)
class Effect:
  """One estimate and what it is of.

  `quantity`: start, end, change, gap (method minus `comparison` at equal FLOPs), matched (the same at matched success
  in distribution), early_best (SFT at its best shifted evaluation, minus its start), early_unseen (SFT where held-out
  success peaks, minus start), memory (change on the episodes seen in training minus change on those held out).
  `measure`: of Study.measures. `attempts`: right within so many attempts, which only success depends on.
  """

  quantity: str
  method: str
  variant: str
  temperature: float
  attempts: int
  estimate: bootstrap.Estimate
  measure: str = "success"
  comparison: str = ""


@dataclasses.dataclass(frozen=True)
class MatchedRead:
  """Where one run of the reference was read: between two of its evaluations.

  `success`, `flops` and `updates` are pairs (before, after); `target` is the success in distribution of `run`'s end.
  """

  run: str
  method: str
  temperature: float
  target: float
  success: tuple[float, float]
  flops: tuple[float, float]
  updates: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Effects:
  """All effects of a study.

  `notes` list what was interpolated or left out. `reads` tell between which evaluations of SFT its matched points were
  read, by the measure that heads the report. `attempts` is the largest number of attempts. `matched_claims` are the
  estimates of the study's claims that are about one success in distribution.
  """

  rows: tuple[Effect, ...]
  notes: tuple[str, ...]
  reads: tuple[MatchedRead, ...]
  comparison: flops_axis.Comparison
  attempts: int
  measure: str = "success"
  matched_claims: Mapping[RegisteredClaim, bootstrap.Estimate | None] = dataclasses.field(default_factory=dict)

  def find(self, quantity: str, method: str, variant: str, temperature: float, attempts: int = 0, measure: str = "",
           comparison: str = "") -> bootstrap.Estimate | None:
    """The estimate, or None if the study does not hold it.

    attempts: 0 means all of them
    measure: "" means the one that heads the report
    comparison: of a gap, the method that is subtracted; "" means the reference
    """
    key = (quantity, method, variant, temperature, attempts or self.attempts, measure or self.measure, comparison)
    for row in self.rows:
      if (row.quantity, row.method, row.variant, row.temperature, row.attempts, row.measure, row.comparison) == key:
        return row.estimate
    return None

  def bracket(self, method: str, temperature: float) -> float:
    """How far apart in success, on average, the two evaluations of SFT are between which matched points were read."""
    widths = [read.success[1] - read.success[0] for read in self.reads
              if (read.method, read.temperature) == (method, temperature)]
    return float(np.mean(widths)) if widths else math.nan


def measure(study: Study, resamples: int = bootstrap.RESAMPLES) -> Effects:
  """Every effect of the study's finished runs (none where nothing has been trained yet)."""
  comparison = flops_axis.comparison(study)
  curves, most = resampled_curves(study, list(comparison.at), resamples)
  rows, notes, reads = [], list(comparison.notes), []
  for temperature in study.temperatures:
    rows += _plain_effects(study, comparison, curves, temperature)
    for name in study.measures:
      rows += _early_effects(study, comparison, curves, temperature, name)
      rows += _memory_effects(study, comparison, curves, temperature, name)
      for method in study.compared_methods:
        effects, left_out, where = _matched_effect(study, comparison, curves, temperature, (method, name))
        rows += effects
        if name == study.measure:
          # With many methods the table of matched gaps counts the pairs instead.
          notes, reads = notes + ([] if study.has_many_methods else left_out), reads + where
  claims = {claim: matched_claim.estimate(study, comparison, curves, claim) for claim in study.claims if claim.matched}
  return Effects(tuple(rows), tuple(notes), tuple(reads), comparison, most, study.measure, claims)


def _plain_effects(study: Study, comparison: flops_axis.Comparison, curves: Curves, temperature: float) -> list[Effect]:
  """start, end and change of every method, and gaps over the (base, seed) pairs that both methods have."""
  rows = []
  for variant in study.variants:
    of_runs = {key: curve for (key, v, t), curve in curves.items() if (v, t) == (variant, temperature)}
    for name in sorted({name for curve in of_runs.values() for name in curve.rates},
                       key=lambda name: (study.measures.index(name[0]), name[1])):
      holding = {key: curve for key, curve in of_runs.items() if name in curve.rates}
      read = lambda key, at, holding=holding, name=name: flops_axis.read_at(
          holding[key].flops, holding[key].rates[name], at)
      start = {key: curve.rates[name][:, 0] for key, curve in holding.items()}
      end = {key: read(key, comparison.at[key]) for key in holding}
      episodes = next(iter(of_runs.values())).episodes
      for quantity, method, values in _plain_values(study, start, end):
        if values:
          rows.append(Effect(quantity, method, variant, temperature, name[1], estimate_of(values, episodes), name[0]))
      for method, other_method in _pairs(study):
        values = _gaps(comparison, read, method, holding, other_method)
        if values:
          rows.append(Effect("gap", method, variant, temperature, name[1], estimate_of(values, episodes), name[0],
                             "" if other_method == study.reference else other_method))
  return rows


def _plain_values(study: Study, start: dict[RunKey, np.ndarray], end: dict[RunKey, np.ndarray]) -> Iterator[tuple]:
  """(quantity, method, {run: values}) from the values of every run at its start and end."""
  for method in study.methods:
    keys = [key for key in start if key[1] == method]
    yield "start", method, {key: start[key] for key in keys}
    yield "end", method, {key: end[key] for key in keys}
    yield "change", method, {key: end[key] - start[key] for key in keys}


def _pairs(study: Study) -> list[tuple[str, str]]:
  """(method, the method to subtract): the reference, where both start from the same models, and what claims name."""
  pairs = [(method, study.reference) for method in study.compared_methods if study.share_bases(method, study.reference)]
  return list(dict.fromkeys([*pairs, *((claim.method, claim.comparison) for claim in study.claims
                                       if claim.comparison in study.methods and not claim.matched)]))


def _gaps(comparison: flops_axis.Comparison, read: Callable[[RunKey, float], np.ndarray], method: str,
          held: Collection[RunKey], other_method: str) -> dict[RunKey, np.ndarray]:
  """`method` minus `other_method` by run, both read at the FLOPs of the one that spent fewer."""
  values = {}
  for key in held:
    partner = (key[0], other_method, key[2])
    if key[1] == method and partner in held:
      at, partner_at = comparison.equal_flops(key, partner)
      values[key] = read(key, at) - read(partner, partner_at)
  return values


def _early_effects(study: Study, comparison: flops_axis.Comparison, curves: Curves, temperature: float,
                   measure: str) -> list[Effect]:
  """SFT stopped early, two ways: where the shifted rate was best (an oracle) and where the held-out one was best."""
  rows = []
  for quantity, selector in (("early_best", study.ood), ("early_unseen", study.held_out)):
    changes: dict[str, dict[RunKey, np.ndarray]] = {study.id: {}, study.ood: {}}
    for key in comparison.at:
      selecting = rate_of(curves, key, selector, temperature, measure)
      if key[1] != study.reference or selecting is None or selecting.shape[1] < 2:
        continue
      best = 1 + int(np.argmax(selecting[0][1:]))
      for variant, values in changes.items():
        rate = rate_of(curves, key, variant, temperature, measure)
        if rate is not None and rate.shape[1] == selecting.shape[1]:
          values[key] = rate[:, best] - rate[:, 0]
    for variant, values in changes.items():
      if values:
        curve = curves[next(iter(values)), variant, temperature]
        rows.append(Effect(quantity, study.reference, variant, temperature, curve.attempts,
                           estimate_of(values, curve.episodes), measure))
  return rows


def _memory_effects(study: Study, comparison: flops_axis.Comparison, curves: Curves, temperature: float,
                    measure: str) -> list[Effect]:
  """How much more each method gains on the episodes seen in training than on those held out."""
  rows = []
  for method in study.methods:
    values, first = {}, None
    for key in comparison.at:
      pair = [(curves.get((key, variant, temperature)), rate_of(curves, key, variant, temperature, measure))
              for variant in (study.id, study.held_out)]
      if key[1] == method and all(rate is not None for _, rate in pair):
        seen, unseen = (flops_axis.read_at(curve.flops, rate, comparison.at[key]) - rate[:, 0] for curve, rate in pair)
        values[key], first = seen - unseen, first or pair[0][0]
    if values:
      rows.append(Effect("memory", method, study.id, temperature, first.attempts, estimate_of(values, first.episodes),
                         measure))
  return rows


def _matched_effect(study: Study, comparison: flops_axis.Comparison, curves: Curves, temperature: float,
                    of: tuple[str, str]) -> tuple[list[Effect], list[str], list[MatchedRead]]:
  """Shifted rate of a method minus SFT's where SFT first had the same rate in distribution; of: (method, measure).

  Returns ([the effect], a note for each pair left out, where SFT was read).
  """
  method, measure = of
  values, notes, reads, curve = {}, [], [], None
  if not study.share_bases(method, study.reference):
    return [], [], []
  for key in comparison.at:
    partner = (key[0], study.reference, key[2])
    if key[1] != method or partner not in comparison.at:
      continue
    quads = [rate_of(curves, k, v, temperature, measure) for k in (key, partner) for v in (study.id, study.ood)]
    if any(rate is None for rate in quads) or quads[2].shape[1] != quads[3].shape[1]:
      continue
    method_id, method_ood, sft_id, sft_ood = quads
    curve = curves[key, study.ood, temperature]
    target = flops_axis.read_at(curves[key, study.id, temperature].flops, method_id, comparison.at[key])
    values[key] = flops_axis.read_at(curve.flops, method_ood, comparison.at[key]) - flops_axis.first_crossing(
        sft_id, sft_ood, target)
    between = flops_axis.bracket(sft_id[0], target[0])
    if between:
      points = [study.runs[partner].curve(study.id, temperature)[index] for index in between]
      reads.append(MatchedRead(
          study.runs[key].name, method, temperature, float(target[0]), tuple(float(sft_id[0, i]) for i in between),
          tuple(e.flops for e in points), tuple(e.updates for e in points)))
    else:
      why = "starts at or above" if sft_id[0, 0] >= target[0] else "never reaches"
      notes.append(f"Matched comparison, T={temperature:g}: {study.runs[partner].name} {why} the {target[0]:.1%} of "
                   f"{study.runs[key].name} in distribution; this pair is left out.")
  if not values:
    return [], notes, reads
  estimate = estimate_of(values, curve.episodes)
  effect = Effect("matched", method, study.ood, temperature, curve.attempts, estimate, measure)
  return [effect] if estimate.bases else [], notes, reads
