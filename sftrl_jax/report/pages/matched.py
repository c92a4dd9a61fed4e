"""Shifted success at the same success in distribution: the frontier, the matched comparison and early stopping."""

import math
from collections.abc import Sequence

from sftrl_jax.report.figures import study_figures
from sftrl_jax.report.figures.rows import frontier_rows, matched_rows
from sftrl_jax.report.labels import count, flops_text, points_range, temperature_label
from sftrl_jax.report.pages import forgetting
from sftrl_jax.report.pages.blocks import Block, Heading, Picture, Table, Text
from sftrl_jax.report.pages.study_page import Chapter, cell, dagger
from sftrl_jax.report.pages.tables.reach_table import reach_blocks
from sftrl_jax.report.records import MEASURE_LABELS, Study
from sftrl_jax.report.stats.effects import Effects


def trade(chapter: Chapter) -> list[Block]:
  """The frontier, the comparison at matched success in distribution, and early stopping."""
  study, effects, out = chapter.study, chapter.effects, chapter.out
  rate = MEASURE_LABELS[study.measure]
  inside, shifted = (f"{rate}, {study.labels.variant(variant)}" for variant in (study.id, study.ood))
  blocks, rows = [Heading("Shifted success at the same success in distribution")], frontier_rows(study)
  if rows:
    figure = study_figures.frontier(rows, study.methods, chapter.colours, inside, shifted)
    blocks.append(Picture(study_figures.save(figure, rows, out / "frontier.png"), (
        f"Every evaluation as a point: {rate} under the shift against {rate} in distribution. Paths begin at the grey "
        "start.")))
  pairs = matched_rows(study, effects)
  if pairs:
    figure = study_figures.matched(pairs, study.methods, chapter.colours, study.reference, shifted)
    blocks.append(Picture(study_figures.save(figure, pairs, out / "matched.png"), (
        f"{study.reference_label} read where its curve first reaches the other method's final {rate} in distribution "
        "(linear between evaluations), against that method's end. Numbers at the right: the difference in points.")))
  return [*blocks, *matched_blocks(study, effects), *_early_table(study, effects), *reach_blocks(study),
          *forgetting.study_blocks(study, out)]


def matched_blocks(study: Study, effects: Effects) -> list[Block]:
  """Gaps at matched success in distribution, and between which measured points the reference was read."""
  rows = []
  for method in study.compared_methods:
    for temperature in study.temperatures:
      estimate = effects.find("matched", method, study.ood, temperature)
      if not estimate and study.has_many_methods and effects.find("end", method, study.id, temperature):
        why = "no pair of runs" if study.share_bases(method, study.reference) else "other bases"
        rows.append((f"{study.methods[method]} − {study.reference_label}", temperature_label(temperature), "–", "–",
                     why, "–", "–", "–"))
      if estimate:
        rows.append((f"{study.methods[method]} − {study.reference_label}", temperature_label(temperature),
                     cell(estimate), points_range(estimate.t_low, estimate.t_high),
                     f"{estimate.runs} on {count(estimate.bases, 'base')}", f"{estimate.kept:.0%}",
                     f"{100 * effects.bracket(method, temperature):.0f}", _between(effects, method, temperature)))
  if not any(read.method in study.methods for read in effects.reads):
    return [Text(f"No matched comparison: no pair of runs in which the curve of {study.reference_label} passes the "
                 "other method's final success.")]
  header = (f"gap on {study.labels.variant(study.ood)}", "decoding", "points (95%)", "95% t over bases",
            "pairs", "resamples with a crossing", "bracket, points of ID", f"{study.reference_label} was read")
  return [Table(header, tuple(rows), (
      f"Bracket: how far apart in {MEASURE_LABELS[study.measure]} in distribution the two evaluations are between "
      f"which {study.reference_label} was read, on average. Between them its curve is taken for a straight line: a "
      f"wide bracket is a weak comparison. A pair of runs is left out where {study.reference_label} starts at or above "
      f"the other method's end in distribution, or never reaches it.{dagger(effects, rows)}"))]


def _between(effects: Effects, method: str, temperature: float) -> str:
  """Between which measured points the reference was read, where those are the same for every pair; else their range."""
  reads = [read for read in effects.reads if (read.method, read.temperature) == (method, temperature)]
  ends = [_span([end(read) for read in reads]) for end in (
      lambda read: (read.success[0], read.flops[0], read.updates[0]),
      lambda read: (read.success[1], read.flops[1], read.updates[1]))]
  return f"between {ends[0]} and {ends[1]}" if reads else "–"


def _span(evaluations: Sequence[tuple[float, float, float]]) -> str:
  """`62–71% (4e10 FLOPs, 50–60 updates)` of evaluations (success, flops, updates)."""
  success, flops, updates = zip(*evaluations, strict=True)
  spread = lambda values, form: "–".join(dict.fromkeys(map(form, (min(values), max(values)))))
  of_updates = f", {spread(updates, '{:,.0f}'.format)} updates" if all(map(math.isfinite, updates)) else ""
  return f"{spread([100 * rate for rate in success], '{:.0f}'.format)}% ({spread(flops, flops_text)} FLOPs{of_updates})"


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
