"""The table behind every figure of a study: a list of flat dicts, saved as CSV and drawn by figures.py."""

import math

import numpy as np

from sftrl_jax.report.labels import verdicts
from sftrl_jax.report.stats import flops_axis


def curves(study, value="success"):
  """`value` (success or kl) against FLOPs: a row a point, per base (seeds averaged) and for the mean over bases (base
  "mean").

  The mean is over the runs that are compared (compute.comparison), so that one which has only begun does not cut it
  short; the others still have their own thin lines.
  """
  rows, compared = [], flops_axis.comparison(study).at
  averaged = {(base, method) for base, method, _ in compared}
  for variant in study.variants:
    for temperature in study.temperatures:
      for method in study.methods:
        by_base = {}
        for key, run in study.runs.items():
          points = points_of(run.curve(variant, temperature), value)
          if key[1] == method and len(points) > 1 and (key in compared or (key[0], method) not in averaged):
            by_base.setdefault(key[0], []).append(tuple(zip(*points, strict=True)))
        lines = {f"base-{base}": flops_axis.mean_curve(runs) for base, runs in by_base.items()}
        whole = [lines[f"base-{base}"] for base in by_base if (base, method) in averaged]
        lines |= {"mean": flops_axis.mean_curve(whole)} if whole else {}
        for base, (x, y) in lines.items():
          rows += [{"variant": variant, "temperature": temperature, "method": method, "base": base, "flops": float(a),
                    value: float(b)} for a, b in zip(x, y, strict=True)]
  return rows


def points_of(curve, value):
  """(FLOPs, value) of the evaluations that have one."""
  return [(e.flops, getattr(e, value)) for e in curve if math.isfinite(getattr(e, value))]


def frontier(study):
  """Shifted success against success in distribution: a row an evaluation, per base and for the mean."""
  table, rows = curves(study), []
  order = [key_of(row) for row in table if row["variant"] == study.id]
  for key in dict.fromkeys(order):
    sides = []
    for variant in (study.id, study.ood):
      chosen = [row for row in table if key_of(row) == key and row["variant"] == variant]
      sides.append((np.array([row["flops"] for row in chosen]), np.array([row["success"] for row in chosen])))
    (x, inside), (there, outside) = sides
    if len(there):
      for flops, a, b in zip(x, inside, np.interp(x, there, outside), strict=True):
        rows.append(dict(zip(("temperature", "method", "base"), key, strict=True)) | {
          "flops": float(flops), "in_distribution": float(a), "shifted": float(b)})
  return rows


def key_of(row):
  return row["temperature"], row["method"], row["base"]


def base_means(study, chosen, measure):
  """Mean over bases of the mean over seeds of what `measure` reads, by method and for the start (every run's step 0).

  `measure(run, last, at)` gives an array, of the last evaluation up to `at` FLOPs or the first; None leaves a run out.
  """
  found = {}
  for group in ("start", *study.methods):
    by_base = {}
    for key in chosen.at:
      if group in ("start", key[1]):
        value = measure(study.runs[key], group != "start", chosen.at[key])
        if value is not None:
          by_base.setdefault(key[0], []).append(value)
    if by_base:
      found[group] = np.mean([np.mean(values, axis=0) for values in by_base.values()], axis=0)
  return found


def attempts(study, chosen):
  """Success within 1..U attempts: rows of group (start or a method), variant, temperature, attempt, success."""
  rows = []
  for variant in study.variants:
    for temperature in study.temperatures:
      def measure(run, last, at, variant=variant, temperature=temperature):
        curve = run.curve(variant, temperature)
        if not curve or not all(e.outcomes.size for e in curve):
          return None
        table = np.array([[e.within(u).mean() for e in curve] for u in range(1, curve[0].attempts + 1)])
        return flops_axis.read_at([e.flops for e in curve], table, at) if last else table[:, 0]
      for group, values in base_means(study, chosen, measure).items():
        rows += [
          {"variant": variant, "temperature": temperature, "group": group, "attempt": u + 1, "success": float(value)}
          for u, value in enumerate(values)
        ]
  return rows


def stack(runs):
  """The verdicts that runs counted, as they are stacked (style.verdicts)."""
  return verdicts(code for run in runs for evaluation in run.evaluations for code in evaluation.codes)


def code_shares(evaluation, stacked):
  """Shares of first attempts by verdict in the order of a stack, whose last is any other; None if none were written."""
  total = sum(evaluation.codes.values())
  if not total:
    return None
  shares = [sum(evaluation.codes.get(code, 0) for code in codes) / total for _, _, codes in stacked[:-1]]
  return np.array(shares + [max(0.0, 1 - sum(shares))])


def codes(study, chosen, stacked):
  """Verdicts of first attempts, greedy (the lowest temperature): rows of group, variant, verdict, share."""
  rows, temperature = [], min(study.temperatures, default=0.0)
  for variant in study.variants:
    def measure(run, last, at, variant=variant):
      curve = [e for e in run.curve(variant, temperature) if e.flops <= at * (1 + flops_axis.TOLERANCE)]
      return code_shares(curve[-1 if last else 0], stacked) if curve else None
    for group, shares in base_means(study, chosen, measure).items():
      rows += [{"variant": variant, "temperature": temperature, "group": group, "verdict": name, "share": float(share)}
               for (name, _, _), share in zip(stacked, shares, strict=True)]
  return rows


def matched(study, effects):
  """Shifted success at matched success in distribution by base, from the estimates: rows of temperature, method, base,
  sft, value.
  """
  rows = []
  for method in study.others:
    for temperature in study.temperatures:
      gap = effects.find("matched", method, study.ood, temperature)
      pairs = {}
      for base, _, seed in [key for key in effects.comparison.at if key[1] == method]:
        run, other = study.runs[base, method, seed], study.runs.get((base, study.reference, seed))
        if other is not None and (base, study.reference, seed) in effects.comparison.at:
          pair = matched_pair(study, run, other, temperature, effects.comparison.at[base, method, seed])
          if pair:
            pairs.setdefault(base, []).append(pair)
      means = {f"base-{base}": np.mean(values, axis=0) for base, values in pairs.items()}
      if means and gap is not None:
        means["mean"] = np.mean(list(means.values()), axis=0)
      for base, (inside, mine, theirs) in means.items():
        rows.append({"temperature": temperature, "method": method, "base": base, "in_distribution": float(inside),
                     "shifted_method": float(mine), "shifted_sft": float(theirs), "gap": float(mine - theirs)})
  return rows


def matched_pair(study, run, other, temperature, at):
  """(success in distribution, shifted success of `run`, of `other` where it first had the former); () if it never
  had.
  """
  sides = []
  for each in (run, other):
    pair = [each.curve(variant, temperature) for variant in (study.id, study.ood)]
    if not all(pair) or len(pair[0]) != len(pair[1]):
      return ()
    sides.append([(np.array([e.flops for e in c]), np.array([[e.success for e in c]])) for c in pair])
  (mine_id, mine_ood), (sft_id, sft_ood) = sides
  target = flops_axis.read_at(*mine_id, at)
  found = flops_axis.first_crossing(sft_id[1], sft_ood[1], target)[0]
  return (target[0], flops_axis.read_at(*mine_ood, at)[0], found) if np.isfinite(found) else ()


def effects_table(effects, study):
  """Every estimate as a row, the CSV beside the tables."""
  rows = []
  for row in effects.rows:
    e = row.estimate
    rows.append(
      {
        "quantity": row.quantity,
        "method": row.method,
        "variant": row.variant,
        "temperature": row.temperature,
        "attempts": row.attempts,
        "value": e.value,
        "low": e.low,
        "high": e.high,
        "t_low": e.t_low,
        "t_high": e.t_high,
        "unit": e.unit,
        "bases": e.bases,
        "runs": e.runs,
        "episodes": e.hands,
        "resamples_kept": e.kept,
        "per_base": " ".join(f"{value:.4f}" for value in e.per_base),
      }
    )
  return rows
