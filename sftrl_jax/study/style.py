"""How the study looks: colours, words for variants, numbers with units, axes.

Colour = method, line = distribution (solid in, dashed shifted); the same in every figure. matplotlib is imported inside
the functions that draw, so that reading a study costs nothing more than numpy.
"""

import itertools
import math
import unicodedata

SFT = "#D1622B"
RL = "#2B6CB0"
START = "#8A8F98"
MORE = ("#2F855A", "#805AD5", "#B7791F", "#C53030", "#2C7A7B", "#97266D", "#4A5568")
INK = "#23272E"
GRID = "#E3E6EA"

# GeneralPoints' verdicts as they are stacked, from right to wrong: label, colour, the codes it holds.
CODES = (
  ("correct", "#3F8F63", ("correct",)),
  ("wrong value", "#E0B35A", ("value",)),
  ("wrong numbers", "#B5523B", ("numbers", "misread")),
  ("illegal format", "#6B7280", ("illegal",)),
)
OTHER_CODES = ("other", "#C9CDD3", ())
LIGHT = ("#E0B35A", "#C9CDD3")  # on which words are dark
RIGHT, WRONG = "#3F8F63", ("#B5523B", "#E0B35A", "#6B7280", "#805AD5", "#2C7A7B", "#97266D", "#2B6CB0")

VARIANTS = {
  "id_seen": "ID, seen pairs",
  "id_unseen": "ID, held-out pairs",
  "rule_ood": "OOD, new rule",
  "visual_ood": "OOD, new pictures",
}


def variant_label(variant):
  """What a reader calls a variant; unknown names stay as they are."""
  return VARIANTS.get(variant) or plain(variant, 40)


def verdicts(seen):
  """The stack for the codes that runs counted: CODES where it holds them all, else a colour a code, `correct` first."""
  seen = dict.fromkeys(seen)
  if {code for _, _, codes in CODES for code in codes}.issuperset(seen):
    return (*CODES, OTHER_CODES)
  right = [("correct", RIGHT, ("correct",))] if "correct" in seen else []
  wrong = zip((code for code in seen if code != "correct"), WRONG)  # noqa: B905 (codes without a colour are "other")
  return (*right, *((plain(code, 40), colour, (code,)) for code, colour in wrong), OTHER_CODES)


def temperature_label(temperature):
  return "greedy" if temperature == 0 else f"T={temperature:g}"


def plain(text, limit=4000):
  """Text of a run made safe to print anywhere: no control, bidi or surrogate characters, at most `limit` characters."""
  kept = []
  for character in str(text)[:limit]:
    odd = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") and character not in "\n\t"
    kept.append("\ufffd" if odd else character)
  return "".join(kept) + (" …" if len(str(text)) > limit else "")


def drawn(text, limit=40):
  """The same for matplotlib, which would read `$` as the start of a formula."""
  return plain(text, limit).replace("\n", " ").replace("$", r"\$")


def percent(rate):
  """A rate in [0, 1] as a percentage; a dash if there is none."""
  return "–" if not math.isfinite(rate) else f"{100 * rate:.1f}%"


def points(difference):
  """A difference of rates in signed percentage points."""
  return "–" if not math.isfinite(difference) else f"{100 * difference:+.1f}".replace("-", "−")


def points_range(low, high):
  return "–" if not (math.isfinite(low) and math.isfinite(high)) else f"{points(low)} to {points(high)}"


def count(number, word):
  """1 base, 2 bases."""
  return f"{number} {word}" if number == 1 else f"{number} {word}s"


def flops_text(flops):
  """FLOPs to three digits, e.g. 2.4e12."""
  return "–" if not math.isfinite(flops) else f"{flops:.3g}".replace("e+", "e")


def seconds_text(seconds):
  """Seconds for people: 42 s, 3 min 20 s, 2 h 5 min."""
  if not math.isfinite(seconds):
    return "–"
  whole = round(seconds)
  if whole < 60:
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
  return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


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
