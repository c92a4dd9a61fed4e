"""The alarms of runs as a box on a page and as a line for a console."""

from sftrl_jax.alarms import ALARMS
from sftrl_jax.report import labels as report_labels
from sftrl_jax.report.pages.blocks import Notice
from sftrl_jax.report.stats.alarms import raised

NAMED = 8  # runs that one item names at most


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
    items.append(f"{report_labels.plain(name, 60)} ({'; '.join(places[:NAMED])}{more}).{means}")
  return [Notice("Alarms", tuple(items))] if items else []


def line(named):
  """The same for a console, in one line; "" where none was raised."""
  runs = {}
  for label, run in named:
    for alarm in raised(run):
      runs.setdefault(alarm.name, []).append(label)
  told = "; ".join(f"{name} in {', '.join(labels[:NAMED])}" for name, labels in runs.items())
  return f"Alarms: {told} (cause and way out: see the report)" if told else ""
