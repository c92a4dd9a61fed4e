"""Bands of methods over FLOPs, with the evaluations that they rest on, as rows and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sftrl_jax.forecast.sigmoid import band
from sftrl_jax.report.figures import style
from sftrl_jax.report.figures.rows import Row
from sftrl_jax.report.figures.study_figures import ceiling, hide_inner_labels
from sftrl_jax.report.forecast.curves import MethodForecast

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

BAND_POINTS = 60
PANELS_A_ROW = 4


def band_rows(forecasts: Sequence[MethodForecast]) -> list[Row]:
  """Rows of method, variant, kind, base, flops, value, low, high.

  kind: "band", up to what is forecast, over all bases; "point", an evaluation of one base, without low and high
  """
  rows = []
  for forecast in (forecast for forecast in forecasts if forecast.runs):
    key = {"method": forecast.method, "variant": forecast.variant, "temperature": forecast.temperature}
    # Half of them in equal ratios: curves turn early.
    first = min(flops for run in forecast.runs for flops in run.curve.flops if flops > 0)
    flops_G = np.unique(np.concatenate([np.linspace(0, forecast.target, BAND_POINTS // 2),
                                        np.geomspace(first / 4, forecast.target, BAND_POINTS // 2)]))
    low_G, middle_G, high_G = band(forecast.rates(flops_G))
    rows += [{**key, "kind": "band", "base": "all", "flops": float(at), "value": float(value), "low": float(low),
              "high": float(high)} for at, low, value, high in zip(flops_G, low_G, middle_G, high_G, strict=True)]
    rows += [{**key, "kind": "point", "base": f"base-{run.base}", "flops": flops, "value": right / trials}
             for run in forecast.runs for flops, right, trials in sorted(zip(
                 run.curve.flops, run.curve.right, run.curve.trials, strict=True))]
  return rows


def bands(rows: Sequence[Row], panels: Mapping[str, str], methods: Mapping[str, str], colours: Mapping[str, str],
          inside: Sequence[str], rate: str = "success") -> Figure:
  """A panel a variant, or a method where `panels` has methods: medians and bands, dots the evaluations of bases.

  panels: {variant or method: title}; inside: the variants drawn solid; rate: what is measured, in words.
  A grey line: the last evaluation of a panel
  """
  by = "method" if set(panels) <= set(methods) else "variant"
  columns = min(PANELS_A_ROW if by == "method" else 3, len(panels))
  lines = -(-len(panels) // columns)
  figure, axes = style.new_figure(lines, columns, height=0.4 + (1.6 if columns > 3 else 2.8) * lines, sharey=True)
  largest, top = max(row["flops"] for row in rows), ceiling([row.get("high", row["value"]) for row in rows])
  for axis, (name, title) in zip(axes.flat, panels.items(), strict=False):
    style.rate_axis(axis, top=top)
    style.flops_axis(axis, largest)
    style.title(axis, title)
    _panel(axis, [row for row in rows if row[by] == name], methods, colours, inside, labels=by == "variant")
  for axis in axes.flat[len(panels):]:
    axis.set_visible(False)
  for axis in axes[:, 0]:
    axis.set_ylabel(rate)
  hide_inner_labels(figure)
  for axis in axes[-1] if columns > 2 else ():   # the whole words are wider than a panel
    axis.set_xlabel(axis.get_xlabel().replace("post-training compute ", "").strip("()"))
  return figure


def _panel(axis: Axes, rows: Sequence[Row], methods: Mapping[str, str], colours: Mapping[str, str],
           inside: Sequence[str], labels: bool) -> None:
  ends = []
  for method, variant in dict.fromkeys((row["method"], row["variant"]) for row in rows):
    own = [row for row in rows if (row["method"], row["variant"]) == (method, variant)]
    line, dots = ([row for row in own if row["kind"] == kind] for kind in ("band", "point"))
    xs, colour = [row["flops"] for row in line], colours[method]
    axis.fill_between(xs, [row["low"] for row in line], [row["high"] for row in line], color=colour, alpha=0.18,
                      linewidth=0)
    axis.plot(xs, [row["value"] for row in line], color=colour, linestyle=style.line_of(variant, inside), linewidth=1.6)
    axis.plot([row["flops"] for row in dots], [row["value"] for row in dots], ".", color=colour, markersize=4,
              alpha=0.7, clip_on=False)
    ends.append((xs[-1], line[-1]["value"], methods[method], colour))
  reached = max((row["flops"] for row in rows if row["kind"] == "point"), default=0.0)
  axis.axvline(reached, color=style.START, linewidth=1, zorder=1)
  if labels:
    style.end_labels(axis, ends)
