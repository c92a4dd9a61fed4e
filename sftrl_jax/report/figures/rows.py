"""The table behind every figure of a study: a list of flat dicts, saved as CSV and drawn by study_figures.py."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from sftrl_jax.report.labels import VerdictGroup, merge_labels
from sftrl_jax.report.records import Evaluation, Run, Study
from sftrl_jax.report.stats.effects import Effects
from sftrl_jax.report.stats.flops_axis import TOLERANCE, Comparison, comparison, first_crossing, mean_curve, read_at

Row = dict[str, Any]


def curve_rows(study: Study, value: str = "", x: str = "flops") -> list[Row]:
  """`value` against FLOPs or updates: a row a point, per base (seeds averaged) and for the mean over bases.

  value: an attribute of Evaluation: success, per_step or kl; "" means the measure that heads the report
  x: flops or updates

  The mean (base "mean") is over the runs that are compared (flops_axis.comparison), so that one which has only begun
  does not cut it short; the others still have their own thin lines.
  """
  rows, compared, value = [], comparison(study).at, value or study.measure
  averaged = {(base, method) for base, method, _ in compared}
  for variant in study.variants:
    for temperature in study.temperatures:
      for method in study.methods:
        by_base = {}
        for key, run in study.runs.items():
          if key[1] == method and (key in compared or (key[0], method) not in averaged):
            pairs = [(getattr(e, x), getattr(e, value)) for e in run.curve(variant, temperature)]
            points = [pair for pair in pairs if all(map(math.isfinite, pair))]
            if len(points) > 1:
              by_base.setdefault(key[0], []).append(tuple(zip(*points, strict=True)))
        lines = {f"base-{base}": mean_curve(curves) for base, curves in by_base.items()}
        whole = [lines[f"base-{base}"] for base in by_base if (base, method) in averaged]
        lines |= {"mean": mean_curve(whole)} if whole else {}
        for base, (xs, values) in lines.items():
          rows += [{"variant": variant, "temperature": temperature, "method": method, "base": base, x: float(at),
                    value: float(y)} for at, y in zip(xs, values, strict=True)]
  return rows


def frontier_rows(study: Study, shifted: str = "", inside: str = "") -> list[Row]:
  """The shifted rate against the rate in distribution: a row an evaluation, per base and for the mean.

  shifted, inside: the two variants, study.ood and study.id if left out
  """
  table, rows, variants = curve_rows(study), [], (inside or study.id, shifted or study.ood)
  line_key = lambda row: (row["temperature"], row["method"], row["base"])
  for key in dict.fromkeys(line_key(row) for row in table if row["variant"] == variants[0]):
    sides = []
    for variant in variants:
      points = [row for row in table if line_key(row) == key and row["variant"] == variant]
      sides.append((np.array([row["flops"] for row in points]), np.array([row[study.measure] for row in points])))
    (inside_flops, within), (outside_flops, outside) = sides
    if len(outside_flops):
      for flops, x, y in zip(inside_flops, within, np.interp(inside_flops, outside_flops, outside), strict=True):
        rows.append({**dict(zip(("temperature", "method", "base"), key, strict=True)), "flops": float(flops),
                     "in_distribution": float(x), "shifted": float(y)})
  return rows


def _base_means(study: Study, compared: Comparison,
                measure: Callable[[Run, bool, float], np.ndarray | None]) -> dict[str, np.ndarray]:
  """Mean over bases of the mean over seeds of `measure`, by start (step 0 of the runs that begin from it) and method.

  `measure(run, last, at)` gives an array, of the last evaluation up to `at` FLOPs or the first; None leaves a run out.
  """
  means = {}
  for group in (*study.start_groups, *study.methods):
    by_base, begin = {}, study.start_groups.get(group, ())
    for key, at in compared.at.items():
      if key[1] in (begin or (group,)):
        value = measure(study.runs[key], not begin, at)
        if value is not None:
          by_base.setdefault(key[0], []).append(value)
    if by_base:
      means[group] = np.mean([np.mean(values, axis=0) for values in by_base.values()], axis=0)
  return means


def attempt_rows(study: Study, compared: Comparison) -> list[Row]:
  """Success within 1..U attempts: rows of variant, temperature, group (start or a method), attempt, success."""
  rows = []
  for variant in study.variants:
    for temperature in study.temperatures:
      measure = functools.partial(_success_by_attempt, variant, temperature)
      for group, values in _base_means(study, compared, measure).items():
        rows += [{"variant": variant, "temperature": temperature, "group": group, "attempt": attempt,
                  "success": float(value)} for attempt, value in enumerate(values, start=1)]
  return rows


def _success_by_attempt(variant: str, temperature: float, run: Run, last: bool, at: float) -> np.ndarray | None:
  """[U] at the start or, with `last`, at `at` FLOPs; None if an evaluation has no outcomes."""
  curve = run.curve(variant, temperature)
  if not curve or not all(e.outcomes.size for e in curve):
    return None
  table_UK = np.array([[e.within(tries).mean() for e in curve] for tries in range(1, curve[0].attempts + 1)])
  return read_at([e.flops for e in curve], table_UK, at) if last else table_UK[:, 0]


def verdict_groups(runs: Iterable[Run]) -> tuple[VerdictGroup, ...]:
  """The segments of a bar of verdicts, in the words of the runs' environment."""
  runs = list(runs)
  codes = [code for run in runs for evaluation in run.evaluations for code in evaluation.verdicts]
  return merge_labels(run.labels for run in runs).verdict_groups(codes)


def verdict_shares(evaluation: Evaluation, groups: Sequence[VerdictGroup]) -> np.ndarray | None:
  """Shares of Evaluation.verdicts by verdict group, whose last holds the remainder; None if none was written."""
  total = sum(evaluation.verdicts.values())
  if not total:
    return None
  shares = [sum(evaluation.verdicts.get(code, 0) for code in group.codes) / total for group in groups[:-1]]
  return np.array([*shares, max(0.0, 1 - sum(shares))])


def verdict_rows(study: Study, compared: Comparison, groups: Sequence[VerdictGroup]) -> list[Row]:
  """Verdicts at the lowest temperature: rows of variant, temperature, group, verdict, share."""
  rows, temperature = [], min(study.temperatures, default=0.0)
  for variant in study.variants:
    measure = functools.partial(_verdicts_at, variant, temperature, groups)
    for name, shares in _base_means(study, compared, measure).items():
      rows += [{"variant": variant, "temperature": temperature, "group": name, "verdict": group.label,
                "share": float(share)} for group, share in zip(groups, shares, strict=True)]
  return rows


def _verdicts_at(variant: str, temperature: float, groups: Sequence[VerdictGroup], run: Run, last: bool,
                 at: float) -> np.ndarray | None:
  """Shares of an evaluation by verdict group: the first or, with `last`, the last up to `at` FLOPs."""
  curve = [e for e in run.curve(variant, temperature) if e.flops <= at * (1 + TOLERANCE)]
  return verdict_shares(curve[-1 if last else 0], groups) if curve else None


def matched_rows(study: Study, effects: Effects) -> list[Row]:
  """The shifted rate at the matched rate in distribution: a row a base, and the mean where there is an estimate."""
  rows, at = [], effects.comparison.at
  for method in study.compared_methods:
    for temperature in study.temperatures if study.share_bases(method, study.reference) else ():
      gap = effects.find("matched", method, study.ood, temperature)
      pairs = {}
      for base, _, seed in [key for key in at if key[1] == method]:
        if (base, study.reference, seed) in at:
          run, partner = study.runs[base, method, seed], study.runs[base, study.reference, seed]
          pair = _matched_pair(study, run, partner, temperature, at[base, method, seed])
          if pair:
            pairs.setdefault(base, []).append(pair)
      means = {f"base-{base}": np.mean(values, axis=0) for base, values in pairs.items()}
      if means and gap is not None:
        means["mean"] = np.mean(list(means.values()), axis=0)
      for base, (inside, shifted, reference) in means.items():
        rows.append({"temperature": temperature, "method": method, "base": base, "in_distribution": float(inside),
                     "shifted_method": float(shifted), "shifted_sft": float(reference),
                     "gap": float(shifted - reference)})
  return rows


def _matched_pair(study: Study, run: Run, partner: Run, temperature: float, at: float) -> tuple[float, ...]:
  """(rate in distribution, shifted rate of `run`, of `partner` where it first had the former); () if never."""
  sides = []
  for side in (run, partner):
    curves = [side.curve(variant, temperature) for variant in (study.id, study.ood)]
    if not all(curves) or len(curves[0]) != len(curves[1]):
      return ()
    sides.append([(np.array([e.flops for e in curve]), np.array([[getattr(e, study.measure) for e in curve]]))
                  for curve in curves])
  (run_id, run_ood), (partner_id, partner_ood) = sides
  target = read_at(*run_id, at)
  crossing = first_crossing(partner_id[1], partner_ood[1], target)[0]
  return (target[0], read_at(*run_ood, at)[0], crossing) if np.isfinite(crossing) else ()


def effect_rows(effects: Effects) -> list[Row]:
  """Every estimate as a row, the CSV beside the tables."""
  rows = []
  for row in effects.rows:
    e = row.estimate
    rows.append({
        "quantity": row.quantity, "method": row.method, "variant": row.variant, "temperature": row.temperature,
        "measure": row.measure, "comparison": row.comparison, "attempts": row.attempts, "value": e.value, "low": e.low,
        "high": e.high, "t_low": e.t_low, "t_high": e.t_high, "unit": e.unit, "bases": e.bases, "runs": e.runs,
        "episodes": e.episodes, "resamples_kept": e.kept,
        "per_base": " ".join(f"{value:.4f}" for value in e.per_base)})
  return rows
