"""What a reader is told before any number: alarms that runs raised, with cause and way out, and skipped updates."""

import dataclasses

import numpy as np

from sftrl_jax.alarms import PREFIX
from sftrl_jax.report import labels as report_labels


@dataclasses.dataclass(frozen=True)
class Raised:
  """One alarm of one run: in how many of the logged steps, and the first of them."""
  name: str
  steps: int
  logged: int
  first: float

  @property
  def told(self):
    return f"{self.steps} of {report_labels.count(self.logged, 'logged step')}, first at step {self.first:g}"


def raised(run):
  """Every alarm/* metric that was ever above zero, whether this version knows it or not."""
  names = dict.fromkeys(key for line in run.metrics for key in line if str(key).startswith(PREFIX))
  found = []
  for name in names:
    steps, values = run.column(name)
    hot = steps[values > 0]
    if hot.size:
      found.append(Raised(str(name).removeprefix(PREFIX), hot.size, len(run.metrics), float(hot[0])))
  return tuple(found)


def skipped(run):
  """How many updates were not applied because the loss or its gradient was not finite."""
  _, values = run.column("nonfinite_steps")
  return float(np.sum(values[np.isfinite(values)]))


