"""The report of a study, chapter by chapter, as blocks."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Sequence

from sftrl_jax.report.figures import study_figures
from sftrl_jax.report.figures.rows import (
  attempt_rows,
  curve_rows,
  effect_rows,
  frontier_rows,
  matched_rows,
  verdict_groups,
  verdict_rows,
)
from sftrl_jax.report.labels import count, percent, points, points_range, temperature_label
from sftrl_jax.report.pages import alarms_box
from sftrl_jax.report.pages.blocks import Block, Heading, Notice, Picture, Table, Text
from sftrl_jax.report.records import Study
from sftrl_jax.report.stats.bootstrap import Estimate
from sftrl_jax.report.stats.claims import MIN_BASES, Claim
from sftrl_jax.report.stats.effects import Effects


@dataclasses.dataclass(frozen=True)
class Chapter:
  """What every chapter of a study's report needs: the numbers, {method: colour} and the folder of the report."""

  study: Study
  effects: Effects
  colours: dict[str, str]
  out: pathlib.Path

  def labelled(self, variants: Iterable[str]) -> dict[str, str]:
    """{variant: label}, as figures take it."""
    return {variant: self.study.labels.variant(variant) for variant in variants}


def opening(study: Study, effects: Effects, claims: Sequence[Claim]) -> list[Block]:
  """Claim, alarms, what is missing, and the verdicts."""
  blocks = [Text(study.claim)] if study.claim else []
  blocks += alarms_box.notices([(run.name, run) for run in (*study.starts.values(), *study.runs.values())])
  if effects.comparison.bases == 1:
    blocks.append(Notice("One base model", (
        "Only one base was post-trained by every comparison below. Intervals are over episodes only and say nothing "
        "about other bases; no claim about the methods can rest on them.",)))
  items = [f"{name} has not been started." for name in study.missing]
  for run in study.runs.values():
    if not run.finished:
      left_out = "; left out of the tables" if run.name in effects.comparison.left_out else ""
      items.append(f"{run.name} is not finished ({run.phase or 'no progress.json'}, {run.done:.0%} done){left_out}.")
  items += effects.notes
  if items:
    blocks.append(Notice("Not everything is there, or not everything could be compared directly", tuple(items)))
  if claims:
    rows = tuple((claim.text, temperature_label(claim.temperature), points(claim.estimate.value),
                  points_range(claim.estimate.low, claim.estimate.high),
                  points_range(claim.estimate.t_low, claim.estimate.t_high), str(claim.estimate.bases), claim.verdict)
                 for claim in claims)
    header = ("claim", "decoding", "estimate", "95% bootstrap", "95% t over bases", "bases", "verdict")
    blocks += [Heading("Claims"), Table(header, rows, (
        "Percentage points. The bootstrap is over bases, seeds and episodes (over episodes alone where there is one "
        "base). A claim holds if both intervals lie on its side of zero and at least "
        f"{MIN_BASES} bases stand behind it."))]
  elif not effects.rows:
    blocks.append(Text("No run has been evaluated after its start yet, so there is nothing to compare."))
  return blocks


def start_rate(study: Study, effects: Effects, variant: str, temperature: float) -> float:
  """Success before any training: the mean over the methods, which begin from the same models; NaN if unknown."""
  estimates = [effects.find("start", method, variant, temperature) for method in study.methods]
  known = [estimate.value for estimate in estimates if estimate is not None]
  return sum(known) / len(known) if known else math.nan


def result_rows(study: Study, effects: Effects) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
  """(header, a row a variant and decoding): start, then end and change of every method, then the gaps."""
  header = ["variant", "decoding", "start"]
  for method in study.methods:
    header += [f"{study.methods[method]} end", f"{study.methods[method]} change"]
  header += [f"{study.methods[method]} − {study.reference_label}" for method in study.compared_methods]
  rows = []
  for variant in study.variants:
    for temperature in study.temperatures:
      start = start_rate(study, effects, variant, temperature)
      row = [study.labels.variant(variant), temperature_label(temperature), percent(start)]
      for method in study.methods:
        end, change = (effects.find(quantity, method, variant, temperature) for quantity in ("end", "change"))
        row += [percent(end.value) if end else "–", cell(change)]
      row += [cell(effects.find("gap", method, variant, temperature)) for method in study.compared_methods]
      if not math.isnan(start):
        rows.append(tuple(row))
  return tuple(header), tuple(rows)


def cell(estimate: Estimate | None) -> str:
  """A change or gap with its interval; † marks one that is over the episodes of a single base."""
  if estimate is None or not estimate.bases:
    return "–"
  mark = " †" if estimate.bases == 1 else ""
  return f"{points(estimate.value)} ({points_range(*estimate.wider)}){mark}"


def dagger(effects: Effects) -> str:
  """The footnote of †, where some estimate has it."""
  marked = any(row.estimate.bases == 1 for row in effects.rows)
  return " † one base: the interval is over its episodes only." if marked else ""


def sample_sizes(study: Study, effects: Effects, by_method: bool = True) -> str:
  """How many bases, runs (of each method, or all together) and episodes stand behind the table, in words."""
  keys = list(effects.comparison.at)
  runs = ", ".join(f"{sum(key[1] == m for key in keys)} {label}" for m, label in study.methods.items())
  episodes = " / ".join(map(str, sorted({row.estimate.episodes for row in effects.rows}))) or "no"
  bases = count(effects.comparison.bases, "base")
  return f"{bases}, runs: {runs if by_method else len(keys)}, {episodes} episodes a variant and decoding."


def results(chapter: Chapter) -> list[Block]:
  """The table of ends and changes, the figure of effects and the curves."""
  study, effects, out = chapter.study, chapter.effects, chapter.out
  header, rows = result_rows(study, effects)
  unit = "bases, seeds and episodes" if effects.comparison.bases > 1 else "episodes of one base only"
  blocks: list[Block] = [Heading("Results at equal compute")]
  if rows:
    blocks.append(Table(header, rows, (
        f"Success within {count(effects.attempts, 'attempt')}; changes and gaps in percentage points with a 95% "
        f"interval: the wider of the bootstrap over {unit} and the t interval over bases. "
        f"{sample_sizes(study, effects)} Every estimate, both intervals and the value of each base: "
        f"effects.csv.{dagger(effects)}")))
    study_figures.write_csv(effect_rows(effects), out / "effects.csv")
  table = curve_rows(study)
  if table:
    outer = [v for v in study.variants if v in (study.id, study.ood)] or list(study.variants)
    drawn = [row for row in table if row["variant"] in outer]
    figure = study_figures.curves(drawn, chapter.labelled(outer), study.methods, chapter.colours, (study.id,))
    blocks.append(Picture(study_figures.save(figure, drawn, out / "curves.png"), (
        "Success against post-training FLOPs. Thin lines: bases (their seeds averaged); thick: mean over bases; grey: "
        "the start. Solid in distribution, dashed shifted.")))
  if rows:
    blocks.append(_effects_picture(chapter))
  return blocks


def _effects_picture(chapter: Chapter) -> Picture:
  study, effects = chapter.study, chapter.effects
  lines = {}
  for method in (study.reference, *study.compared_methods):
    for variant in study.variants:
      lines["change", method, variant] = f"{study.methods[method]}: change on {study.labels.variant(variant)}"
  for method in study.compared_methods:
    gap = f"{study.methods[method]} − {study.reference_label} on {study.labels.variant(study.ood)}"
    lines["gap", method, study.ood] = f"{gap}, equal FLOPs"
    lines["matched", method, study.ood] = f"{gap}, matched ID"
  rows = [row for row in effect_rows(effects) if row["attempts"] == effects.attempts
          and (row["quantity"], row["method"], row["variant"]) in lines]
  figure = study_figures.effects(rows, chapter.colours, lines)
  decodings = ", ".join(f"{'open' if index else 'filled'} {temperature_label(temperature)}"
                        for index, temperature in enumerate(study.temperatures))
  return Picture(study_figures.save(figure, rows, chapter.out / "effects_drawn.png"), (
      f"Changes from the start and gaps between methods ({decodings}). Thick bars: 95% bootstrap; thin: 95% t interval "
      "over bases (cut at the edge if wider than the figure)."))


def trade(chapter: Chapter) -> list[Block]:
  """The frontier, the comparison at matched success in distribution, and early stopping."""
  study, effects, out = chapter.study, chapter.effects, chapter.out
  inside, shifted = study.labels.variant(study.id), study.labels.variant(study.ood)
  blocks, rows = [Heading("Shifted success at the same success in distribution")], frontier_rows(study)
  if rows:
    figure = study_figures.frontier(rows, study.methods, chapter.colours, inside, shifted)
    blocks.append(Picture(study_figures.save(figure, rows, out / "frontier.png"), (
        "Every evaluation as a point: shifted success against success in distribution. Paths begin at the grey "
        "start.")))
  pairs = matched_rows(study, effects)
  if pairs:
    figure = study_figures.matched(pairs, study.methods, chapter.colours, study.reference, shifted)
    blocks.append(Picture(study_figures.save(figure, pairs, out / "matched.png"), (
        f"{study.reference_label} read where its curve first reaches the other method's final success in distribution "
        "(linear between evaluations), against that method's end. Numbers at the right: the difference in points.")))
  return [*blocks, _matched_table(study, effects), *_early_table(study, effects)]


def _matched_table(study: Study, effects: Effects) -> Block:
  rows = []
  for method in study.compared_methods:
    for temperature in study.temperatures:
      estimate = effects.find("matched", method, study.ood, temperature)
      if estimate:
        width = effects.brackets.get((method, temperature), math.nan)
        rows.append((f"{study.methods[method]} − {study.reference_label}", temperature_label(temperature),
                     cell(estimate), points_range(estimate.t_low, estimate.t_high),
                     f"{estimate.runs} on {count(estimate.bases, 'base')}", f"{estimate.kept:.0%}",
                     f"{100 * width:.0f}"))
  if not rows:
    return Text(f"No matched comparison: no pair of runs in which the curve of {study.reference_label} passes the "
                "other method's final success.")
  header = (f"gap on {study.labels.variant(study.ood)}", "decoding", "points (95%)", "95% t over bases",
            "pairs", "resamples with a crossing", "bracket, points of ID")
  return Table(header, tuple(rows), ("Bracket: how far apart in success the two evaluations are between which "
                                     f"{study.reference_label} was read."))


def _early_table(study: Study, effects: Effects) -> list[Block]:
  rows = []
  stops = {"change": "at equal FLOPs (the end)", "early_best": "where shifted success is best (oracle)",
           "early_unseen": "where held-out ID success is best"}
  for quantity, stop in stops.items():
    for temperature in study.temperatures:
      pair = [effects.find(quantity, study.reference, variant, temperature) for variant in (study.id, study.ood)]
      if any(pair):
        rows.append((stop, temperature_label(temperature), *map(cell, pair)))
  header = (f"{study.reference_label} stopped", "decoding", f"change on {study.labels.variant(study.id)}",
            f"change on {study.labels.variant(study.ood)}")
  caption = ("Stopping points are evaluations after the start, chosen per run on all episodes; intervals as above at "
             "that choice.")
  return [Heading("Early stopping", 3), Table(header, tuple(rows), caption)] if rows else []


def inside(chapter: Chapter) -> list[Block]:
  """Attempts, verdicts, KL, seen against held-out."""
  study, effects, out = chapter.study, chapter.effects, chapter.out
  blocks: list[Block] = [Heading("What changed inside")]
  rows = attempt_rows(study, effects.comparison)
  if rows and effects.attempts > 1:
    figure = study_figures.attempts(rows, chapter.labelled(study.variants), study.methods, chapter.colours, (study.id,))
    blocks.append(Picture(study_figures.save(figure, rows, out / "attempts.png"), (
        "Success within so many attempts, by the start and at the end of each method; mean over bases.")))
    blocks.append(_first_attempts(study, effects))
  blocks += verdicts(chapter, study.methods)
  rows = curve_rows(study, "kl")
  if rows:
    measured = chapter.labelled(v for v in study.variants if any(row["variant"] == v for row in rows))
    figure = study_figures.divergence(rows, measured, study.methods, chapter.colours, (study.id,))
    blocks.append(Picture(study_figures.save(figure, rows, out / "kl.png"), (
        "KL from the start on the model's own responses at T=1, by variant; thin lines are bases.")))
  rows = [row for row in curve_rows(study) if row["variant"] != study.ood]
  middle = [v for v in study.variants if v not in (study.id, study.ood)]
  if middle and rows:
    variants = chapter.labelled((study.id, *middle))
    figure = study_figures.curves(rows, variants, study.methods, chapter.colours, (study.id,))
    if study.held_out:
      blocks += [Heading("Seen against held-out, same distribution", 3), Text(
          "A method that stored what it was trained on gains more there than on what was held out of training. Where "
          "the shifted variant falls and this difference stays small, what was lost is a rule rather than what was "
          "gained being a list."), _seen_table(study, effects)]
    blocks.append(Picture(study_figures.save(figure, rows, out / "unseen.png"),
                          "Success on the variants that are not shifted, against FLOPs."))
  return blocks


def verdicts(chapter: Chapter, methods: Iterable[str]) -> list[Block]:
  """Verdicts of first attempts by the start and the methods, in the order passed; [] if none were counted."""
  study = chapter.study
  groups = verdict_groups(study.runs.values())
  rows = verdict_rows(study, chapter.effects.comparison, groups)
  if not rows:
    return []
  order = {group: index for index, group in enumerate(("start", *methods))}
  rows.sort(key=lambda row: order[row["group"]])
  figure = study_figures.verdicts(rows, chapter.labelled(study.variants), study.methods, groups)
  of_cards = any(group.label == "wrong numbers" for group in groups)
  return [Picture(study_figures.save(figure, rows, chapter.out / "codes.png"), (
      "Verdicts of first attempts, in percent, mean over bases."
      + (" Wrong numbers: the cards were not used as dealt, or were misread." if of_cards else "")))]


def _seen_table(study: Study, effects: Effects) -> Table:
  rows = []
  for temperature in study.temperatures:
    cells = [cell(effects.find("memory", method, study.id, temperature)) for method in study.methods]
    rows.append((temperature_label(temperature), *cells))
  return Table(("change on seen minus change on held-out", *study.methods.values()), tuple(rows),
               "Percentage points (95%, the wider of two intervals).")


def _first_attempts(study: Study, effects: Effects) -> Table:
  rows = []
  for variant in study.variants:
    for temperature in study.temperatures:
      cells = [cell(effects.find("change", method, variant, temperature, 1)) for method in study.methods]
      rows.append((study.labels.variant(variant), temperature_label(temperature), *cells))
  return Table(("first attempt only", "decoding", *(f"{label} change" for label in study.methods.values())),
               tuple(rows))
