"""What a reward model says of a run and what the environment says, over the KL from the start, in one figure.

The learned reward is the proxy of the gold reward: where it rises with the KL while the other falls, the policy learns
the reward model's errors (Gao et al. 2023).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sftrl_jax.report.figures import style
from sftrl_jax.report.figures.rows import Row
from sftrl_jax.report.figures.run_figures import smooth
from sftrl_jax.report.figures.study_figures import lines_of
from sftrl_jax.report.labels import EnvLabels
from sftrl_jax.report.records import Run, number

if TYPE_CHECKING:
  from matplotlib.figure import Figure

TRAINING = "training"
MARKERS = "osD^vP"   # of variants, whose lines may look alike
PANELS = {"proxy": "proxy: the reward model", "gold": "gold: the environment"}


def proxy_rows(run: Run) -> list[Row]:
  """Rows of source, step, kl, proxy, gold; gold is NaN where the environment gives no reward.

  source: "training", or a variant of the evaluations at temperature 1. kl: nats a response. [] without a reward model
  """
  rows = []
  for line in run.metrics:
    kl, turns = number(line.get("objective/kl")), number(line.get("num_turns/mean"))
    if "reward_model/score" in line:
      rows.append(_row(TRAINING, number(line.get("step")), kl / max(1.0, turns), line.get("objective/scores"),
                       line.get("objective/gold")))
  for e in sorted(run.evaluations, key=lambda e: e.step):
    if e.temperature == 1.0:
      rows.append(_row(e.variant, e.step, e.kl * e.response_length, e.proxy, e.gold))
  return [row for row in rows if math.isfinite(row["kl"]) and math.isfinite(row["proxy"])]


def _row(source: str, step: float, kl: float, proxy: float, gold: float) -> Row:
  return {"source": source, "step": float(step), "kl": kl, "proxy": number(proxy), "gold": number(gold)}


def proxy(rows: Sequence[Row], colour: str, labels: EnvLabels) -> Figure:
  """A panel for the proxy and, where there is one, for the gold reward: a line a source, in the order of its steps.

  Training is drawn as a moving average, evaluations with a mark each.
  """
  shown = [name for name in PANELS if any(math.isfinite(row[name]) for row in rows)]
  figure, axes = style.new_figure(1, len(shown), height=3.2)
  sources = dict.fromkeys(row["source"] for row in rows)
  markers = itertools.cycle(MARKERS)
  look = {source: (style.START, "-", 1.2, "") if source == TRAINING else (
      colour, style.line_of(source), 1.8, next(markers)) for source in sources}
  for axis, name in zip(axes.flat, shown, strict=True):
    style.title(axis, PANELS[name])
    axis.set_xlabel("KL from the start (nats a response)")
    there = [row for row in rows if math.isfinite(row[name])]
    for (source,), (xs, ys) in _by_step(there, name).items():
      trained, (ink, line, width, marker) = source == TRAINING, look[source]
      if trained:
        window = len(xs) // 25 * 2 + 1
        xs, ys = smooth(np.array(xs), window), smooth(np.array(ys), window)
      axis.plot(xs, ys, color=ink, linestyle=line, linewidth=width, clip_on=False, markersize=style.MARKER,
                marker="o" if trained and len(xs) == 1 else marker)
    axis.set_xlim(left=min(0.0, *(row["kl"] for row in there)))
  style.key(figure, [(source if source == TRAINING else labels.variant(source), *each)
                     for source, each in look.items()])
  axes[0, 0].set_ylabel("reward an episode")
  return figure


def _by_step(rows: Sequence[Row], name: str) -> dict[tuple, tuple[list, list]]:
  """{(source,): (KL, value)} in the order of steps, since the KL may go back."""
  return lines_of(sorted(rows, key=lambda row: row["step"]), "kl", name, "source")
