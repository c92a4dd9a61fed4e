"""New tasks against old ones along runs: success in distribution over success under the shift and on probes, the tasks
from before training, so that arms are compared where they have learned equally much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sftrl_jax.report.figures import style
from sftrl_jax.report.figures.rows import Row, frontier_rows
from sftrl_jax.report.figures.study_figures import ceiling, lines_of
from sftrl_jax.report.labels import EMA, PROBE, temperature_label
from sftrl_jax.report.records import Run, Study

if TYPE_CHECKING:
  from matplotlib.figure import Figure

DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))   # a line style for every round through the colours
COLOURS = (style.RL, *style.MORE)


def pareto_rows(study: Study) -> list[Row]:
  """Rows of variant, temperature, method, base, flops, in_distribution, shifted; [] for a study without probes.

  A variant is the shifted one or a probe; base "mean" is the mean over bases. The averaged parameters of a method are
  the method ema:METHOD.
  """
  variants = [variant for variant in dict.fromkeys((study.ood, *study.probes)) if variant in study.variants]
  rows = []
  for variant in variants if study.probes else ():
    for kind in ("", EMA):
      rows += [{"variant": variant, **row, "method": f"{kind}{row['method']}"}
               for row in frontier_rows(study, f"{kind}{variant}", f"{kind}{study.id}")]
  return rows


def pareto_rows_of_run(run: Run) -> list[Row]:
  """The same of one run, whose first variant is the one in distribution; [] without probes."""
  probes = dict.fromkeys(e.variant for e in run.evaluations if e.probe)
  inside, rows = next((e.variant for e in run.evaluations if not e.probe), ""), []
  for probe in probes:
    kind = EMA if probe.startswith(EMA) else ""
    for temperature in sorted({e.temperature for e in run.evaluations}):
      new = {e.step: e for e in run.curve(f"{kind}{inside}", temperature)}
      rows += [{"variant": probe.removeprefix(EMA), "temperature": temperature, "method": f"{kind}{run.name}",
                "base": "mean", "flops": e.flops, "in_distribution": new[e.step].success, "shifted": e.success}
               for e in run.curve(probe, temperature) if e.step in new]
  return rows


def with_ema(methods: Mapping[str, str], rows: Sequence[Row]) -> dict[str, str]:
  """{method: label} with ema:METHOD of those that have rows, behind the others."""
  averaged = dict.fromkeys(row["method"] for row in rows if row["method"].startswith(EMA))
  return {**methods, **{method: f"{methods[method.removeprefix(EMA)]}, EMA" for method in averaged}}


def looks(methods: Sequence[str], reference: str) -> dict[str, tuple[str, object]]:
  """{method: (colour, line style)}, no two alike: the reference in orange."""
  rest = [method for method in methods if method != reference]
  return {reference: (style.SFT, "-"), **{
      method: (COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)])
      for number, method in enumerate(rest)}}


def pareto(rows: Sequence[Row], methods: Mapping[str, str], look: Mapping[str, tuple], variants: Mapping[str, str],
           inside_label: str) -> Figure:
  """A row of panels a temperature, a panel a variant: the mean path of every method from the grey start to its end.

  methods, variants: {name: label} in the order drawn; look: see `looks`
  """
  means = [row for row in rows if row["base"] == "mean" and math.isfinite(row["shifted"])]
  temperatures = sorted({row["temperature"] for row in means})
  drawn = [method for method in methods if any(row["method"] == method for row in means)]
  height = 2.6 * len(temperatures) + 0.2 * math.ceil(len(drawn) / 4)
  figure, axes = style.new_figure(len(temperatures), len(variants), height=height, sharex=True, sharey=True)
  right, top = (ceiling([row[name] for row in means]) for name in ("in_distribution", "shifted"))
  for temperature, line in zip(temperatures, axes, strict=True):
    for axis, (variant, label) in zip(line, variants.items(), strict=True):
      style.rate_axis(axis, "y", top)
      style.rate_axis(axis, "x", right)
      axis.grid(axis="x", color=style.GRID, linewidth=0.8)
      style.title(axis, f"{label.removeprefix(PROBE)} · {temperature_label(temperature)}")
      panel_rows = [row for row in means if (row["variant"], row["temperature"]) == (variant, temperature)]
      for (method,), (x, y) in lines_of(panel_rows, "in_distribution", "shifted", "method").items():
        colour, dashes = look[method]
        axis.plot(x, y, color=colour, linestyle=dashes, linewidth=1.5, alpha=0.75, clip_on=False)
        axis.plot(x[-1:], y[-1:], "o", color=colour, markersize=5.5, zorder=3, clip_on=False)
        axis.plot(x[:1], y[:1], "o", color=style.START, markersize=7, zorder=4, clip_on=False)
  for axis in axes[-1]:
    axis.set_xlabel(inside_label)
  for axis in axes[:, 0]:
    axis.set_ylabel("success there")
  style.key(figure, [(methods[method], *look[method], 2.2) for method in drawn])
  return figure
