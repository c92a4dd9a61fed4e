"""The figures of a study. Each takes the rows that it draws (rows.py) and gives a Figure; `save` writes .png and .csv.

Arguments that recur: `variants` and `methods` are {name: label} in the order drawn, `colours` {method: colour}, and
`inside` holds the variants drawn solid.
"""

from __future__ import annotations

import csv
import math
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftrl_jax.report.figures import style
from sftrl_jax.report.figures.rows import Row
from sftrl_jax.report.labels import LIGHT_COLOURS, VerdictGroup, plain, plot_text, points, temperature_label
from sftrl_jax.report.records import MEASURE_LABELS

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

DPI = 200


def save(figure: Figure, rows: Sequence[Row], path: pathlib.Path) -> pathlib.Path:
  """Writes `path`.png at twice screen resolution and `path`.csv with the rows drawn; returns the path of the .png."""
  write_csv(rows, path.with_suffix(".csv"))
  figure.savefig(path.with_suffix(".png"), dpi=DPI, facecolor="white")
  return path.with_suffix(".png")


def write_csv(rows: Sequence[Row], path: pathlib.Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer.writerow([plain(name, 200) for name in names])
    for row in rows:
      writer.writerow([csv_cell(row.get(name, "")) for name in names])


def csv_cell(value: Any) -> str:
  if isinstance(value, float):
    return f"{value:.8g}"
  text = plain(value, 2000)
  # A spreadsheet would run a name that begins like a formula.
  return f"'{text}" if text[:1] in ("=", "+", "-", "@") and isinstance(value, str) else text


def lines_of(rows: Iterable[Row], x: str, y: str, *names: str) -> dict[tuple, tuple[list, list]]:
  """Rows grouped by `names`: {(values...): (xs, ys)} in the order of appearance."""
  groups = {}
  for row in rows:
    xs, ys = groups.setdefault(tuple(row[name] for name in names), ([], []))
    xs.append(row[x])
    ys.append(row[y])
  return groups


def ceiling(values: Iterable[float], floor: float = 0.1) -> float:
  """The top of an axis of rates: a little above the largest, at least `floor`, at most 1."""
  largest = max((v for v in values if math.isfinite(v)), default=1.0)
  return min(1.0, max(floor, 1.12 * largest)) if largest <= 0.85 else 1.0


def panel_title(variant_label: str, temperature: float) -> str:
  return f"{variant_label} · {temperature_label(temperature)}"


def measure_of(rows: Sequence[Row]) -> str:
  """The measure that rows of a curve hold."""
  return next((measure for measure in MEASURE_LABELS if rows and measure in rows[0]), "success")


def success_grid(rows: Sequence[Row], variants: Mapping[str, str], margin: float,
                 line_height: float) -> tuple[Figure, list[tuple[Axes, str, list[Row]]]]:
  """A figure of rates with a panel a variant, each temperature apart, and its panels without any line yet.

  margin, line_height: inches of the figure's height, once and for each line of panels

  Returns (figure, [(axis, variant, the rows of the panel), ...]).
  """
  temperatures = sorted({row["temperature"] for row in rows})
  figure, axes = style.new_panels(len(variants), margin, line_height, len(temperatures))
  measure, panels = measure_of(rows), []
  top = ceiling([row[measure] for row in rows])
  for of_temperature, temperature in zip(axes, temperatures, strict=True):
    for axis, (variant, label) in zip(of_temperature, variants.items(), strict=True):
      if axis.get_subplotspec().is_first_col():
        axis.set_ylabel(MEASURE_LABELS[measure])
      style.rate_axis(axis, top=top)
      style.title(axis, panel_title(label, temperature))
      of_panel = [row for row in rows if (row["variant"], row["temperature"]) == (variant, temperature)]
      panels.append((axis, variant, of_panel))
  return figure, panels


def curves(rows: Sequence[Row], variants: Mapping[str, str], methods: Mapping[str, str], colours: Mapping[str, str],
           inside: Collection[str]) -> Figure:
  """A measure against FLOPs or updates, whichever rows hold: a panel a variant and temperature.

  Thin lines: bases, thick: their mean, grey: the start, or the starts of methods that begin from unlike models.
  """
  figure, panels = success_grid(rows, variants, 0.4, 2.5)
  for axis, variant, panel_rows in panels:
    along = style_x(axis, rows)
    end_labels, starts = [], []
    lines = lines_of(panel_rows, along, measure_of(rows), "method", "base")
    for (method, base), (x, y) in lines.items():
      thick = base == "mean"
      axis.plot(x, y, color=colours[method], linestyle=style.line_of(variant, inside), linewidth=2.4 if thick else 0.9,
                alpha=1 if thick else 0.4, zorder=3 if thick else 2, solid_capstyle="round", clip_on=False)
      if thick:
        starts.append(y[0])
        end_labels.append((x[-1], y[-1], methods[method], colours[method]))
    for start in distinct(starts):
      axis.axhline(start, color=style.START, linewidth=1, zorder=1)
    style.end_labels(axis, end_labels, lines=list(lines.values()))
  hide_inner_labels(figure)
  return figure


def distinct(values: Iterable[float], gap: float = 0.01) -> list[float]:
  """The first of the values that lie within `gap` of one another."""
  kept = []
  for value in values:
    if all(abs(value - earlier) > gap for earlier in kept):
      kept.append(value)
  return kept


def style_x(axis: Axes, rows: Sequence[Row]) -> str:
  """Makes x the axis of the FLOPs or updates that rows hold; returns which."""
  along = "flops" if "flops" in rows[0] else "updates"
  largest = max(row[along] for row in rows)
  (style.flops_axis if along == "flops" else style.updates_axis)(axis, largest)
  return along


def hide_inner_labels(figure: Figure) -> None:
  """Leaves the label of x to the lowest panels."""
  for axis in figure.axes:
    if not style.is_lowest(axis):
      axis.set_xlabel("")


def frontier(rows: Sequence[Row], methods: Mapping[str, str], colours: Mapping[str, str], inside_label: str,
             shifted_label: str) -> Figure:
  """The shifted rate against the rate in distribution, a panel a temperature; every path begins at the grey start."""
  temperatures = sorted({row["temperature"] for row in rows})
  figure, axes = style.new_figure(1, len(temperatures), height=3.5, sharey=True)
  right, top = (ceiling([row[name] for row in rows]) for name in ("in_distribution", "shifted"))
  for axis, temperature in zip(axes.flat, temperatures, strict=True):
    style.rate_axis(axis, "y", top)
    style.rate_axis(axis, "x", max(right, 0.2))
    axis.grid(axis="x", color=style.GRID, linewidth=0.8)
    panel_rows, ends = [row for row in rows if row["temperature"] == temperature], []
    for (method, base), (x, y) in lines_of(panel_rows, "in_distribution", "shifted", "method", "base").items():
      thick = base == "mean"
      axis.plot(x, y, color=colours[method], linewidth=2.4 if thick else 0.9, alpha=1 if thick else 0.4,
                marker="o" if thick else None, markersize=3.5, zorder=3 if thick else 2, clip_on=False)
      axis.plot(x[:1], y[:1], "o", color=style.START, markersize=7 if thick else 4, zorder=4, clip_on=False)
      if thick:
        ends.append((x[-1], y[-1], methods[method], colours[method]))
    style.end_labels(axis, ends)
    axis.set_xlabel(plot_text(inside_label, 60))
    style.title(axis, temperature_label(temperature))
  axes[0, 0].set_ylabel(plot_text(shifted_label, 60))
  return figure


def attempts(rows: Sequence[Row], variants: Mapping[str, str], methods: Mapping[str, str], colours: Mapping[str, str],
             inside: Collection[str], unit: str = "attempts") -> Figure:
  """Success within 1..U attempts of the start and each method; a panel a variant and temperature."""
  figure, panels = success_grid(rows, variants, 0.4, 2.3)
  for axis, variant, panel_rows in panels:
    end_labels = []
    for (group,), (x, y) in lines_of(panel_rows, "attempt", "success", "group").items():
      colour = colours.get(group, style.START)
      axis.plot(x, y, color=colour, linestyle=style.line_of(variant, inside), linewidth=2, marker="o", markersize=4,
                clip_on=False)   # else what is at 100% is cut in half
      end_labels.append((x[-1], y[-1], methods.get(group, group), colour))
    axis.set_xticks(sorted({row["attempt"] for row in rows}))
    axis.margins(x=0.08)
    axis.set_xlabel(f"{unit} allowed")
    style.end_labels(axis, end_labels, gap=0.075)
  hide_inner_labels(figure)
  return figure


def verdicts(rows: Sequence[Row], variants: Mapping[str, str], methods: Mapping[str, str],
             groups: Sequence[VerdictGroup]) -> Figure:
  """Verdicts as stacked bars: a panel a variant, a bar the start or a method."""
  bars = list(dict.fromkeys(row["group"] for row in rows))
  figure, (axes,) = style.new_panels(len(variants), 0.3, 0.45 + (0.45 if len(bars) < 7 else 0.28) * len(bars))
  counted = {row["verdict"] for row in rows if row["share"] > 0}
  groups = [group for group in groups if group.label in counted]
  for axis, (variant, label) in zip(axes, variants.items(), strict=True):
    axis.grid(visible=False)
    style.rate_axis(axis, "x", 1.0)
    style.title(axis, label)
    shares = {(row["group"], row["verdict"]): row["share"] for row in rows if row["variant"] == variant}
    for y, bar in enumerate(bars):
      left = 0.0
      for group in groups:
        width = shares.get((bar, group.label), 0.0)
        axis.barh(y, width, left=left, color=group.colour, height=0.66, edgecolor="white", linewidth=0.6)
        if width >= 0.09:
          axis.text(left + width / 2, y, f"{100 * width:.0f}", ha="center", va="center", fontsize=7.5,
                    color=style.INK if group.colour in LIGHT_COLOURS else "white")
        left += width
    axis.set_yticks(range(len(bars)), [plot_text(methods.get(bar, bar)) for bar in bars], fontsize=8.5)
    axis.set_ylim(len(bars) - 0.45, -0.55)
    axis.set_xticks([0, 0.5, 1])
    axis.tick_params(axis="x", labelsize=7)
  style.key(figure, [(group.label, group.colour, "-", 6) for group in groups])
  return figure


def divergence(rows: Sequence[Row], variants: Mapping[str, str], methods: Mapping[str, str],
               colours: Mapping[str, str], inside: Collection[str]) -> Figure:
  """KL from the start against FLOPs, a panel a variant."""
  figure, (axes,) = style.new_panels(len(variants), 0.2, 2.5)
  largest, top = max(row["flops"] for row in rows), 1.12 * max(row["kl"] for row in rows)
  for axis, (variant, label) in zip(axes, variants.items(), strict=True):
    if axis.get_subplotspec().is_first_col():
      axis.set_ylabel("KL from the start\n(nats per response token)")
    style.flops_axis(axis, largest)
    axis.set_ylim(0, top or 1)
    style.title(axis, label)
    end_labels = []
    panel_rows = [row for row in rows if row["variant"] == variant]
    for (method, base), (x, y) in lines_of(panel_rows, "flops", "kl", "method", "base").items():
      thick = base == "mean"
      axis.plot(x, y, color=colours[method], linestyle=style.line_of(variant, inside), linewidth=2.4 if thick else 0.9,
                alpha=1 if thick else 0.4)
      if thick:
        end_labels.append((x[-1], y[-1], methods[method], colours[method]))
    style.end_labels(axis, end_labels)
  hide_inner_labels(figure)
  return figure


def matched(rows: Sequence[Row], methods: Mapping[str, str], colours: Mapping[str, str], reference: str,
            shifted_label: str) -> Figure:
  """Shifted success at matched success in distribution: a panel a method and temperature, two beside one another.

  A panel has a row a base. A line joins the reference (where it first had that success) and the method.
  """
  panels = list(dict.fromkeys((row["method"], row["temperature"]) for row in rows))
  most = max(sum((row["method"], row["temperature"]) == panel for row in rows) for panel in panels)
  columns = min(2, len(panels))
  lines = -(-len(panels) // columns)
  figure, axes = style.new_figure(lines, columns, height=(1.0 + 0.3 * most) * lines, sharex=True)
  for axis in axes.flat[len(panels):]:
    axis.set_visible(False)
  top = ceiling([row[name] for row in rows for name in ("shifted_method", "shifted_sft")])
  for axis, (method, temperature) in zip(axes.flat, panels, strict=False):
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color=style.GRID, linewidth=0.8)
    style.rate_axis(axis, "x", top)
    panel_rows = [row for row in rows if (row["method"], row["temperature"]) == (method, temperature)]
    _matched_panel(axis, panel_rows, colours[reference], colours[method])
    axis.set_xlabel(plot_text(shifted_label, 60))
    style.title(axis, panel_title(plain(methods[method], 24), temperature))
  drawn = dict.fromkeys([reference, *(method for method, _ in panels)])
  style.key(figure, [(methods[method], colours[method], "-", 5) for method in drawn])
  return figure


def _matched_panel(axis: Axes, rows: Sequence[Row], reference_colour: str, method_colour: str) -> None:
  for y, row in enumerate(rows):
    thick = row["base"] == "mean"
    axis.plot([row["shifted_sft"], row["shifted_method"]], [y, y], color="#B7BDC6", linewidth=2 if thick else 1.2)
    for name, colour in (("shifted_sft", reference_colour), ("shifted_method", method_colour)):
      axis.plot(row[name], y, "o", color=colour, markersize=8 if thick else 5, zorder=3, clip_on=False)
    axis.annotate(points(row["gap"]), (1, y), xycoords=("axes fraction", "data"), xytext=(8, 0),
                  textcoords="offset points", fontsize=8, va="center", color=style.INK,
                  fontweight="bold" if thick else "normal")
  names = [f"{row['base']}  (at {100 * row['in_distribution']:.0f}% ID)" for row in rows]
  axis.set_yticks(range(len(rows)), names, fontsize=8)
  axis.set_ylim(len(rows) - 0.4, -0.6)


def effects(rows: Sequence[Row], colours: Mapping[str, str], labels: Mapping[tuple[str, str, str], str]) -> Figure:
  """Changes and gaps: a dot (filled greedy, open sampled), thick the bootstrap, thin the t interval over bases.

  `labels` maps (quantity, method, variant) to the text of a line, in the order drawn from the top.
  """
  effect_of = lambda row: (row["quantity"], row["method"], row["variant"])
  measured = set(map(effect_of, rows))
  lines = [effect for effect in labels if effect in measured]
  figure, axes = style.new_figure(1, 1, height=0.7 + 0.44 * max(1, len(lines)))
  axis, temperatures = axes[0, 0], sorted({row["temperature"] for row in rows})
  axis.grid(axis="y", visible=False)
  axis.grid(axis="x", color=style.GRID, linewidth=0.8)
  axis.axvline(0, color="#6B7280", linewidth=1)
  for line, effect in enumerate(lines):
    colour = style.INK if effect[0] in ("gap", "matched") else colours[effect[1]]
    for row in [row for row in rows if effect_of(row) == effect]:
      order = temperatures.index(row["temperature"])
      y = line + 0.26 * (order - (len(temperatures) - 1) / 2)
      axis.plot([100 * row["t_low"], 100 * row["t_high"]], [y, y], color=colour, linewidth=0.9, marker="|",
                markersize=5)
      axis.plot([100 * row["low"], 100 * row["high"]], [y, y], color=colour, linewidth=3, alpha=0.55)
      axis.plot(100 * row["value"], y, "o", color=colour, markersize=5.5, zorder=3,
                markerfacecolor=colour if order == 0 else "white")
      if row.get("unit") == "episodes" and row["bases"] > 1:
        single = [100 * float(value) for value in row["per_base"].split()]
        axis.plot(single, [y] * len(single), ".", color=style.INK, markersize=3.5, zorder=4)
  axis.set_yticks(range(len(lines)), [plot_text(labels[effect], 70) for effect in lines], fontsize=8.5)
  axis.set_ylim(len(lines) - 0.4, -0.6)
  # A t interval over two bases can be wider than the whole scale: it is cut at the edge, the table has the numbers.
  bounds = [100 * row[side] for row in rows for side in ("low", "high")] + [0.0]
  wider = [100 * row[side] for row in rows for side in ("t_low", "t_high") if math.isfinite(row[side])] + bounds
  margin = 0.3 * (max(bounds) - min(bounds)) + 2
  axis.set_xlim(max(min(wider) - 2, min(bounds) - margin), min(max(wider) + 2, max(bounds) + margin))
  axis.set_xlabel("percentage points")
  return figure
