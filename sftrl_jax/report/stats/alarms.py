"""Alarms that a run raised, and updates that it skipped."""

import dataclasses

import numpy as np

from sftrl_jax.alarms import PREFIX
from sftrl_jax.report import labels
from sftrl_jax.report.records import Run


@dataclasses.dataclass(frozen=True)
class RaisedAlarm:
  """One alarm of one run: in how many of the logged steps it was raised, and the first of them."""

  name: str
  steps: int
  logged: int
  first: float

  @property
  def summary(self) -> str:
    return f"{self.steps} of {labels.count(self.logged, 'logged step')}, first at step {self.first:g}"


def raised(run: Run) -> tuple[RaisedAlarm, ...]:
  """Every alarm/* metric that was ever above zero, whether this version knows it or not."""
  names = dict.fromkeys(key for line in run.metrics for key in line if str(key).startswith(PREFIX))
  alarms = []
  for name in names:
    steps, values = run.column(name)
    alarmed = steps[values > 0]
    if alarmed.size:
      alarms.append(RaisedAlarm(str(name).removeprefix(PREFIX), alarmed.size, len(run.metrics), float(alarmed[0])))
  return tuple(alarms)


def skipped(run: Run) -> float:
  """The number of updates that were not applied because the loss or its gradient was not finite."""
  _, values = run.column("nonfinite_steps")
  return float(np.sum(values[np.isfinite(values)]))
