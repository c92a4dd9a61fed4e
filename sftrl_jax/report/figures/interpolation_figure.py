"""Success of weights between the start of a run and its end, by share of the way."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftrl_jax.report.figures import study_figures, style
from sftrl_jax.report.figures.rows import Row
from sftrl_jax.report.labels import EnvLabels, temperature_label
from sftrl_jax.report.read_workdir import read_json, read_labels
from sftrl_jax.report.records import number

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def draw(lines: Sequence[Mapping[str, Any]], home: pathlib.PurePath, out: pathlib.PurePath) -> pathlib.PurePath:
  """Writes interpolation.png and .csv into `out`; returns the path of the .png.

  lines: of evals.jsonl, each with its `share`. home: the workdir of the run
  """
  from sftrl_jax import paths
  rows = interpolation_rows(lines)
  verb = str(read_json(home / "config.json").get("verb", ""))
  drawing = interpolation(rows, style.verb_colour(verb), read_labels(home / "labels.json"))
  with paths.staging(out / "figure") as folder:
    study_figures.save(drawing, rows, folder / "interpolation.png")
  return out / "figure" / "interpolation.png"


def interpolation_rows(lines: Sequence[Mapping[str, Any]]) -> list[Row]:
  """Rows of share, variant, temperature, success, low, high; `success` is the mean score of an episode, without an
  interval, where nobody says which responses are right."""
  rows = []
  for line in sorted(lines, key=lambda line: line["share"]):
    verifies = line.get("verifies", True)
    score = number(line.get("proxy", line.get("reward")))
    low, high = map(number, line["ci95"]) if verifies else (math.nan, math.nan)
    rows.append({"share": float(line["share"]), "variant": str(line["variant"]),
                 "temperature": float(line["temperature"]), "measure": "success" if verifies else "score",
                 "success": number(line["success"]) if verifies else score, "low": low, "high": high})
  return rows


def interpolation(rows: Sequence[Row], colour: str, labels: EnvLabels) -> Figure:
  """A panel a temperature, a line a variant, bars the 95% interval over episodes."""
  temperatures = sorted({row["temperature"] for row in rows})
  figure, axes = style.new_figure(1, len(temperatures), height=3.2, sharey=True)
  scored = rows[0]["measure"] == "score"
  for axis, temperature in zip(axes.flat, temperatures, strict=True):
    panel_rows = [row for row in rows if row["temperature"] == temperature]
    if not scored:
      style.rate_axis(axis, top=study_figures.ceiling([row["high"] for row in rows]))
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("share of the way from the start to the end")
    style.title(axis, temperature_label(temperature))
    ends = []
    for variant in dict.fromkeys(row["variant"] for row in panel_rows):
      own = [row for row in panel_rows if row["variant"] == variant]
      xs, ys = [row["share"] for row in own], [row["success"] for row in own]
      if not scored:
        axis.errorbar(xs, ys, yerr=[[max(0.0, row["success"] - row["low"]) for row in own],
                                    [max(0.0, row["high"] - row["success"]) for row in own]],
                      fmt="none", ecolor=colour, elinewidth=1, alpha=0.45)
      axis.plot(xs, ys, color=colour, linestyle=style.line_of(variant), linewidth=2, marker="o", markersize=3.5,
                clip_on=False)
      ends.append((xs[-1], ys[-1], labels.variant(variant), colour))
    style.end_labels(axis, ends)
  axes[0, 0].set_ylabel("score of an episode" if scored else "success")
  return figure
