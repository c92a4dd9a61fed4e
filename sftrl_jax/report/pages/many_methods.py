"""The results of a study of many methods: a row for each instead of a column, one colour and grey instead of many."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sftrl_jax.report.figures import study_figures, style
from sftrl_jax.report.figures.rows import Row, curve_rows, effect_rows
from sftrl_jax.report.labels import count, percent, plain, plot_text, temperature_label
from sftrl_jax.report.pages.blocks import Block, Heading, Picture, Table, Text
from sftrl_jax.report.pages.study_page import Chapter, cell, dagger, sample_sizes, start_rate, verdicts
from sftrl_jax.report.records import Study
from sftrl_jax.report.stats.effects import Effects

if TYPE_CHECKING:
  from matplotlib.figure import Figure

PANELS_A_ROW = 4
FAINT = "#CDD2D8"


def ranked(study: Study, effects: Effects) -> list[str]:
  """The methods by their end in distribution at the lowest temperature, best first; without an end, last."""
  lowest, ends = min(study.temperatures, default=0.0), {}
  for method in study.methods:
    estimate = effects.find("end", method, study.id, lowest)
    ends[method] = estimate.value if estimate else -math.inf
  return sorted(study.methods, key=lambda method: -ends[method])


def results(chapter: Chapter) -> list[Block]:
  """A table a decoding, gaps to the reference, and figures of ends, curves and verdicts."""
  study, effects, out = chapter.study, chapter.effects, chapter.out
  order = ranked(study, effects)
  blocks = [Heading("Results at equal compute"), Text(
      f"{len(study.methods)} methods, by success on {study.labels.variant(study.id)} "
      f"({temperature_label(min(study.temperatures))}). {sample_sizes(study, effects, by_method=False)}")]
  blocks += [_ends_table(study, effects, order, temperature) for temperature in study.temperatures]
  study_figures.write_csv(effect_rows(effects), out / "effects.csv")
  rows = [row for row in effect_rows(effects)
          if row["attempts"] == effects.attempts and row["quantity"] in ("start", "end")]
  figure = _ends_figure(rows, study, order)
  lowest, *higher = map(temperature_label, study.temperatures)
  blocks.append(Picture(study_figures.save(figure, rows, out / "methods.png"), (
      f"Success at the end: filled {lowest}{''.join(f', open {label}' for label in higher)}, with 95% bootstrap "
      f"intervals. Grey lines: the start ({lowest}{''.join(f'; dotted {label}' for label in higher)}). Orange: "
      f"{study.reference_label}.")))
  blocks += _curves(study, order, out)
  blocks.append(_gaps_table(study, effects, order))
  return blocks + verdicts(chapter, order)


def _ends_table(study: Study, effects: Effects, order: Sequence[str], temperature: float) -> Table:
  """A row a method: end and change of every variant at one temperature, and its KL from the start."""
  kl = {row["method"]: row["kl"] for row in curve_rows(study, "kl") if row["base"] == "mean"
        and (row["variant"], row["temperature"]) == (study.id, temperature)}
  header, start = [temperature_label(temperature)], ["start"]
  for variant in study.variants:
    header += [study.labels.variant(variant), "change (95%)"]
    start += [percent(start_rate(study, effects, variant, temperature)), ""]
  rows = [start]
  for method in order:
    row = [study.methods[method]]
    for variant in study.variants:
      end, change = (effects.find(quantity, method, variant, temperature) for quantity in ("end", "change"))
      row += [percent(end.value) if end else "–", cell(change)]
    rows.append(row)
  if kl:
    header.append(f"KL, {study.labels.variant(study.id)}")
    start.append("")
    for method, row in zip(order, rows[1:], strict=True):
      row.append(f"{kl[method]:.2f}" if method in kl else "–")
  kl_note = " KL: nats a response token from the start, on the model's own responses." if kl else ""
  return Table(tuple(header), tuple(map(tuple, rows)), (
      f"Success within {count(effects.attempts, 'attempt')}; changes in percentage points with a 95% interval, "
      "the wider of bootstrap and t. Every estimate, both intervals and the value of each base: effects.csv."
      f"{kl_note}{dagger(effects)}"))


def _gaps_table(study: Study, effects: Effects, order: Sequence[str]) -> Table:
  """A row a method: how far it ends from the reference, on the variant trained on and on the shifted one."""
  columns = [(variant, temperature) for variant in dict.fromkeys((study.id, study.ood)) if variant in study.variants
             for temperature in study.temperatures]
  rows = [(study.methods[method], *(cell(effects.find("gap", method, *column)) for column in columns))
          for method in order if method != study.reference]
  header = (f"minus {study.reference_label}",
            *(f"{study.labels.variant(variant)}, {temperature_label(t)}" for variant, t in columns))
  return Table(header, tuple(rows), (
      f"Each method's end minus that of {study.reference_label} from the same bases on the same episodes, in "
      f"percentage points with a 95% interval, the wider of bootstrap and t.{dagger(effects)}"))


def _ends_figure(rows: Sequence[Row], study: Study, order: Sequence[str]) -> Figure:
  """A panel a variant, a row a method: success at the end with its interval, and lines at the start's."""
  figure, axes = style.new_figure(1, len(study.variants), height=0.9 + 0.24 * len(order), sharey=True)
  temperatures = sorted({row["temperature"] for row in rows})
  top = study_figures.ceiling([row["high"] for row in rows])
  for axis, variant in zip(axes.flat, study.variants, strict=True):
    axis.grid(axis="x", color=style.GRID, linewidth=0.8)
    style.rate_axis(axis, "x", top)
    style.title(axis, study.labels.variant(variant))
    for level, temperature in enumerate(temperatures):
      panel_rows = [row for row in rows if (row["variant"], row["temperature"]) == (variant, temperature)]
      starts = [row["value"] for row in panel_rows if row["quantity"] == "start"]
      if starts:
        axis.axvline(sum(starts) / len(starts), color=style.START, linewidth=1, linestyle=":" if level else "-")
      for row in panel_rows:
        if row["quantity"] == "end":
          colour = style.SFT if row["method"] == study.reference else style.RL
          y = order.index(row["method"]) + 0.26 * (level - (len(temperatures) - 1) / 2)
          axis.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.2, alpha=0.45)
          axis.plot(row["value"], y, "o", color=colour, markersize=4.5, zorder=3, clip_on=False,
                    markerfacecolor="white" if level else colour)
    axis.set_yticks(range(len(order)), [plot_text(study.methods[method], 28) for method in order], fontsize=8.5)
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.set_xlabel("success at the end")
  return figure


def _curves(study: Study, order: Sequence[str], out: pathlib.Path) -> list[Block]:
  """Small panels of success against FLOPs, a method each; [] where no run has two evaluations."""
  rows = mean_curve_rows(study)
  if not rows:
    return []
  figure = curve_panels(rows, study, [method for method in order if any(row["method"] == method for row in rows)])
  shifted = f", dashed {study.labels.variant(study.ood)}" if study.ood in study.variants else ""
  return [Picture(study_figures.save(figure, rows, out / "curves.png"), (
      f"Success against post-training FLOPs, {temperature_label(min(study.temperatures))}, mean over bases: solid "
      f"{study.labels.variant(study.id)}{shifted}; the other methods in grey. Orange: {study.reference_label}."))]


def mean_curve_rows(study: Study) -> list[Row]:
  """Rows of the panels: the mean over bases at the lowest temperature, in distribution and shifted."""
  return [row for row in curve_rows(study) if row["base"] == "mean" and row["variant"] in (study.id, study.ood)
          and row["temperature"] == min(study.temperatures)]


def curve_panels(rows: Sequence[Row], study: Study, methods: Sequence[str]) -> Figure:
  """A panel a method: its curves in colour over those of the other methods in grey."""
  lines = -(-len(methods) // PANELS_A_ROW)
  figure, axes = style.new_figure(lines, PANELS_A_ROW, height=0.4 + 1.45 * lines, sharex=True, sharey=True)
  largest, top = max(row["flops"] for row in rows), study_figures.ceiling([row["success"] for row in rows])
  curves = study_figures.lines_of(rows, "flops", "success", "method", "variant")
  for axis, panel_method in zip(axes.flat, methods):  # noqa: B905 (the last line of panels may not be full)
    style.rate_axis(axis, top=top)
    style.flops_axis(axis, largest)
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
    axis.set_xlabel(axis.get_xlabel().replace("post-training compute ", "").strip("()"))
  for axis in axes[:, 0]:
    axis.set_ylabel("success")
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
