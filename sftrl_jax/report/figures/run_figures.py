"""Figures of single runs: success by variant, metrics as small multiples, time by phase.

`named_runs` is [(name, Run)]; rows have the column "run" with that name. `colours` is {name: colour}.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sftrl_jax.report.figures import style
from sftrl_jax.report.figures.rows import Row, verdict_shares
from sftrl_jax.report.figures.study_figures import ceiling, hide_inner_labels, lines_of, success_grid
from sftrl_jax.report.labels import EMA, EnvLabels, VerdictGroup, seconds_text, temperature_label
from sftrl_jax.report.records import Run

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# Metrics that get a panel, in reading order; a run shows those that it wrote.
METRICS = {
    "loss": "loss", "eval/loss": "loss on held-out rows", "mean_token_accuracy": "token accuracy", "entropy": "entropy",
    "objective/scores": "reward an episode", "objective/gold": "gold reward an episode",
    "success": "training success", "objective/kl": "KL from the reference",
    "policy/approxkl_avg": "KL of an update", "policy/clipfrac_avg": "share clipped", "policy/entropy_avg": "entropy",
    "critic/vf_explained_var": "explained variance of values", "loss/policy_avg": "policy loss",
    "loss/value_avg": "value loss", "val/ratio": "ratio", "response_length/mean": "response tokens",
    "grad_norm": "gradient norm", "learning_rate": "learning rate",
    "sampling/sampling_logp_difference/mean": "sampler's logprob gap"}
PHASES = ("rollout", "verify", "score", "update")
PHASE_COLOURS = {"rollout": "#2B6CB0", "verify": "#319795", "score": "#B7791F", "update": "#D1622B", "other": "#C9CDD3"}
PANELS_A_ROW = 3


def success_rows(named_runs: Iterable[tuple[str, Run]]) -> list[Row]:
  """Success of runs by evaluation, with its 95% interval."""
  return [{"run": name, "variant": e.variant, "temperature": e.temperature, "step": e.step, "flops": e.flops,
           "success": e.success, "low": e.low, "high": e.high}
          for name, run in named_runs for e in sorted(run.evaluations, key=lambda e: e.step)]


def _x_column(rows: Sequence[Row]) -> str:
  """FLOPs if they were counted, else steps."""
  return "flops" if any(row["flops"] > 0 for row in rows) else "step"


def _style_x(axis: Axes, rows: Sequence[Row], x: str) -> None:
  if x == "flops":
    style.flops_axis(axis, max(row["flops"] for row in rows))
  else:
    axis.set_xlabel("step")


def success_of_run(rows: Sequence[Row], colour: str, labels: EnvLabels) -> Figure:
  """One run: a panel a temperature, a line a variant, bars the Wilson interval over episodes."""
  temperatures, x = sorted({row["temperature"] for row in rows}), _x_column(rows)
  figure, axes = style.new_figure(1, len(temperatures), height=3.2, sharey=True)
  for axis, temperature in zip(axes.flat, temperatures, strict=True):
    style.rate_axis(axis, top=ceiling([row["success"] for row in rows]))
    _style_x(axis, rows, x)
    style.title(axis, temperature_label(temperature))
    end_labels = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
      line = [row for row in rows if (row["variant"], row["temperature"]) == (variant, temperature)]
      if line:
        xs, ys = [row[x] for row in line], [row["success"] for row in line]
        bars = [[max(0, row["success"] - row["low"]) if math.isfinite(row["low"]) else 0 for row in line],
                [max(0, row["high"] - row["success"]) if math.isfinite(row["high"]) else 0 for row in line]]
        # A bar in the line's dashes would look broken, so it is drawn apart.
        ink = style.MORE[0] if variant.startswith(EMA) else colour
        axis.errorbar(xs, ys, yerr=bars, fmt="none", ecolor=ink, elinewidth=1, alpha=0.45)
        axis.plot(xs, ys, color=ink, linestyle=style.line_of(variant), linewidth=2, marker="o", markersize=3.5,
                  clip_on=False)   # else what is at 100% is cut in half
        end_labels.append((xs[-1], ys[-1], labels.variant(variant), ink))
    style.end_labels(axis, end_labels)
  axes[0, 0].set_ylabel("success")
  return figure


def success_of_runs(rows: Sequence[Row], colours: Mapping[str, str], labels: EnvLabels) -> Figure:
  """Several runs over one another: a row of panels a temperature, a panel a variant, a colour a run."""
  x = _x_column(rows)
  figure, panels = success_grid(rows, {row["variant"]: labels.variant(row["variant"]) for row in rows}, 0.7, 2.5)
  for axis, variant, panel_rows in panels:
    _style_x(axis, rows, x)
    for (name,), (xs, ys) in lines_of(panel_rows, x, "success", "run").items():
      axis.plot(xs, ys, color=colours[name], linestyle=style.line_of(variant), linewidth=1.8, marker="o", markersize=3,
                clip_on=False)
  hide_inner_labels(figure)
  _run_key(figure, colours)
  return figure


def metric_rows(named_runs: Iterable[tuple[str, Run]], most: int = 1500) -> list[Row]:
  """The METRICS that runs wrote: rows of run, metric, step, value; long runs are thinned to `most` points a metric."""
  rows = []
  for name, run in named_runs:
    for metric in METRICS:
      steps, values = run.column(metric)
      kept = np.isfinite(steps) & np.isfinite(values)
      steps, values = steps[kept], values[kept]
      stride = max(1, -(-len(steps) // most))
      rows += [{"run": name, "metric": metric, "step": float(x), "value": float(y)}
               for x, y in zip(steps[::stride], values[::stride], strict=True)]
  return rows


def smooth(values: np.ndarray, window: int) -> np.ndarray:
  """A centred moving average of an odd window, over fewer values at the ends."""
  ones = np.ones(window)
  return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def metrics(rows: Sequence[Row], colours: Mapping[str, str]) -> Figure:
  """Small multiples, three a row; noisy lines are drawn thin under their moving average."""
  names = [metric for metric in METRICS if any(row["metric"] == metric for row in rows)]
  lines = -(-len(names) // PANELS_A_ROW)
  figure, axes = style.new_figure(lines, PANELS_A_ROW, height=(0.5 if len(colours) > 1 else 0) + 1.75 * lines)
  for axis, metric in zip(axes.flat, names):  # noqa: B905 (the last line of panels may not be full)
    style.title(axis, METRICS[metric])
    panel_rows = [row for row in rows if row["metric"] == metric]
    for (run,), (steps, values) in lines_of(panel_rows, "step", "value", "run").items():
      window = len(steps) // 25 * 2 + 1
      if window > 1:
        axis.plot(steps, values, color=colours[run], linewidth=0.6, alpha=0.3)
      axis.plot(steps, smooth(np.array(values), window), color=colours[run], linewidth=1.5,
                marker="o" if len(steps) < 3 else None, markersize=3)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axis.locator_params(nbins=4)
    levels = [row["value"] for row in panel_rows]
    if max(levels) == min(levels):
      axis.set_ylim(*sorted((0, 2 * levels[0] or 1)))
  for axis in axes.flat[len(names):]:
    axis.set_visible(False)
  for axis in axes.flat[max(0, len(names) - PANELS_A_ROW):len(names)]:
    axis.set_xlabel("step")
  if len(colours) > 1:
    _run_key(figure, colours)
  return figure


def _run_key(figure: Figure, colours: Mapping[str, str]) -> None:
  """Names of runs by colour; runs that share a colour (too many for one each) are counted by verb."""
  shared = {}
  for name, colour in colours.items():
    shared.setdefault(colour, []).append(name)
  verbs = {colour: verb for verb, colour in style.COLOUR_OF_VERB.items()}
  entries = [(names[0] if len(names) == 1 else f"{len(names)} {verbs[colour]} runs", colour, "-", 3)
             for colour, names in shared.items()]
  style.key(figure, entries)


def time_rows(run: Run) -> list[Row]:
  """Seconds by phase over the whole run, with what no phase accounts for as "other"; [] if none was written."""
  totals = {}
  for phase in (*PHASES, "step"):
    _, values = run.column(f"timing_s/{phase}")
    if np.isfinite(values).any():
      totals[phase] = float(np.nansum(values))
  step = totals.pop("step", 0.0)
  rest = step - sum(totals.values())
  if step and rest > 0.005 * step:
    totals["other"] = rest
  whole = sum(totals.values())
  return [{"phase": phase, "seconds": value, "share": value / whole} for phase, value in totals.items() if whole]


def time(rows: Sequence[Row]) -> Figure:
  """One stacked bar of the run's time."""
  figure, axes = style.new_figure(1, 1, height=1.25)
  axis, left = axes[0, 0], 0.0
  axis.grid(visible=False)
  for row in rows:
    axis.barh(0, row["share"], left=left, color=PHASE_COLOURS[row["phase"]], height=0.6, edgecolor="white")
    if row["share"] >= 0.07:
      axis.text(left + row["share"] / 2, 0, f"{100 * row['share']:.0f}%", ha="center", va="center", fontsize=8,
                color=style.INK if row["phase"] == "other" else "white")
    left += row["share"]
  axis.set_yticks([])
  style.rate_axis(axis, "x", 1.0)
  style.key(figure, [(f"{row['phase']} {seconds_text(row['seconds'])}", PHASE_COLOURS[row["phase"]], "-", 6)
                     for row in rows])
  return figure


def verdict_rows(run: Run, groups: Sequence[VerdictGroup]) -> list[Row]:
  """First-attempt verdicts at the first and last evaluation of the lowest temperature (rows.verdict_groups)."""
  rows, lowest = [], min((e.temperature for e in run.evaluations), default=0.0)
  for variant in dict.fromkeys(e.variant for e in run.evaluations):
    curve = run.curve(variant, lowest)
    ends = dict(zip(("start", "end"), (curve[0], curve[-1]) if len(curve) > 1 else curve, strict=False))
    for name, evaluation in ends.items():
      shares = verdict_shares(evaluation, groups)
      if shares is not None:
        rows += [{"variant": variant, "temperature": lowest, "group": name, "verdict": group.label,
                  "share": float(share)} for group, share in zip(groups, shares, strict=True)]
  return rows
