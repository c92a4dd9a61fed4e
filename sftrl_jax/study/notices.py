"""What a reader is told before any number: alarms that runs raised, with cause and way out, and skipped updates."""

import dataclasses

import numpy as np

from sftrl_jax.alarms import ALARMS, PREFIX
from sftrl_jax.study import style
from sftrl_jax.study.page import Notice

NAMED = 8  # runs that one item names at most


@dataclasses.dataclass(frozen=True)
class Raised:
  """One alarm of one run: in how many of the logged steps, and the first of them."""
  name: str
  steps: int
  logged: int
  first: float

  @property
  def told(self):
    return f"{self.steps} of {style.count(self.logged, 'logged step')}, first at step {self.first:g}"


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


def alarms(named):
  """A box with every alarm of [(name, run)], cause and way out; [] where none was raised. A single run is not named."""
  where = {}
  for label, run in named:
    for alarm in raised(run):
      where.setdefault(alarm.name, []).append(f"{label}: {alarm.told}" if len(named) > 1 else alarm.told)
  items = []
  for name, places in where.items():
    more = f"; and {len(places) - NAMED} more runs" if len(places) > NAMED else ""
    known = ALARMS.get(name)
    means = f" {known.cause} {known.knob}" if known else ""
    items.append(f"{style.plain(name, 60)} ({'; '.join(places[:NAMED])}{more}).{means}")
  return [Notice("Alarms", tuple(items))] if items else []


def line(named):
  """The same for a console, in one line; "" where none was raised."""
  runs = {}
  for label, run in named:
    for alarm in raised(run):
      runs.setdefault(alarm.name, []).append(label)
  told = "; ".join(f"{name} in {', '.join(labels[:NAMED])}" for name, labels in runs.items())
  return f"Alarms: {told} (cause and way out: see the report)" if told else ""
