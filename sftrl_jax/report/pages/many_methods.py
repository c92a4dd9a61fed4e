"""The results of a study of many methods: a row for each instead of a column, one colour and grey instead of many."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sftrl_jax.report.figures import study_figures, style
from sftrl_jax.report.figures.rows import Row, curve_rows, effect_rows
from sftrl_jax.report.labels import percent, plain, plot_text, temperature_label
from sftrl_jax.report.pages import forgetting
from sftrl_jax.report.pages.blocks import Block, Heading, Picture, Table, Text
from sftrl_jax.report.pages.matched import matched_blocks
from sftrl_jax.report.pages.study_page import (
  Chapter,
  cell,
  dagger,
  interval_words,
  measure_words,
  sample_sizes,
  start_rate,
  verdicts,
)
from sftrl_jax.report.pages.tables.key_differences import key_differences
from sftrl_jax.report.pages.tables.methods_table import methods_table
from sftrl_jax.report.pages.tables.reach_table import reach_blocks
from sftrl_jax.report.records import MEASURE_LABELS, Study
from sftrl_jax.report.stats.effects import Effects

if TYPE_CHECKING:
  from matplotlib.figure import Figure

PANELS_A_ROW = 4
MOST_VARIANTS = 3   # in one table
FAINT = "#CDD2D8"


def ranked(study: Study, effects: Effects) -> list[str]:
  """The reference, then the methods as recorded claims name them, where claims or notes were recorded before the runs.

  Else by their end in distribution at the lowest temperature, best first; without an end, last.
  """
  if study.is_registered:
    return list(dict.fromkeys([study.reference, *(claim.method for claim in study.claims), *study.methods]))
  lowest, ends = min(study.temperatures, default=0.0), {}
  for method in study.methods:
    estimate = effects.find("end", method, study.id, lowest)
    ends[method] = estimate.value if estimate else -math.inf
  return sorted(study.methods, key=lambda method: -ends[method])


def results(chapter: Chapter) -> list[Block]:
  """What the methods are, a table a decoding and measure, gaps to the reference, and figures."""
  study, effects, out = chapter.study, chapter.effects, chapter.out
  order = ranked(study, effects)
  sorting = "in the order of the recorded claims" if study.is_registered else (
      f"by {MEASURE_LABELS[study.measure]} on {study.labels.variant(study.id)} "
      f"({temperature_label(min(study.temperatures, default=0.0))})")
  blocks = [Heading("Methods"), *methods_table(study, effects, order)]
  if not effects.rows:
    return blocks
  blocks += [Heading("Results at equal compute"), Text(
      f"{len(study.methods)} methods, {sorting}. {sample_sizes(study, effects, by_method=False)}")]
  outer = [variant for variant in dict.fromkeys((study.id, study.ood)) if variant in study.variants]
  middle = [variant for variant in study.variants if variant not in outer]
  for measure in study.measures:
    for temperature in study.temperatures:
      for variants in filter(None, (outer, middle) if len(study.variants) > MOST_VARIANTS else (study.variants,)):
        blocks.append(_ends_table(study, effects, order, variants, (temperature, measure)))
  study_figures.write_csv(effect_rows(effects), out / "effects.csv")
  rows = [row for row in effect_rows(effects) if row["attempts"] == effects.attempts
          and row["measure"] == effects.measure and row["quantity"] in ("start", "end")]
  figure = ends_figure(rows, study, order)
  lowest, *higher = map(temperature_label, study.temperatures)
  rate = measure_words(study, effects, study.measure)
  blocks.append(Picture(study_figures.save(figure, rows, out / "methods.png"), (
      f"{rate}, at the end: filled {lowest}{''.join(f', open {label}' for label in higher)}, with 95% bootstrap "
      f"intervals. Grey lines: the start ({lowest}{''.join(f'; dotted {label}' for label in higher)}); a grey tick in "
      f"a row: the start of a method that has other bases. Orange: {study.reference_label}.")))
  blocks += _curves(study, order, out)
  blocks += [_gaps_table(study, effects, order), Heading("Shifted success at the same success in distribution"),
             *matched_blocks(study, effects), *reach_blocks(study), *forgetting.study_blocks(study, out)]
  return [*blocks, *key_differences(study, effects, order), *verdicts(chapter, order)]


def _ends_table(study: Study, effects: Effects, order: Sequence[str], variants: Sequence[str],
                of: tuple[float, str]) -> Table:
  """A row a method: start, end and change on some variants; of: (temperature, measure)."""
  temperature, measure = of
  header, rows = [temperature_label(temperature)], []
  for variant in variants:
    header += [f"{study.labels.variant(variant)}, start", "end", "change (95%)"]
  for method in order:
    row = [study.methods[method]]
    for variant in variants:
      start, end, change = (effects.find(quantity, method, variant, temperature, measure=measure)
                            for quantity in ("start", "end", "change"))
      row += [percent(start.value) if start else "–", percent(end.value) if end else "–", cell(change)]
    rows.append(tuple(row))
  first = (temperature, measure) == (min(study.temperatures), study.measure)
  rest = (f"; changes in percentage points from the method's own start, with {interval_words(effects)}. Every "
          "estimate, both intervals and the value of each base: effects.csv." if first else "; changes as above.")
  return Table(tuple(header), tuple(rows), (
      f"{measure_words(study, effects, measure)}{rest}{dagger(effects, rows)}"))


def _gaps_table(study: Study, effects: Effects, order: Sequence[str]) -> Table:
  """A row a method: how far it ends from the reference, on the variant trained on and on the shifted one."""
  columns = [(variant, temperature) for variant in dict.fromkeys((study.id, study.ood)) if variant in study.variants
             for temperature in study.temperatures]
  rows = [(study.methods[method], *(cell(effects.find("gap", method, *column)) for column in columns))
          for method in order if method != study.reference and study.share_bases(method, study.reference)]
  header = (f"minus {study.reference_label}",
            *(f"{study.labels.variant(variant)}, {temperature_label(t)}" for variant, t in columns))
  return Table(header, tuple(rows), (
      f"{measure_words(study, effects, study.measure)}: each method's end minus that of {study.reference_label} from "
      "the same bases on the same episodes, at equal FLOPs (where a method has a budget of its own, at the smaller of "
      f"the two), in percentage points with {interval_words(effects)}.{dagger(effects, rows)}"))


def ends_figure(rows: Sequence[Row], study: Study, order: Sequence[str]) -> Figure:
  """A panel a variant, a row a method: success at the end with its interval, and lines at the start's."""
  panels = len(study.own_variants)
  figure, (axes,) = style.new_panels(panels, 0.25, 0.65 + 0.24 * len(order))
  temperatures = sorted({row["temperature"] for row in rows})
  top = study_figures.ceiling([row["high"] for row in rows])
  shared = next(iter(study.start_groups.values()))
  for axis, variant in zip(axes, study.own_variants, strict=True):
    axis.grid(axis="x", color=style.GRID, linewidth=0.8)
    style.rate_axis(axis, "x", top, intervals=5 if panels < 3 else 2)   # of narrow panels
    style.title(axis, study.labels.variant(variant), width=24)
    for level, temperature in enumerate(temperatures):
      panel_rows = [row for row in rows if (row["variant"], row["temperature"]) == (variant, temperature)]
      starts = [row["value"] for row in panel_rows if row["quantity"] == "start" and row["method"] in shared]
      if starts:
        axis.axvline(sum(starts) / len(starts), color=style.START, linewidth=1, linestyle=":" if level else "-")
      for row in panel_rows:
        y = order.index(row["method"]) + 0.26 * (level - (len(temperatures) - 1) / 2)
        if row["quantity"] == "start" and row["method"] not in shared:
          axis.plot(row["value"], y, "|", color=style.START, markersize=7, clip_on=False)
        if row["quantity"] == "end":
          colour = style.SFT if row["method"] == study.reference else style.RL
          axis.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.2, alpha=0.45)
          axis.plot(row["value"], y, "o", color=colour, markersize=4.5, zorder=3, clip_on=False,
                    markerfacecolor="white" if level else colour)
    axis.set_yticks(range(len(order)), [plot_text(study.methods[method], 28) for method in order], fontsize=8.5)
    axis.set_ylim(len(order) - 0.4, -0.6)
  figure.supxlabel(f"{MEASURE_LABELS[study.measure]} at the end", fontsize=8.5, color=style.INK)
  return figure


def _curves(study: Study, order: Sequence[str], out: pathlib.Path) -> list[Block]:
  """Small panels of the curves over FLOPs and over updates, a method each; [] where no run has two evaluations."""
  blocks: list[Block] = []
  for along, name in (("flops", "curves"), ("updates", "curves_updates")):
    rows = mean_curve_rows(study, along)
    if rows:
      figure = curve_panels(rows, study, [method for method in order if any(row["method"] == method for row in rows)])
      shifted = f", dashed {study.labels.variant(study.ood)}" if study.ood in study.variants else ""
      unit = "post-training FLOPs" if along == "flops" else "updates, of which equal FLOPs buy unequal numbers"
      blocks.append(Picture(study_figures.save(figure, rows, out / f"{name}.png"), (
          f"{MEASURE_LABELS[study.measure].capitalize()} against {unit}, {temperature_label(min(study.temperatures))}, "
          f"mean over bases: solid {study.labels.variant(study.id)}{shifted}; the other methods in grey. Orange: "
          f"{study.reference_label}.")))
  return blocks


def mean_curve_rows(study: Study, x: str = "flops") -> list[Row]:
  """Rows of the panels: the mean over bases at the lowest temperature, in distribution and shifted."""
  return [row for row in curve_rows(study, x=x) if row["base"] == "mean" and row["variant"] in (study.id, study.ood)
          and row["temperature"] == min(study.temperatures)]


def curve_panels(rows: Sequence[Row], study: Study, methods: Sequence[str]) -> Figure:
  """A panel a method: its curves in colour over those of the other methods in grey."""
  lines, measure = -(-len(methods) // PANELS_A_ROW), study_figures.measure_of(rows)
  figure, axes = style.new_figure(lines, PANELS_A_ROW, height=0.4 + 1.45 * lines, sharex=True, sharey=True)
  top = study_figures.ceiling([row[measure] for row in rows])
  curves = study_figures.lines_of(rows, "flops" if "flops" in rows[0] else "updates", measure, "method", "variant")
  for axis, panel_method in zip(axes.flat, methods):  # noqa: B905 (the last line of panels may not be full)
    style.rate_axis(axis, top=top)
    study_figures.style_x(axis, rows)
    style.title(axis, plain(study.methods[panel_method], 24))
    for (method, variant), (x, y) in curves.items():
      in_front = method == panel_method
      colour = (style.SFT if method == study.reference else style.RL) if in_front else FAINT
      axis.plot(x, y, color=colour, linestyle=style.line_of(variant, (study.id,)), linewidth=1.8 if in_front else 0.8,
                zorder=3 if in_front else 1)
  for axis in axes.flat[len(methods):]:
    axis.set_visible(False)
  study_figures.hide_inner_labels(figure)
  for axis in axes[-1]:
    short = axis.get_xlabel().replace("post-training compute ", "").replace(" of post-training", "")
    axis.set_xlabel(short.strip("()"))
  for axis in axes[:, 0]:
    axis.set_ylabel(MEASURE_LABELS[measure])
  return figure


def summary_rows(study: Study, effects: Effects) -> list[tuple[str, ...]]:
  """Header and a line a method for a console: success at the start and at the end on every variant and decoding."""
  columns = [(variant, temperature) for temperature in study.temperatures for variant in study.variants]
  rows = [("method", *(f"{variant} {temperature_label(t)}" for variant, t in columns)),
          ("(start)", *(percent(start_rate(study, effects, *column)) for column in columns))]
  for method in ranked(study, effects):
    ends = [effects.find("end", method, *column) for column in columns]
    rows.append((study.methods[method], *(percent(end.value) if end else "–" for end in ends)))
  return rows
