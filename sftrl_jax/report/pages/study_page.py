"""The report of a study, chapter by chapter, as blocks of page.py."""

import math

import numpy as np

from sftrl_jax.report import labels as report_labels
from sftrl_jax.report.figures import rows as figure_rows, study_figures
from sftrl_jax.report.pages import alarms_box
from sftrl_jax.report.pages.blocks import Heading, Notice, Picture, Table, Text
from sftrl_jax.report.stats import claims


def opening(study, effects, judged):
  """Claim, alarms, what is missing, and the verdicts."""
  blocks = [Text(study.claim)] if study.claim else []
  blocks += alarms_box.alarms([(run.name, run) for run in (*study.starts.values(), *study.runs.values())])
  bases = {key[0] for key in effects.comparison.at}
  if len(bases) == 1:
    blocks.append(Notice("One base model", (
      "Only one base was post-trained by every comparison below. Intervals are over episodes only and say nothing "
      "about other bases; no claim about the methods can rest on them.",)))
  unfinished = [run for run in study.runs.values() if not run.finished]
  items = [f"{name} has not been started." for name in study.missing]
  items += [
    f"{run.name} is not finished ({run.phase or 'no progress.json'}, {run.done:.0%} done)"
    + ("; left out of the tables" if run.name in effects.comparison.left_out else "")
    + "."
    for run in unfinished
  ]
  items += effects.notes
  if items:
    blocks.append(Notice("Not everything is there, or not everything could be compared directly", tuple(items)))
  if judged:
    rows = [(claim.text, report_labels.temperature_label(claim.temperature), report_labels.points(claim.estimate.value),
             report_labels.points_range(claim.estimate.low, claim.estimate.high),
             report_labels.points_range(claim.estimate.t_low, claim.estimate.t_high), str(claim.estimate.bases), claim.verdict)
            for claim in judged]
    caption = (
      "Percentage points. The bootstrap is over bases, seeds and episodes (over episodes alone where there is one "
      "base). A claim holds if both intervals lie on its side of zero and at least "
      f"{claims.MIN_BASES} bases stand behind it."
    )
    header = ("claim", "decoding", "estimate", "95% bootstrap", "95% t over bases", "bases", "verdict")
    blocks += [Heading("Claims"), Table(header, tuple(rows), caption)]
  elif not effects.rows:
    blocks.append(Text("No run has been evaluated after its start yet, so there is nothing to compare."))
  return blocks


def result_rows(study, effects):
  """Variant x decoding: start, then end and change of every method, then the gap, as (header, rows)."""
  header = ["variant", "decoding", "start"]
  for method in study.methods:
    header += [f"{study.methods[method]} end", f"{study.methods[method]} change"]
  header += [f"{study.methods[method]} − {study.reference_label}" for method in study.others]
  rows = []
  for variant in study.variants:
    for temperature in study.temperatures:
      starts = [effects.find("start", method, variant, temperature) for method in study.methods]
      known = [e.value for e in starts if e is not None]
      row = [report_labels.variant_label(variant), report_labels.temperature_label(temperature),
             report_labels.percent(float(np.mean(known)) if known else math.nan)]
      for method in study.methods:
        end, change = (effects.find(quantity, method, variant, temperature) for quantity in ("end", "change"))
        row += [report_labels.percent(end.value) if end else "–", cell(change)]
      row += [cell(effects.find("gap", method, variant, temperature)) for method in study.others]
      if known:
        rows.append(tuple(row))
  return tuple(header), tuple(rows)


def cell(estimate):
  """A change or gap with its interval; † marks one that is over the episodes of a single base."""
  if estimate is None or not estimate.bases:
    return "–"
  mark = " †" if estimate.bases == 1 else ""
  return f"{report_labels.points(estimate.value)} ({report_labels.points_range(estimate.low, estimate.high)}){mark}"


def dagger(effects):
  """The footnote of †, where some estimate has it."""
  one = any(row.estimate.bases == 1 for row in effects.rows)
  return " † one base: the interval is over its episodes only." if one else ""


def counted(study, effects, each=True):
  """How many bases, runs (of each method, or all together) and episodes stand behind the table, in words."""
  keys = list(effects.comparison.at)
  methods = ", ".join(f"{sum(key[1] == m for key in keys)} {label}" for m, label in study.methods.items())
  methods = methods if each else str(len(keys))
  played = " / ".join(map(str, sorted({row.estimate.hands for row in effects.rows}))) or "no"
  bases = report_labels.count(len({key[0] for key in keys}), "base")
  return f"{bases}, runs: {methods}, {played} episodes a variant and decoding."


def results(study, effects, colours, out):
  """The table of ends and changes, the figure of effects and the curves."""
  header, rows = result_rows(study, effects)
  several = len({key[0] for key in effects.comparison.at}) > 1
  unit = "bases, seeds and episodes" if several else "episodes of one base only"
  blocks = [Heading("Results at equal compute")]
  if rows:
    blocks.append(Table(header, rows, (
      f"Success within {report_labels.count(effects.attempts, 'attempt')}; changes and gaps in percentage points with a 95% "
      "bootstrap interval over "
      f"{unit}. {counted(study, effects)} Every estimate, its t interval and the value of each base: effects.csv."
      f"{dagger(effects)}")))
    study_figures.write_csv(figure_rows.effects_table(effects, study), out / "effects.csv")
  table = figure_rows.curves(study)
  if table:
    outer = [v for v in study.variants if v in (study.id, study.ood)] or list(study.variants)
    drawn = [row for row in table if row["variant"] in outer]
    figure = study_figures.curves(drawn, outer, study.methods, colours, (study.id,))
    blocks.append(Picture(study_figures.save(figure, drawn, out / "curves.png"), (
      "Success against post-training FLOPs. Thin lines: bases (their seeds averaged); thick: mean over bases; grey: "
      "the start. "
      "Solid in distribution, dashed shifted.")))
  if rows:
    blocks.append(effects_picture(study, effects, colours, out))
  return blocks


def effects_picture(study, effects, colours, out):
  labels = {}
  for method in (study.reference, *study.others):
    for variant in study.variants:
      labels["change", method, variant] = f"{study.methods[method]}: change on {report_labels.variant_label(variant)}"
  for method in study.others:
    name = f"{study.methods[method]} − {study.reference_label}"
    labels["gap", method, study.ood] = f"{name} on {report_labels.variant_label(study.ood)}, equal FLOPs"
    labels["matched", method, study.ood] = f"{name} on {report_labels.variant_label(study.ood)}, matched ID"
  rows = [row for row in figure_rows.effects_table(effects, study) if row["attempts"] == effects.attempts
          and (row["quantity"], row["method"], row["variant"]) in labels]
  figure = study_figures.effects(rows, study.methods, colours, labels)
  decodings = ", ".join(
    f"{'filled' if i == 0 else 'open'} {report_labels.temperature_label(t)}" for i, t in enumerate(study.temperatures)
  )
  return Picture(study_figures.save(figure, rows, out / "effects_drawn.png"), (
    f"Changes from the start and gaps between methods ({decodings}). Thick bars: 95% bootstrap; thin: 95% t interval "
    "over bases "
    "(cut at the edge if wider than the figure)."))


def trade(study, effects, colours, out):
  """The frontier and the comparison at matched success in distribution."""
  blocks, rows = [Heading("Shifted success at the same success in distribution")], figure_rows.frontier(study)
  if rows:
    figure = study_figures.frontier(
      rows, study.methods, colours, report_labels.variant_label(study.id), report_labels.variant_label(study.ood)
    )
    blocks.append(Picture(study_figures.save(figure, rows, out / "frontier.png"), (
      "Every evaluation as a point: shifted success against success in distribution. Paths begin at the grey start.")))
  pairs = figure_rows.matched(study, effects)
  lines = []
  for method in study.others:
    for temperature in study.temperatures:
      estimate = effects.find("matched", method, study.ood, temperature)
      if estimate:
        width = effects.brackets.get((method, temperature), math.nan)
        lines.append(
          (
            f"{study.methods[method]} − {study.reference_label}",
            report_labels.temperature_label(temperature),
            cell(estimate),
            report_labels.points_range(estimate.t_low, estimate.t_high),
            f"{estimate.runs} on {report_labels.count(estimate.bases, 'base')}",
            f"{estimate.kept:.0%}",
            f"{100 * width:.0f}",
          )
        )
  if pairs:
    figure = study_figures.matched(pairs, study.methods, colours, study.reference, report_labels.variant_label(study.ood))
    blocks.append(Picture(study_figures.save(figure, pairs, out / "matched.png"), (
      f"{study.reference_label} read where its curve first reaches the other method's final success in distribution "
      "(linear "
      "between evaluations), against that method's end. Numbers at the right: the difference in points.")))
  if lines:
    blocks.append(
      Table(
        (
          "gap on " + report_labels.variant_label(study.ood),
          "decoding",
          "points (95% bootstrap)",
          "95% t over bases",
          "pairs",
          "resamples with a crossing",
          "bracket, points of ID",
        ),
        tuple(lines),
        "Bracket: how far apart in success the two evaluations are between which "
        f"{study.reference_label} was read.",
      )
    )
  else:
    blocks.append(
      Text(f"No matched comparison: no pair of runs in which the curve of {study.reference_label} passes the other "
           "method's final success.")
    )
  blocks += early_table(study, effects)
  return blocks


def early_table(study, effects):
  rows = []
  names = {"change": "at equal FLOPs (the end)", "early_best": "where shifted success is best (oracle)",
           "early_unseen": "where held-out ID success is best"}
  for quantity, words in names.items():
    for temperature in study.temperatures:
      pair = [effects.find(quantity, study.reference, variant, temperature) for variant in (study.id, study.ood)]
      if any(pair):
        rows.append((words, report_labels.temperature_label(temperature), *map(cell, pair)))
  header = (f"{study.reference_label} stopped", "decoding", f"change on {report_labels.variant_label(study.id)}",
            f"change on {report_labels.variant_label(study.ood)}")
  caption = (
    "Stopping points are evaluations after the start, chosen per run on all episodes; intervals as above at that "
    "choice."
  )
  return [Heading("Early stopping", 3), Table(header, tuple(rows), caption)] if rows else []


def inside(study, effects, colours, out):
  """Attempts, verdicts, KL, seen against held-out."""
  blocks, table = [Heading("What changed inside")], figure_rows.attempts(study, effects.comparison)
  if table and effects.attempts > 1:
    figure = study_figures.attempts(table, study.variants, study.methods, colours, (study.id,))
    blocks.append(Picture(study_figures.save(figure, table, out / "attempts.png"),
                          "Success within so many attempts, by the start and at the end of each method; mean over "
                          "bases."))
    blocks.append(first_attempts(study, effects))
  blocks += verdicts(study, effects, study.methods, out)
  table = figure_rows.curves(study, "kl")
  if table:
    variants = [v for v in study.variants if any(row["variant"] == v for row in table)]
    figure = study_figures.divergence(table, variants, study.methods, colours, (study.id,))
    blocks.append(Picture(study_figures.save(figure, table, out / "kl.png"),
                          "KL from the start on the model's own responses at T=1, by variant; thin lines are bases."))
  table = [row for row in figure_rows.curves(study) if row["variant"] != study.ood]
  others = [v for v in study.variants if v not in (study.id, study.ood)]
  if others and table:
    figure = study_figures.curves(table, [study.id, *others], study.methods, colours, (study.id,))
    if study.held_out:
      blocks += [Heading("Seen against held-out, same distribution", 3), Text(
        "A method that stored what it was trained on gains more there than on what was held out of training. Where the "
        "shifted variant falls and this difference stays small, what was lost is a rule rather than what was gained "
        "being a list."), seen_table(study, effects)]
    blocks.append(Picture(study_figures.save(figure, table, out / "unseen.png"),
                          "Success on the variants that are not shifted, against FLOPs."))
  return blocks


def verdicts(study, effects, order, out):
  """Verdicts of first attempts by the start and the methods, in the order given; [] if none were counted."""
  stacked = figure_rows.stack(study.runs.values())
  table = figure_rows.codes(study, effects.comparison, stacked)
  if not table:
    return []
  places = {group: place for place, group in enumerate(("start", *order))}
  table.sort(key=lambda row: places[row["group"]])
  figure = study_figures.codes(table, study.variants, study.methods, stacked)
  cards = any(name == "wrong numbers" for name, _, _ in stacked)
  return [Picture(study_figures.save(figure, table, out / "codes.png"), (
    "Verdicts of first attempts, in percent, mean over bases."
    + (" Wrong numbers: the cards were not used as dealt, or were misread." if cards else "")))]


def seen_table(study, effects):
  rows = []
  for temperature in study.temperatures:
    cells = [cell(effects.find("memory", method, study.id, temperature)) for method in study.methods]
    rows.append((report_labels.temperature_label(temperature), *cells))
  return Table(("change on seen minus change on held-out", *study.methods.values()), tuple(rows),
               "Percentage points (95% bootstrap).")


def first_attempts(study, effects):
  rows = []
  for variant in study.variants:
    for temperature in study.temperatures:
      cells = [cell(effects.find("change", method, variant, temperature, 1)) for method in study.methods]
      rows.append((report_labels.variant_label(variant), report_labels.temperature_label(temperature), *cells))
  return Table(
    ("first attempt only", "decoding", *(f"{label} change" for label in study.methods.values())), tuple(rows)
  )
