"""Figures of single runs: success by variant, metrics as small multiples, time by phase."""

import math

import numpy as np

from sftrl_jax.report import labels as report_labels
from sftrl_jax.report.figures import style
from sftrl_jax.report.figures.rows import code_shares
from sftrl_jax.report.figures.study_figures import ceiling, lines_of

# What is worth a panel, in reading order; a run shows those that it wrote.
METRICS = (
  ("loss", "loss"), ("eval/loss", "loss on held-out rows"), ("mean_token_accuracy", "token accuracy"),
  ("entropy", "entropy"),
  ("objective/scores", "reward an episode"), ("success", "training success"), ("objective/kl", "KL from the reference"),
  ("policy/approxkl_avg", "KL of an update"), ("policy/clipfrac_avg", "share clipped"),
  ("policy/entropy_avg", "entropy"), ("critic/vf_explained_var", "explained variance of values"),
  ("loss/policy_avg", "policy loss"), ("loss/value_avg", "value loss"), ("val/ratio", "ratio"),
  ("response_length/mean", "response tokens"), ("grad_norm", "gradient norm"), ("learning_rate", "learning rate"),
  ("sampling/sampling_logp_difference/mean", "sampler's logprob gap"),
)
PHASES = ("rollout", "verify", "score", "update")
PHASE_COLOURS = {"rollout": "#2B6CB0", "verify": "#319795", "score": "#B7791F", "update": "#D1622B", "other": "#C9CDD3"}


def success_rows(runs):
  """Success of runs by evaluation: [(name, Run)] -> rows of run, variant, temperature, step, flops, success, low,
  high.
  """
  return [{"run": name, "variant": e.variant, "temperature": e.temperature, "step": e.step, "flops": e.flops,
           "success": e.success, "low": e.low, "high": e.high}
          for name, run in runs for e in sorted(run.evaluations, key=lambda e: e.step)]


def axis_of(rows):
  """FLOPs if they were counted, else steps."""
  return "flops" if any(row["flops"] > 0 for row in rows) else "step"


def dress_x(axis, rows, x):
  if x == "flops":
    style.flops_axis(axis, max(row["flops"] for row in rows))
  else:
    axis.set_xlabel("step")


def success_of_run(rows, colour):
  """One run: a panel a temperature, a line a variant, bars the Wilson interval over episodes."""
  temperatures, x = sorted({row["temperature"] for row in rows}), axis_of(rows)
  figure, axes = style.new_figure(1, len(temperatures), height=3.2, sharey=True)
  for axis, temperature in zip(axes.flat, temperatures, strict=True):
    style.rate_axis(axis, top=ceiling([row["success"] for row in rows]))
    dress_x(axis, rows, x)
    style.title(axis, report_labels.temperature_label(temperature))
    labels = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
      mine = [row for row in rows if (row["variant"], row["temperature"]) == (variant, temperature)]
      if mine:
        xs, ys = [row[x] for row in mine], [row["success"] for row in mine]
        bars = [[max(0, row["success"] - row["low"]) if math.isfinite(row["low"]) else 0 for row in mine],
                [max(0, row["high"] - row["success"]) if math.isfinite(row["high"]) else 0 for row in mine]]
        # A bar in the line's dashes would look broken, so it is drawn apart.
        axis.errorbar(xs, ys, yerr=bars, fmt="none", ecolor=colour, elinewidth=1, alpha=0.45)
        axis.plot(xs, ys, color=colour, linestyle=style.line_of(variant), linewidth=2, marker="o", markersize=3.5)
        labels.append((xs[-1], ys[-1], report_labels.variant_label(variant), colour))
    style.end_labels(axis, labels)
  axes[0, 0].set_ylabel("success")
  return figure


def success_of_runs(rows, colours):
  """Several runs over one another: a row of panels a temperature, a panel a variant, a colour a run."""
  temperatures, x = sorted({row["temperature"] for row in rows}), axis_of(rows)
  variants = list(dict.fromkeys(row["variant"] for row in rows))
  figure, axes = style.new_figure(len(temperatures), len(variants), height=0.7 + 2.5 * len(temperatures), sharey=True)
  for panels, temperature in zip(axes, temperatures, strict=True):
    for axis, variant in zip(panels, variants, strict=True):
      style.rate_axis(axis, top=ceiling([row["success"] for row in rows]))
      dress_x(axis, rows, x)
      style.title(axis, f"{report_labels.variant_label(variant)} · {report_labels.temperature_label(temperature)}")
      mine = [row for row in rows if (row["variant"], row["temperature"]) == (variant, temperature)]
      for (name,), (xs, ys) in lines_of(mine, x, "success", "run").items():
        axis.plot(
          xs, ys, color=colours[name], linestyle=style.line_of(variant), linewidth=1.8, marker="o", markersize=3
        )
    panels[0].set_ylabel("success")
  for axis in axes[:-1].flat:
    axis.set_xlabel("")
  key(figure, colours)
  return figure


def metric_rows(runs, most=1500):
  """The metrics of METRICS that runs wrote: rows of run, metric, step, value; long runs are thinned to `most` lines."""
  rows = []
  for name, run in runs:
    for metric, _ in METRICS:
      steps, values = run.column(metric)
      kept = np.isfinite(steps) & np.isfinite(values)
      steps, values = steps[kept], values[kept]
      stride = max(1, -(-len(steps) // most))
      rows += [{"run": name, "metric": metric, "step": float(a), "value": float(b)}
               for a, b in zip(steps[::stride], values[::stride], strict=True)]
  return rows


def smooth(values, window):
  """A centred moving average of an odd window, with the ends averaged over what is there."""
  ones = np.ones(window)
  return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def metrics(rows, colours):
  """Small multiples, three a row; noisy lines are drawn thin under their moving average."""
  names = [metric for metric, _ in METRICS if any(row["metric"] == metric for row in rows)]
  lines = -(-len(names) // 3)
  figure, axes = style.new_figure(lines, 3, height=(0.5 if len(colours) > 1 else 0) + 1.75 * lines)
  told = dict(METRICS)
  for axis, metric in zip(axes.flat, names):  # noqa: B905 (the last line of panels may not be full)
    style.title(axis, told[metric])
    mine = [row for row in rows if row["metric"] == metric]
    for (run,), (steps, values) in lines_of(mine, "step", "value", "run").items():
      window = len(steps) // 25 * 2 + 1
      if window > 1:
        axis.plot(steps, values, color=colours[run], linewidth=0.6, alpha=0.3)
      axis.plot(steps, smooth(np.array(values), window), color=colours[run], linewidth=1.5,
                marker="o" if len(steps) < 3 else None, markersize=3)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axis.locator_params(nbins=4)
    level = [row["value"] for row in mine]
    if max(level) == min(level):
      axis.set_ylim(*sorted((0, 2 * level[0] or 1)))
  for axis in axes.flat[len(names):]:
    axis.set_visible(False)
  for axis in axes.flat[max(0, len(names) - 3):len(names)]:
    axis.set_xlabel("step")
  if len(colours) > 1:
    key(figure, colours)
  return figure


def key(figure, colours):
  """Names of runs by colour; runs that share a colour (too many for one each) are counted by verb."""
  shared = {}
  for name, colour in colours.items():
    shared.setdefault(colour, []).append(name)
  words = {style.SFT: "sft runs", style.RL: "rl runs"}
  entries = [
    (names[0] if len(names) == 1 else f"{len(names)} {words[colour]}", colour, "-", 3)
    for colour, names in shared.items()
  ]
  style.key(figure, entries, columns=min(4, len(entries)))


def time_rows(run):
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
  return (
    [{"phase": phase, "seconds": value, "share": value / whole} for phase, value in totals.items()] if whole else []
  )


def time(rows):
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
  style.key(
    figure,
    [(f"{row['phase']} {report_labels.seconds_text(row['seconds'])}", PHASE_COLOURS[row["phase"]], "-", 6) for row in rows],
  )
  return figure


def code_rows(run, stacked):
  """First-attempt verdicts at the first and last greedy evaluation, by a stack of them (series.stack)."""
  rows, greedy = [], min((e.temperature for e in run.evaluations), default=0.0)
  for variant in dict.fromkeys(e.variant for e in run.evaluations):
    curve = run.curve(variant, greedy)
    for group, evaluation in (
      (("start", curve[0]), ("end", curve[-1])) if len(curve) > 1 else (("start", curve[0]),) if curve else ()
    ):
      values = code_shares(evaluation, stacked)
      if values is not None:
        rows += [{"variant": variant, "temperature": greedy, "group": group, "verdict": name, "share": float(value)}
                 for (name, _, _), value in zip(stacked, values, strict=True)]
  return rows
