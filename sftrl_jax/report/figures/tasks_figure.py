"""Old tasks, those of lm-eval, against the new one along runs: a value over success in distribution, or over FLOPs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sftrl_jax.report.figures import style
from sftrl_jax.report.figures.rows import Row, curve_rows
from sftrl_jax.report.figures.study_figures import ceiling, lines_of, style_x
from sftrl_jax.report.labels import EMA, plot_text
from sftrl_jax.report.records import Run, Study
from sftrl_jax.report.stats.flops_axis import comparison, mean_curve
from sftrl_jax.report.task_results import TaskResult, first_measures, task_curves

if TYPE_CHECKING:
  from matplotlib.figure import Figure

MOST_PANELS = 9   # tasks that are drawn, groups first
COLUMNS = 3


def task_rows_of_run(run: Run) -> list[Row]:
  """Rows of task, measure, method, base, flops, value and, where the run has a variant at that step, in_distribution:
  success on its first variant at the lowest temperature. The averaged parameters are the method ema:NAME."""
  evaluations = [e for e in run.evaluations if e.verifies and not e.probe]
  inside, lowest = (evaluations[0].variant, min(e.temperature for e in evaluations)) if evaluations else ("", 0.0)
  rows = []
  for (task, measure), curve in _drawn(run.tasks).items():
    kind = EMA if task.startswith(EMA) else ""
    new = {e.step: e.success for e in run.curve(f"{kind}{inside}", lowest)} if inside else {}
    rows += [_row(task, measure, run.name, "mean", result.flops, result.value)
             | ({"in_distribution": new[result.step]} if result.step in new else {}) for result in curve]
  return rows


def task_rows(study: Study) -> list[Row]:
  """The same of a study, per base and for the mean over bases (base "mean") of the runs that are compared; values are
  read at the FLOPs of the evaluations in distribution, linear between two."""
  rows, lowest = [], min(study.temperatures, default=0.0)
  new = [row for row in curve_rows(study) if row["temperature"] == lowest]
  keys = dict.fromkeys(key for run in study.runs.values() for key in _drawn(run.tasks))
  compared = comparison(study).at
  for task, measure in keys:
    kind = EMA if task.startswith(EMA) else ""
    for method in study.methods:
      by_base: dict[int, list] = {}
      for key in compared:
        curve = _drawn(study.runs[key].tasks).get((task, measure), ()) if key[1] == method else ()
        if curve:
          by_base.setdefault(key[0], []).append(([r.flops for r in curve], [r.value for r in curve]))
      lines = {f"base-{base}": mean_curve(curves) for base, curves in by_base.items()}
      lines |= {"mean": mean_curve(lines.values())} if lines else {}
      for base, (flops_K, values_K) in lines.items():
        inside = [row for row in new if (row["variant"], row["method"], row["base"]) == (
            f"{kind}{study.id}", method, base)]
        rows += [_row(task, measure, method, base, row["flops"], float(np.interp(row["flops"], flops_K, values_K)))
                 | {"in_distribution": row[study.measure]} for row in inside]
  return rows


def _row(task: str, measure: str, method: str, base: str, flops: float, value: float) -> Row:
  kind = EMA if task.startswith(EMA) else ""
  return {"task": task.removeprefix(EMA), "measure": measure, "method": f"{kind}{method}", "base": base,
          "flops": float(flops), "value": float(value)}


def _drawn(results: Iterable[TaskResult]) -> dict[tuple[str, str], tuple[TaskResult, ...]]:
  """The curves of the first measure of each task."""
  results = tuple(results)
  first = first_measures(results)
  return {(task, measure): curve for (task, measure), curve in task_curves(results).items() if first[task] == measure}


def axis_of(rows: Sequence[Row]) -> str:
  """What is drawn along x: in_distribution where all rows have it, else flops."""
  return "in_distribution" if all("in_distribution" in row for row in rows) else "flops"


def tasks(rows: Sequence[Row], methods: Mapping[str, str], look: Mapping[str, tuple], inside_label: str) -> Figure:
  """A panel a task: the mean path of every method from the grey start to its end.

  methods: {name: label} in the order drawn; look: see `pareto_figure.looks`; inside_label: of success in distribution
  """
  means = [row for row in rows if row["base"] == "mean"]
  panels = list(dict.fromkeys((row["task"], row["measure"]) for row in means))[:MOST_PANELS]
  drawn = [method for method in methods if any(row["method"] == method for row in means)]
  along = axis_of(means)
  columns = min(COLUMNS, len(panels))
  lines = -(-len(panels) // columns)
  height = 2.5 * lines + 0.2 * math.ceil(len(drawn) / 4)
  figure, axes = style.new_figure(lines, columns, height=height)
  for axis in axes.flat[len(panels):]:
    axis.remove()
  for axis, (task, measure) in zip(axes.flat, panels):  # noqa: B905 (the last line of panels may not be full)
    panel_rows = [row for row in means if (row["task"], row["measure"]) == (task, measure)]
    style.title(axis, task)
    axis.set_ylabel(plot_text(measure))
    axis.grid(axis="x", color=style.GRID, linewidth=0.8)
    if all(0 <= row["value"] <= 1 for row in panel_rows):
      style.rate_axis(axis, "y", ceiling([row["value"] for row in panel_rows]))
    if along == "flops":
      style_x(axis, means)
    else:
      style.rate_axis(axis, "x", ceiling([row["in_distribution"] for row in means]))
      axis.set_xlabel(inside_label)
    for (method,), (x, y) in lines_of(panel_rows, along, "value", "method").items():
      colour, dashes = look[method]
      axis.plot(x, y, color=colour, linestyle=dashes, linewidth=1.5, alpha=0.75, clip_on=False)
      axis.plot(x[-1:], y[-1:], "o", color=colour, markersize=5.5, zorder=3, clip_on=False)
      axis.plot(x[:1], y[:1], "o", color=style.START, markersize=7, zorder=4, clip_on=False)
  style.key(figure, [(methods[method], *look[method], 2.2) for method in drawn])
  return figure
