"""Distance and rotation by layer and part of the model, a line a run or method, in one figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sftrl_jax.report.figures import style
from sftrl_jax.report.figures.rows import Row
from sftrl_jax.report.weights.rows import PARTS, mean

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

STACKED = ("attention", "mlp", "vision")   # that have a panel over the layers; the others share a last one
MEASURES = {"relative": "distance / norm", "rotation": "rotation (degrees)"}
COLUMNS = 4   # entries in a line of the key, about


def weights(rows: Sequence[Row], labels: Mapping[str, str], colours: Mapping[str, str]) -> Figure:
  """Above the distance, below the mean of left and right rotation: a panel a part, a line a group.

  rows: of rows.by_layer; thin: single bases, thick: their mean. labels, colours: {group: ...} in the order of the key
  """
  rows = [{**row, "rotation": mean((row["left"], row["right"]))} for row in rows]
  panels = [part for part in STACKED if any(row["part"] == part for row in rows)]
  others = [part for part in PARTS if part not in STACKED and any(row["part"] == part for row in rows)]
  columns = len(panels) + bool(others)
  entries = _key(labels, colours)
  lines = -(-len(entries) // COLUMNS)
  figure, axes = style.new_figure(len(MEASURES), columns, height=4.4 + 0.2 * lines, sharey="row")
  for index, (measure, title) in enumerate(MEASURES.items()):
    axes[index, 0].set_ylabel(title)
    top = max((row[measure] for row in rows if math.isfinite(row[measure])), default=0.0)
    for axis, part in zip(axes[index], [*panels, ""][:columns], strict=True):
      axis.set_ylim(0, 1.08 * top or 1)
      if index == 0:
        style.title(axis, PARTS.get(part, "other parts"))
      _panel(axis, rows, measure, [part] if part else others, colours)
  for axis, part in zip(axes[-1], [*panels, ""][:columns], strict=True):
    axis.set_xlabel("layer" if part else "")
  style.key(figure, entries)
  return figure


def _key(labels: Mapping[str, str], colours: Mapping[str, str]) -> list[tuple[str, str, str, float]]:
  """Groups by colour; those that share one are counted."""
  shared = {}
  for group, label in labels.items():
    shared.setdefault(colours[group], []).append(label)
  return [(names[0] if len(names) == 1 else f"{len(names)} methods", colour, "-", 3)
          for colour, names in shared.items()]


def _panel(axis: Axes, rows: Sequence[Row], measure: str, parts: Sequence[str], colours: Mapping[str, str]) -> None:
  """One part over its layers, or several parts without layers beside one another."""
  layered = parts[0] in STACKED
  panel_rows = [row for row in rows if row["part"] in parts and math.isfinite(row[measure])]
  for group, base in dict.fromkeys((row["group"], row["base"]) for row in panel_rows):
    own = [row for row in panel_rows if (row["group"], row["base"]) == (group, base)]
    if layered:
      xs, ys = [row["layer"] + 1 for row in own], [row[measure] for row in own]
    else:
      xs = [place for place, part in enumerate(parts) if any(row["part"] == part for row in own)]
      ys = [mean(row[measure] for row in own if row["part"] == parts[place]) for place in xs]
    thick = base == "mean"
    axis.plot(xs, ys, color=colours[group], linestyle="-" if layered else "", linewidth=2.2 if thick else 0.8,
              marker="o" if thick or not layered else None, markersize=4.5 if thick else 2.5,
              alpha=1 if thick else 0.4, zorder=3 if thick else 2, clip_on=False)
  if layered:
    layers = sorted({row["layer"] + 1 for row in panel_rows})
    axis.set_xticks(layers if len(layers) <= 8 else layers[:: -(-len(layers) // 6)])
  else:
    axis.set_xticks(range(len(parts)), [PARTS[part].replace(", ", ",\n") for part in parts])
    axis.set_xlim(-0.5, len(parts) - 0.5)
