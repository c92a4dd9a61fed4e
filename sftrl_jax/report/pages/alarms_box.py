"""The alarms of runs as a box on a page and as a line for a console. `named_runs` is [(name, Run)]."""

from collections.abc import Sequence

from sftrl_jax.alarms import ALARMS
from sftrl_jax.report.labels import plain
from sftrl_jax.report.pages.blocks import Notice
from sftrl_jax.report.records import Run
from sftrl_jax.report.stats.alarms import raised

MOST_NAMED = 8  # runs that one item names


def notices(named_runs: Sequence[tuple[str, Run]]) -> list[Notice]:
  """A box with every alarm, its cause and way out; [] where none was raised. A single run is not named."""
  by_alarm = {}
  for label, run in named_runs:
    for alarm in raised(run):
      by_alarm.setdefault(alarm.name, []).append(f"{label}: {alarm.summary}" if len(named_runs) > 1 else alarm.summary)
  items = []
  for name, runs in by_alarm.items():
    more = f"; and {len(runs) - MOST_NAMED} more runs" if len(runs) > MOST_NAMED else ""
    alarm = ALARMS.get(name)
    explanation = f" {alarm.cause} {alarm.knob}" if alarm else ""
    items.append(f"{plain(name, 60)} ({'; '.join(runs[:MOST_NAMED])}{more}).{explanation}")
  return [Notice("Alarms", tuple(items))] if items else []


def console_line(named_runs: Sequence[tuple[str, Run]]) -> str:
  """The same for a console, in one line; "" where none was raised."""
  by_alarm = {}
  for label, run in named_runs:
    for alarm in raised(run):
      by_alarm.setdefault(alarm.name, []).append(label)
  alarms = "; ".join(f"{name} in {', '.join(runs[:MOST_NAMED])}" for name, runs in by_alarm.items())
  return f"Alarms: {alarms} (cause and way out: see the report)" if alarms else ""
