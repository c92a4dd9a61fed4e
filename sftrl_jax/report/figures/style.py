"""How figures look: colours, lines, axes and labels. Colour = method, line = distribution; the same in every figure.

matplotlib is imported inside the functions that draw, so that reading a study costs nothing more than numpy.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sftrl_jax.report.labels import EMA, plot_text

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

SFT = "#D1622B"
RL = "#2B6CB0"
COLOUR_OF_VERB = {"sft": SFT, "rl": RL}
START = "#8A8F98"
MORE = ("#2F855A", "#805AD5", "#B7791F", "#C53030", "#2C7A7B", "#97266D", "#4A5568")
INK = "#23272E"
GRID = "#E3E6EA"
KEY_SIZE = 8.5      # points
MARKER = 3.5        # points
CHARACTER = 0.035   # width of a character of a label, as a share of a panel's


def verb_colour(verb: str) -> str:
  """The colour of runs of a verb; a verb of another version has that of RL."""
  return COLOUR_OF_VERB.get(verb, RL)


def line_of(variant: str, in_distribution: Collection[str] = ("id_seen", "id")) -> Any:
  """A matplotlib line style: solid in distribution, dashed shifted, dotted held out.

  in_distribution: variants of training; where none of them is called id, as after a change of the rule, id is a shift
  """
  variant = variant.removeprefix(EMA)   # the average of the parameters has the line of the parameters
  usual = any(name.startswith("id") for name in in_distribution)
  if variant in in_distribution or (usual and variant.startswith("id_seen")):
    return "-"
  return (0, (1, 1.4)) if usual and variant.startswith("id") else (0, (5, 2))


def method_colours(methods: Iterable[str], reference: str) -> dict[str, str]:
  """Colour by method name: the reference (SFT) orange, the first after it blue, further ones from a fixed list."""
  rest = itertools.cycle((RL, *MORE))
  return {method: SFT if method == reference else next(rest) for method in methods}


def new_figure(rows: int, columns: int, width: float = 7.4, height: float = 3.0,
               **options) -> tuple[Figure, np.ndarray]:
  """A Figure of `width` x `height` inches and its Axes [rows, columns], on the Agg canvas (no display, no pyplot)."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  from matplotlib.layout_engine import ConstrainedLayoutEngine
  margins = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)  # inches: labels at line ends reach the margin
  figure = Figure(figsize=(width, height), layout=margins, facecolor="white")
  FigureCanvasAgg(figure)
  axes = figure.subplots(rows, columns, squeeze=False, **options)
  for axis in axes.flat:
    _style_axis(axis)
  return figure, axes


def new_panels(count: int, margin: float, line_height: float, groups: int = 1) -> tuple[Figure, list[list[Axes]]]:
  """A Figure with `count` panels of one y axis for each group, and the panels of each group.

  At most three stand side by side, for what stands over and under a panel is wider than it. A group begins a line.

  margin, line_height: inches of the figure's height, once and for each line of panels
  """
  columns = count if count < 4 else 2 if count == 4 else 3
  lines = -(-count // columns)
  figure, axes = new_figure(groups * lines, columns, height=margin + line_height * groups * lines, sharey=True)
  panels = [list(of_group.flat) for of_group in np.split(axes, groups)]
  for of_group in panels:
    for axis in of_group[count:]:
      axis.remove()
  return figure, [of_group[:count] for of_group in panels]


def is_lowest(axis: Axes) -> bool:
  """Whether no panel of the figure stands below this one."""
  places = [panel.get_subplotspec() for panel in axis.figure.axes]
  own = axis.get_subplotspec()
  return not any(place.colspan.start == own.colspan.start and place.rowspan.start > own.rowspan.start
                 for place in places)


def _style_axis(axis: Axes) -> None:
  axis.set_axisbelow(True)
  axis.grid(axis="y", color=GRID, linewidth=0.8)
  for side in ("top", "right", "left"):
    axis.spines[side].set_visible(False)
  axis.spines["bottom"].set_color("#9AA1AB")
  axis.tick_params(colors="#4A5058", labelsize=8, length=3, color="#9AA1AB")
  axis.tick_params(axis="y", length=0)
  axis.xaxis.label.set(size=8.5, color=INK)
  axis.yaxis.label.set(size=8.5, color=INK)


def title(axis: Axes, text: str, width: int = 80) -> None:
  """Writes the title of a panel in lines of at most `width` characters."""
  axis.set_title(textwrap.fill(plot_text(text, 80), width), loc="left", fontsize=9.5, color=INK, pad=7)


def rate_axis(axis: Axes, which: str = "y", top: float = 1.0, intervals: int = 5) -> None:
  """Makes the axis `which` one of rates: from 0 to `top`, printed as percentages. intervals: between ticks, at most"""
  from matplotlib.ticker import MaxNLocator, PercentFormatter
  target = getattr(axis, f"{which}axis")
  target.set_major_formatter(PercentFormatter(1.0, decimals=0))
  target.set_major_locator(MaxNLocator(intervals, steps=[1, 2, 2.5, 5, 10]))
  getattr(axis, f"set_{which}lim")(0, top)


def flops_axis(axis: Axes, largest: float) -> None:
  """Makes x an axis of FLOPs from 0 to `largest` in a unit of short numbers; linear, as every curve starts at 0."""
  from matplotlib.ticker import FuncFormatter, MaxNLocator
  units = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))
  scale, unit = next(((s, u) for s, u in units if largest >= 0.5 * s), (1.0, "FLOP"))
  axis.xaxis.set_major_locator(MaxNLocator(5))
  axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g}"))
  axis.set_xlabel(f"post-training compute ({unit})")
  axis.set_xlim(-0.02 * largest if largest else -0.02, 1.02 * largest if largest else 1.0)


def updates_axis(axis: Axes, largest: float) -> None:
  """Makes x an axis of updates from 0 to `largest`, linear as that of FLOPs."""
  from matplotlib.ticker import FuncFormatter, MaxNLocator
  axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
  axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
  axis.set_xlabel("updates of post-training")
  axis.set_xlim(-0.02 * largest if largest else -0.02, 1.02 * largest if largest else 1.0)


def end_labels(axis: Axes, labels: Iterable[tuple[float, float, str, str]], gap: float = 0.06,
               lines: Sequence[tuple[Sequence[float], Sequence[float]]] = ()) -> None:
  """Text at line ends instead of a legend: `labels` holds (x, y, text, colour).

  Labels that would touch are moved apart, to `gap` of the axis's height. Where a line ends inside the panel, its label
  stands as far below as the other `lines`, (xs, ys) of each, leave room.
  """
  bottom, top = axis.get_ylim()
  step = gap * (top - bottom)
  ordered = sorted(labels, key=lambda label: label[1])
  heights = []
  for _, y, _, _ in ordered:
    heights.append(max(y, heights[-1] + step) if heights else y)
  shift = max(0.0, heights[-1] - (top - 0.3 * step)) if heights else 0.0
  for index in reversed(range(len(heights))):
    ceiling = heights[index + 1] - step if index + 1 < len(heights) else math.inf
    heights[index] = min(heights[index] - (shift if index == len(heights) - 1 else 0.0), ceiling)
  from matplotlib.patheffects import withStroke
  halo = [withStroke(linewidth=2.5, foreground="white")]   # where a line ends early, others pass behind its label
  heights = [free_height(axis, x, height, text, step, lines) for (x, _, text, _), height in zip(
      ordered, heights, strict=True)]
  for (x, _, text, colour), height in zip(ordered, heights, strict=True):
    axis.annotate(plot_text(text, 24), (x, height), xytext=(6, 0), textcoords="offset points", color=colour,
                  fontsize=8.5, va="center", fontweight="bold", annotation_clip=False, path_effects=halo, zorder=5)


def free_height(axis: Axes, x: float, height: float, text: str, step: float,
                lines: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
  """The first of `height`, `height - step`, ... at which no line passes behind a label that begins right of x; `height`
  where x is at the panel's right edge, or where there is no room."""
  left, right = axis.get_xlim()
  begin, width = x + 0.005 * (right - left), CHARACTER * len(text) * (right - left)
  if begin + width > right:
    return height
  at = np.linspace(begin, begin + width, 9)
  passing = [np.interp(at, xs, ys, left=np.nan, right=np.nan) for xs, ys in lines if len(xs) > 1]
  for place in np.arange(height, axis.get_ylim()[0] + step, -step / 2):
    if not any((np.abs(ys - place) < 0.6 * step).any() for ys in passing):
      return float(place)
  return height


def key(figure: Figure, entries: Sequence[tuple]) -> None:
  """One legend above the panels, in as few lines as fit. entries: (text, colour, line style, width[, marker])"""
  from matplotlib.lines import Line2D
  handles = [Line2D([], [], color=colour, linestyle=line, linewidth=width, marker=marker[0] if marker else "",
                    markersize=MARKER) for _, colour, line, width, *marker in entries]
  texts = [plot_text(entry[0]) for entry in entries]
  widths = [(4.6 + 0.56 * len(text)) * KEY_SIZE / 72 for text in texts]   # inches, with the line and the gaps
  room = figure.get_figwidth() - 0.2
  fits = lambda columns: sum(map(max, np.array_split(widths, columns))) <= room   # so does matplotlib fill them
  columns = next(filter(fits, range(len(entries), 1, -1)), 1)
  figure.legend(handles, texts, loc="outside upper left", ncols=columns, frameon=False, fontsize=KEY_SIZE,
                handlelength=2.2, columnspacing=1.6)
