"""Tasks of lm-eval at the start and at the end of runs."""

import math
from collections.abc import Sequence

import numpy as np

from sftrl_jax.report.labels import EMA, plain
from sftrl_jax.report.pages.blocks import Table
from sftrl_jax.report.records import Run, Study
from sftrl_jax.report.stats.flops_axis import comparison
from sftrl_jax.report.task_results import TaskResult, first_measures, task_curves

MOST_ROWS = 80


def run_table(run: Run) -> Table:
  """A row a task and measure: start and last value with the standard errors of lm-eval, and the change."""
  rows = []
  for (task, measure), curve in task_curves(run.tasks).items():
    first, last = curve[0], curve[-1]
    rows.append((name_of(task), measure_text(measure, first), _with_error(first), _with_error(last),
                 change_text(last.value - first.value), _number(last.documents, "{:,.0f}")))
  return Table(("task", "metric", "start", "last", "change", "documents"), _cut(rows), (
      "Tasks of lm-eval along the run, with its standard errors over documents. ↓: lower is better."))


def study_table(study: Study, order: Sequence[str]) -> Table:
  """A row a task and method: means over the compared runs at their start and end; of each task its first metric."""
  compared = comparison(study).at
  measures = first_measures(result for run in study.runs.values() for result in run.tasks)
  rows = []
  for task, measure in measures.items():
    for method in order:
      curves = [curve for key in compared if key[1] == method
                if (curve := task_curves(study.runs[key].tasks).get((task, measure)))]
      if curves:
        starts, ends = (np.array([curve[place].value for curve in curves]) for place in (0, -1))
        spread = _number(np.std(ends - starts, ddof=1)) if len(curves) > 1 else "–"
        rows.append((name_of(task), measure_text(measure, curves[0][0]), study.methods[method], _number(starts.mean()),
                     _number(ends.mean()), change_text((ends - starts).mean()), spread, str(len(curves))))
  return Table(("task", "metric", "method", "start", "end", "change", "spread of the change", "runs"), _cut(rows), (
      "Tasks of lm-eval: means over runs; the spread is the standard deviation over them. Of each task its first "
      "metric; tasks.jsonl of a run has the others. ↓: lower is better."))


def name_of(task: str) -> str:
  """A task, and whether the average of the parameters was asked."""
  return plain(task.removeprefix(EMA), 40) + (", EMA" if task.startswith(EMA) else "")


def measure_text(measure: str, result: TaskResult) -> str:
  """A metric with an arrow where lower is better."""
  return f"{plain(measure, 40)}{' ↓' if result.falls else ''}"


def change_text(value: float) -> str:
  """A signed number."""
  return _number(value, "{:+.4g}").replace("-", "−")


def _with_error(result: TaskResult) -> str:
  error = f" ± {result.stderr:.2g}" if math.isfinite(result.stderr) and result.stderr else ""
  return f"{_number(result.value)}{error}"


def _number(value: float, form: str = "{:.4g}") -> str:
  return form.format(value) if math.isfinite(value) else "–"


def _cut(rows: list[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
  """At most MOST_ROWS of them; the last one then says how many more there are."""
  if len(rows) <= MOST_ROWS:
    return tuple(rows)
  more = f"{len(rows) - MOST_ROWS + 1} more in tasks.jsonl"
  return (*rows[:MOST_ROWS - 1], (more, *[""] * (len(rows[0]) - 1)))
