"""How figures look: colours, lines, axes and labels. Colour = method, line = distribution; the same in every figure.

matplotlib is imported inside the functions that draw, so that reading a study costs nothing more than numpy.
"""

import itertools
import math

from sftrl_jax.report.labels import drawn

SFT = "#D1622B"


RL = "#2B6CB0"


START = "#8A8F98"


MORE = ("#2F855A", "#805AD5", "#B7791F", "#C53030", "#2C7A7B", "#97266D", "#4A5568")


INK = "#23272E"


GRID = "#E3E6EA"


def line_of(variant, in_distribution=("id_seen",)):
  """Solid in distribution, dashed shifted, dotted held out."""
  if variant in in_distribution or variant.startswith("id_seen"):
    return "-"
  return (0, (1, 1.4)) if variant.startswith("id") else (0, (5, 2))


def method_colours(methods, reference):
  """Colour by method name: the reference (SFT) orange, the first other one blue, further ones from a fixed list."""
  rest = itertools.cycle((RL,) + MORE)
  return {method: SFT if method == reference else next(rest) for method in methods}


def new_figure(rows, columns, width=7.4, height=3.0, **options):
  """A matplotlib Figure and its axes [rows, columns] in the house style, on the Agg canvas (no display, no pyplot
  state).
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  from matplotlib.layout_engine import ConstrainedLayoutEngine
  margins = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)  # inches: words at line ends reach the margin
  figure = Figure(figsize=(width, height), layout=margins, facecolor="white")
  FigureCanvasAgg(figure)
  axes = figure.subplots(rows, columns, squeeze=False, **options)
  for axis in axes.flat:
    dress(axis)
  return figure, axes


def dress(axis):
  axis.set_axisbelow(True)
  axis.grid(axis="y", color=GRID, linewidth=0.8)
  for side in ("top", "right", "left"):
    axis.spines[side].set_visible(False)
  axis.spines["bottom"].set_color("#9AA1AB")
  axis.tick_params(colors="#4A5058", labelsize=8, length=3, color="#9AA1AB")
  axis.tick_params(axis="y", length=0)
  axis.xaxis.label.set(size=8.5, color=INK)
  axis.yaxis.label.set(size=8.5, color=INK)


def title(axis, text):
  axis.set_title(drawn(text, 80), loc="left", fontsize=9.5, color=INK, pad=7)


def rate_axis(axis, which="y", top=1.0):
  """An axis of rates: from 0 to `top`, printed as percentages."""
  from matplotlib.ticker import MaxNLocator, PercentFormatter
  target = getattr(axis, f"{which}axis")
  target.set_major_formatter(PercentFormatter(1.0, decimals=0))
  target.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
  getattr(axis, f"set_{which}lim")(0, top)


def flops_axis(axis, largest):
  """An x axis of FLOPs from 0 to `largest` in a unit that gives short numbers; linear, because every curve starts at
  0.
  """
  from matplotlib.ticker import FuncFormatter, MaxNLocator
  units = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))
  scale, unit = next(((s, u) for s, u in units if largest >= 0.5 * s), (1.0, "FLOP"))
  axis.xaxis.set_major_locator(MaxNLocator(5))
  axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g}"))
  axis.set_xlabel(f"post-training compute ({unit})")
  axis.set_xlim(-0.02 * largest if largest else -0.02, 1.02 * largest if largest else 1.0)


def end_labels(axis, labels, gap=0.06):
  """Words at line ends instead of a legend: `labels` holds (x, y, text, colour); those that would touch are moved
  apart.
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
  for (x, _, text, colour), height in zip(ordered, heights, strict=True):
    axis.annotate(drawn(text, 24), (x, height), xytext=(6, 0), textcoords="offset points", color=colour, fontsize=8.5,
                  va="center", fontweight="bold", annotation_clip=False)


def key(figure, entries, columns=None):
  """One legend above the panels: entries are (text, colour, line style, width)."""
  from matplotlib.lines import Line2D
  handles = [Line2D([], [], color=colour, linestyle=line, linewidth=width) for _, colour, line, width in entries]
  figure.legend(
    handles,
    [drawn(entry[0]) for entry in entries],
    loc="outside upper left",
    ncols=columns or len(entries),
    frameon=False,
    fontsize=8.5,
    handlelength=2.2,
    columnspacing=1.6,
  )
