"""The figures of a study. Each takes the rows it draws (series.py) and gives a matplotlib Figure; `save` writes .png
and .csv.
"""

import csv
import math

from sftrl_jax.report import labels as report_labels
from sftrl_jax.report.figures import style

DPI = 200


def save(figure, rows, path):
  """Writes `path`.png at twice screen resolution and `path`.csv with the rows drawn; the .png's path comes back."""
  path.parent.mkdir(parents=True, exist_ok=True)
  write_csv(rows, path.with_suffix(".csv"))
  figure.savefig(path.with_suffix(".png"), dpi=DPI, facecolor="white")
  return path.with_suffix(".png")


def write_csv(rows, path):
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer.writerow([report_labels.plain(name, 200) for name in names])
    for row in rows:
      writer.writerow([cell(row.get(name, "")) for name in names])


def cell(value):
  if isinstance(value, float):
    return f"{value:.8g}"
  text = report_labels.plain(value, 2000)
  # A spreadsheet would run a name that begins like a formula.
  return f"'{text}" if text[:1] in ("=", "+", "-", "@") and isinstance(value, str) else text


def lines_of(rows, x, y, *names):
  """Rows grouped by `names`: {(values...): (xs, ys)} in the order of appearance."""
  groups = {}
  for row in rows:
    xs, ys = groups.setdefault(tuple(row[name] for name in names), ([], []))
    xs.append(row[x])
    ys.append(row[y])
  return groups


def ceiling(values, floor=0.1):
  """The top of an axis of rates: room for the largest, never over 1."""
  largest = max((v for v in values if math.isfinite(v)), default=1.0)
  return min(1.0, max(floor, 1.12 * largest)) if largest <= 0.85 else 1.0


def curves(rows, variants, methods, colours, inside):
  """Success against FLOPs: a panel a variant and temperature; thin lines are bases, thick ones their mean, grey the
  start.
  """
  temperatures = sorted({row["temperature"] for row in rows})
  figure, axes = style.new_figure(len(temperatures), len(variants), height=0.4 + 2.5 * len(temperatures), sharey=True)
  largest, top = max(row["flops"] for row in rows), ceiling([row["success"] for row in rows])
  for panels, temperature in zip(axes, temperatures, strict=True):
    for axis, variant in zip(panels, variants, strict=True):
      style.rate_axis(axis, top=top)
      style.flops_axis(axis, largest)
      style.title(axis, f"{report_labels.variant_label(variant)} · {report_labels.temperature_label(temperature)}")
      mine = [row for row in rows if (row["variant"], row["temperature"]) == (variant, temperature)]
      labels, starts = [], []
      for (method, base), (x, y) in lines_of(mine, "flops", "success", "method", "base").items():
        thick = base == "mean"
        axis.plot(
          x,
          y,
          color=colours[method],
          linestyle=style.line_of(variant, inside),
          linewidth=2.4 if thick else 0.9,
          alpha=1 if thick else 0.4,
          zorder=3 if thick else 2,
          solid_capstyle="round",
        )
        if thick:
          starts.append(y[0])
          labels.append((x[-1], y[-1], methods[method], colours[method]))
      if starts:
        axis.axhline(sum(starts) / len(starts), color=style.START, linewidth=1, zorder=1)
      style.end_labels(axis, labels)
    panels[0].set_ylabel("success")
  hide_inner_labels(axes)
  return figure


def hide_inner_labels(axes):
  for axis in axes[:-1].flat:
    axis.set_xlabel("")


def frontier(rows, methods, colours, inside_label, shifted_label):
  """Shifted success against success in distribution, a panel a temperature; every path begins at the grey start."""
  temperatures = sorted({row["temperature"] for row in rows})
  figure, axes = style.new_figure(1, len(temperatures), height=3.5, sharey=True)
  right, top = (ceiling([row[name] for row in rows]) for name in ("in_distribution", "shifted"))
  for axis, temperature in zip(axes.flat, temperatures, strict=True):
    style.rate_axis(axis, "y", top)
    style.rate_axis(axis, "x", max(right, 0.2))
    axis.grid(axis="x", color=style.GRID, linewidth=0.8)
    mine = [row for row in rows if row["temperature"] == temperature]
    for (method, base), (x, y) in lines_of(mine, "in_distribution", "shifted", "method", "base").items():
      thick = base == "mean"
      axis.plot(x, y, color=colours[method], linewidth=2.4 if thick else 0.9, alpha=1 if thick else 0.4,
                marker="o" if thick else None, markersize=3.5, zorder=3 if thick else 2)
      axis.plot(x[:1], y[:1], "o", color=style.START, markersize=7 if thick else 4, zorder=4)
      if thick:
        axis.annotate(
          report_labels.drawn(methods[method]),
          (x[-1], y[-1]),
          xytext=(7, 0),
          textcoords="offset points",
          va="center",
          fontsize=8.5,
          fontweight="bold",
          color=colours[method],
          annotation_clip=False,
          zorder=5,
          bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )
    axis.set_xlabel(f"success, {inside_label}")
    style.title(axis, report_labels.temperature_label(temperature))
  axes[0, 0].set_ylabel(f"success, {shifted_label}")
  return figure


def group_label(group, methods):
  return "start" if group == "start" else methods[group]


def group_colour(group, colours):
  return style.START if group == "start" else colours[group]


def attempts(rows, variants, methods, colours, inside):
  """Success within 1..U attempts of the start and each method; a row of panels a temperature, a panel a variant."""
  temperatures = sorted({row["temperature"] for row in rows})
  figure, axes = style.new_figure(len(temperatures), len(variants), height=0.4 + 2.3 * len(temperatures), sharey=True)
  top = ceiling([row["success"] for row in rows])
  for panels, temperature in zip(axes, temperatures, strict=True):
    for axis, variant in zip(panels, variants, strict=True):
      style.rate_axis(axis, top=top)
      style.title(axis, f"{report_labels.variant_label(variant)} · {report_labels.temperature_label(temperature)}")
      mine = [row for row in rows if (row["variant"], row["temperature"]) == (variant, temperature)]
      labels = []
      for (group,), (x, y) in lines_of(mine, "attempt", "success", "group").items():
        colour = group_colour(group, colours)
        axis.plot(x, y, color=colour, linestyle=style.line_of(variant, inside), linewidth=2, marker="o", markersize=4)
        labels.append((x[-1], y[-1], group_label(group, methods), colour))
      axis.set_xticks(sorted({row["attempt"] for row in rows}))
      axis.margins(x=0.08)
      axis.set_xlabel("attempts allowed")
      style.end_labels(axis, labels, gap=0.075)
    panels[0].set_ylabel("success")
  hide_inner_labels(axes)
  return figure


def codes(rows, variants, methods, stacked):
  """First attempts by verdict as stacked bars: a panel a variant, a bar the start or a method."""
  groups = list(dict.fromkeys(row["group"] for row in rows))
  height = 0.75 + (0.45 if len(groups) < 7 else 0.28) * len(groups)
  figure, axes = style.new_figure(1, len(variants), height=height, sharey=True)
  kinds = [(name, colour) for name, colour, _ in stacked
           if any(row["verdict"] == name and row["share"] > 0 for row in rows)]
  for axis, variant in zip(axes.flat, variants, strict=True):
    axis.grid(visible=False)
    style.rate_axis(axis, "x", 1.0)
    style.title(axis, report_labels.variant_label(variant))
    share = {(row["group"], row["verdict"]): row["share"] for row in rows if row["variant"] == variant}
    for place, group in enumerate(groups):
      left = 0.0
      for name, colour in kinds:
        width = share.get((group, name), 0.0)
        axis.barh(place, width, left=left, color=colour, height=0.66, edgecolor="white", linewidth=0.6)
        if width >= 0.09:
          axis.text(left + width / 2, place, f"{100 * width:.0f}", ha="center", va="center", fontsize=7.5,
                    color=style.INK if colour in report_labels.LIGHT else "white")
        left += width
    axis.set_yticks(range(len(groups)), [report_labels.drawn(group_label(group, methods)) for group in groups], fontsize=8.5)
    axis.set_ylim(len(groups) - 0.45, -0.55)
    axis.set_xticks([0, 0.5, 1])
    axis.tick_params(axis="x", labelsize=7)
  style.key(figure, [(name, colour, "-", 6) for name, colour in kinds])
  return figure


def divergence(rows, variants, methods, colours, inside):
  """KL from the start against FLOPs, a panel a variant."""
  figure, axes = style.new_figure(1, len(variants), height=2.7, sharey=True)
  largest, top = max(row["flops"] for row in rows), 1.12 * max(row["kl"] for row in rows)
  for axis, variant in zip(axes.flat, variants, strict=True):
    style.flops_axis(axis, largest)
    axis.set_ylim(0, top or 1)
    style.title(axis, report_labels.variant_label(variant))
    labels = []
    mine = [row for row in rows if row["variant"] == variant]
    for (method, base), (x, y) in lines_of(mine, "flops", "kl", "method", "base").items():
      thick = base == "mean"
      axis.plot(x, y, color=colours[method], linestyle=style.line_of(variant, inside), linewidth=2.4 if thick else 0.9,
                alpha=1 if thick else 0.4)
      if thick:
        labels.append((x[-1], y[-1], methods[method], colours[method]))
    style.end_labels(axis, labels)
  axes[0, 0].set_ylabel("KL from the start\n(nats per response token)")
  return figure


def matched(rows, methods, colours, sft, shifted_label):
  """Shifted success at matched success in distribution: a line joins SFT (where it first had it) and the method, a row
  a base.
  """
  panels = list(dict.fromkeys((row["method"], row["temperature"]) for row in rows))
  most = max(sum((row["method"], row["temperature"]) == panel for row in rows) for panel in panels)
  figure, axes = style.new_figure(1, len(panels), height=1.0 + 0.3 * most, sharex=True)
  top = ceiling([row[name] for row in rows for name in ("shifted_method", "shifted_sft")])
  for axis, (method, temperature) in zip(axes.flat, panels, strict=True):
    mine = [row for row in rows if (row["method"], row["temperature"]) == (method, temperature)]
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color=style.GRID, linewidth=0.8)
    style.rate_axis(axis, "x", top)
    for place, row in enumerate(mine):
      thick = row["base"] == "mean"
      axis.plot(
        [row["shifted_sft"], row["shifted_method"]], [place, place], color="#B7BDC6", linewidth=2 if thick else 1.2
      )
      for name, colour in (("shifted_sft", colours[sft]), ("shifted_method", colours[method])):
        axis.plot(row[name], place, "o", color=colour, markersize=8 if thick else 5, zorder=3)
      axis.annotate(
        report_labels.points(row["gap"]),
        (1, place),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=8,
        va="center",
        color=style.INK,
        fontweight="bold" if thick else "normal",
      )
    names = [f"{row['base']}  (at {100 * row['in_distribution']:.0f}% ID)" for row in mine]
    axis.set_yticks(range(len(mine)), names, fontsize=8)
    axis.set_ylim(len(mine) - 0.4, -0.6)
    axis.set_xlabel(f"success, {shifted_label}")
    pair = f"{report_labels.plain(methods[method], 16)} minus {report_labels.plain(methods[sft], 16)}"
    style.title(axis, f"{pair} · {report_labels.temperature_label(temperature)}")
  style.key(figure, [(methods[m], colours[m], "-", 5) for m in dict.fromkeys([sft] + [p[0] for p in panels])])
  return figure


def effects(rows, methods, colours, labels):
  """Changes and gaps: a dot (filled greedy, open sampled), thick the bootstrap, thin the t interval over bases.

  `labels` maps (quantity, method, variant) to the words of a row, in the order drawn from the top.
  """
  places = [key for key in labels if any((r["quantity"], r["method"], r["variant"]) == key for r in rows)]
  figure, axes = style.new_figure(1, 1, height=0.7 + 0.44 * max(1, len(places)))
  axis, temperatures = axes[0, 0], sorted({row["temperature"] for row in rows})
  axis.grid(axis="y", visible=False)
  axis.grid(axis="x", color=style.GRID, linewidth=0.8)
  axis.axvline(0, color="#6B7280", linewidth=1)
  for place, name in enumerate(places):
    for row in rows:
      if (row["quantity"], row["method"], row["variant"]) != name:
        continue
      order = temperatures.index(row["temperature"])
      height = place + 0.26 * (order - (len(temperatures) - 1) / 2)
      colour = style.INK if name[0] in ("gap", "matched") else colours[name[1]]
      axis.plot(
        [100 * row["t_low"], 100 * row["t_high"]], [height] * 2, color=colour, linewidth=0.9, marker="|", markersize=5
      )
      axis.plot([100 * row["low"], 100 * row["high"]], [height] * 2, color=colour, linewidth=3, alpha=0.55)
      axis.plot(100 * row["value"], height, "o", color=colour, markersize=5.5, zorder=3,
                markerfacecolor=colour if order == 0 else "white")
  axis.set_yticks(range(len(places)), [report_labels.drawn(labels[name], 70) for name in places], fontsize=8.5)
  axis.set_ylim(len(places) - 0.4, -0.6)
  # A t interval over two bases can be wider than the whole scale: it is cut at the edge, the table has the numbers.
  bounds = [100 * row[side] for row in rows for side in ("low", "high")] + [0.0]
  wider = [100 * row[side] for row in rows for side in ("t_low", "t_high") if math.isfinite(row[side])] + bounds
  room = 0.3 * (max(bounds) - min(bounds)) + 2
  axis.set_xlim(max(min(wider) - 2, min(bounds) - room), min(max(wider) + 2, max(bounds) + room))
  axis.set_xlabel("percentage points")
  return figure
