"""What tasks of lm-eval say along a run, as frozen data: the lines of its tasks.jsonl."""

import dataclasses
import math
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class TaskResult:
  """One line of tasks.jsonl along a run: a metric of a task of lm-eval, or of a group of tasks.

  `filter` is that of the responses, "none" for them as they are; `value` and `stderr` are NaN where there is none.
  `falls` is whether lower is better, `documents` how many were asked.
  """

  task: str
  metric: str
  filter: str
  step: int
  flops: float
  value: float
  stderr: float
  falls: bool
  documents: float
  group: bool

  @property
  def measure(self) -> str:
    """Metric and filter in one word."""
    return self.metric if self.filter == "none" else f"{self.metric}, {self.filter}"


def task_curves(results: Iterable[TaskResult]) -> dict[tuple[str, str], tuple[TaskResult, ...]]:
  """{(task, measure): results by step}, without values that are none; groups of tasks come first."""
  curves = {}
  for result in sorted(results, key=lambda result: (not result.group, result.step)):   # else as they are written
    if math.isfinite(result.value):
      curves.setdefault((result.task, result.measure), []).append(result)
  return {key: tuple(curve) for key, curve in curves.items()}


def first_measures(results: Iterable[TaskResult]) -> dict[str, str]:
  """{task: the measure that stands for it}, the first one that lm-eval gives with a value."""
  measures = {}
  for task, measure in task_curves(results):
    measures.setdefault(task, measure)
  return measures
