"""The chapter of a report on what changed in the weights: of one run by part, of a study by method."""

import math
import pathlib
from collections.abc import Mapping, Sequence

from sftrl_jax.report.figures import study_figures, style
from sftrl_jax.report.labels import percent
from sftrl_jax.report.pages.blocks import Block, Heading, Picture, Table
from sftrl_jax.report.pages.study_page import Chapter
from sftrl_jax.report.records import Run, Study
from sftrl_jax.report.weights import figure
from sftrl_jax.report.weights.rows import MEASURES, PARTS, WHOLE, by_layer, by_part, mean, read, study_rows

MOST_COLOURS = 2 + len(style.MORE)
TITLE = "What changed in the weights"
HEADER = ("distance", "relative", "moved", "singular values", "left rotation", "right rotation")
MEANING = ("Distance: L2 from the start's weights, relative: of their norm. Moved: numbers that changed by more than a "
           "thousandth of their size. Singular values: L2 change, of their norm. Rotation: mean principal angle in "
           "degrees between the subspaces of the leading fifth of the left (right) singular vectors, before and after")


def run_blocks(run: Run, out: pathlib.Path) -> list[Block]:
  """A table by part, and the figure; [] for a run without weights.json."""
  rows = read(run.directory)
  if not rows:
    return []
  table = [({**PARTS, WHOLE: "all"}[part], *(_text(name, values[name]) for name in MEASURES))
           for part, values in by_part(rows).items()]
  drawn = by_layer(rows, run.name)
  drawing = figure.weights(drawn, {run.name: run.name}, {run.name: style.verb_colour(run.verb)})
  return [Heading(TITLE), Table(("part", *HEADER), tuple(table), f"{MEANING}; means over matrices."),
          Picture(study_figures.save(drawing, drawn, out / "weights.png"), (
              "Distance from the start, of the norm at the start, and rotation (mean of left and right), by layer."))]


def study_blocks(chapter: Chapter) -> list[Block]:
  """A row a method, and the figure over layers; [] for a study without weights.json."""
  study, table = chapter.study, study_rows(chapter.study)
  if not table:
    return []
  drawn = []
  for method, bases in table.items():
    of_bases = [row for base, runs in bases.items() for row in averaged([by_layer(rows) for rows in runs], method,
                                                                        f"base-{base}")]
    drawn += [*averaged([[row for row in of_bases if row["base"] == f"base-{base}"] for base in bases], method, "mean"),
              *of_bases]
  colours = _colours(study, chapter.colours)
  labels = {method: study.methods[method] for method in table}
  drawing = figure.weights(drawn, labels, colours)
  most = max(map(len, table.values()))
  return [
      Heading(TITLE),
      Table(("method", "bases", *HEADER), tuple(_method_row(study, method, bases) for method, bases in table.items()),
            f"{MEANING}; means over matrices, seeds and bases, in brackets the least and the most of a base."),
      Picture(study_figures.save(drawing, drawn, chapter.out / "weights.png"), (
          "Distance from the start, of the norm at the start, and rotation (mean of left and right), by layer"
          + ("; thin lines and small dots: bases; thick: their mean." if most > 1 else ".")
          + (" Orange: SFT; the .csv tells the methods apart." if len(study.methods) > MOST_COLOURS else "")))]


def _method_row(study: Study, method: str, bases: Mapping[int, Sequence]) -> tuple[str, ...]:
  wholes = {base: [by_part(rows)[WHOLE] for rows in runs] for base, runs in bases.items()}
  cells = []
  for name in MEASURES:
    values = [value for value in (mean(whole[name] for whole in runs) for runs in wholes.values())
              if math.isfinite(value)]
    spread = f" [{_text(name, min(values))} to {_text(name, max(values))}]" if len(values) > 1 else ""
    cells.append(_text(name, mean(values)) + spread)
  return (study.methods[method], str(len(bases)), *cells)


def averaged(tables: Sequence[Sequence[dict]], group: str, base: str) -> list[dict]:
  """The mean of rows.by_layer of several runs, by part and layer."""
  places = list(dict.fromkeys((row["part"], row["layer"]) for rows in tables for row in rows))
  return [{"group": group, "base": base, "part": part, "layer": layer, **{name: mean(
      row[name] for rows in tables for row in rows if (row["part"], row["layer"]) == (part, layer))
      for name in MEASURES}} for part, layer in places]


def _colours(study: Study, colours: Mapping[str, str]) -> Mapping[str, str]:
  """Those of the methods; of their verbs where there are more methods than colours."""
  if len(study.methods) <= MOST_COLOURS:
    return colours
  return {method: style.verb_colour(run.verb) for (_, method, _), run in study.runs.items()}


def _text(name: str, value: float) -> str:
  if not math.isfinite(value):
    return "–"
  if name in ("left", "right"):
    return f"{value:.1f}°"
  return f"{value:.3g}" if name == "distance" else percent(value)
