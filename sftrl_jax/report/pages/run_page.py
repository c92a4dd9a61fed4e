"""The report of one run, and of several runs over one another, as blocks of page.py."""

import math

from sftrl_jax.report import labels, read_workdir
from sftrl_jax.report.figures import rows as figure_rows, run_figures, study_figures, style
from sftrl_jax.report.pages import alarms_box, transcripts
from sftrl_jax.report.pages.blocks import Bullets, Heading, Notice, Picture, Table, Text
from sftrl_jax.report.stats import alarms, flops_axis


def colour_of(run):
  return style.SFT if run.verb == "sft" else style.RL


def state(run):
  """What the run is and how far it came, alarms first."""
  blocks, skipped = alarms_box.alarms([(run.name, run)]), alarms.skipped(run)
  if skipped > 0:
    blocks.append(
      Notice("Steps were skipped", (f"{skipped:g} updates had a non-finite loss or gradient and were not applied.",))
    )
  if not run.finished:
    blocks.append(Notice("This run is not finished", (f"phase {run.phase or 'unknown'}, {run.done:.0%} done",)))
  account = flops_axis.account(run)
  rows = (
    ("verb", run.verb or "–"),
    ("algorithm", str(run.config.get("algorithm", "–"))),
    ("seed", str(run.config.get("seed", "–"))),
    ("start", str(run.config.get("start", "–"))),
    ("steps", f"{run.last('step', 0):g}"),
    ("time", labels.seconds_text(run.last("seconds"))),
    ("tokens", f"{run.last('tokens', 0):,.0f}"),
    (
      "FLOPs",
      f"{labels.flops_text(account['total'])} (training {labels.flops_text(account['train'])}, rollouts "
      f"{labels.flops_text(account['rollout'])}, scoring {labels.flops_text(account['score'])})",
    ),
  )
  return [*blocks, Table(("run", run.name), tuple((key, labels.plain(value, 200)) for key, value in rows))]


def evaluations(run, out):
  """Start and end by variant, and success against compute."""
  rows = run_figures.success_rows([(run.name, run)])
  if not rows:
    return [Text("This run has no evaluations (evals.jsonl is empty or absent).")]
  lines = []
  for variant in dict.fromkeys(row["variant"] for row in rows):
    for temperature in sorted({row["temperature"] for row in rows}):
      curve = run.curve(variant, temperature)
      if curve:
        first, last = curve[0], curve[-1]
        lines.append(
          (
            labels.variant_label(variant),
            labels.temperature_label(temperature),
            labels.percent(first.success),
            f"{labels.percent(last.success)} ({labels.percent(last.low)} to {labels.percent(last.high)})",
            labels.points(last.success - first.success),
            f"{last.episodes}",
            f"{last.attempts}",
            f"{last.kl:.3g}" if math.isfinite(last.kl) else "–",
          )
        )
  figure = run_figures.success_of_run(rows, colour_of(run))
  return [
    Heading("Success"),
    Picture(
      study_figures.save(figure, rows, out / "success.png"),
      "Success on each variant; bars are 95% Wilson intervals over episodes. They say nothing about other seeds or "
      "starts.",
    ),
    Table(("variant", "decoding", "start", "last (95%)", "change", "episodes", "attempts", "KL"), tuple(lines)),
  ]


def training(run, out):
  """Metrics and time."""
  blocks, rows = [], run_figures.metric_rows([(run.name, run)])
  if rows:
    figure = run_figures.metrics(rows, {run.name: colour_of(run)})
    blocks += [Heading("Training"), Picture(study_figures.save(figure, rows, out / "training.png"), (
      "What the run logged at each step; thin: as logged, thick: moving average."))]
  rows = run_figures.time_rows(run)
  if rows:
    blocks += [
      Heading("Time"),
      Picture(study_figures.save(run_figures.time(rows), rows, out / "time.png"), "Time by phase, whole run."),
    ]
  stacked = figure_rows.stack([run])
  rows = run_figures.code_rows(run, stacked)
  if rows:
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    figure = study_figures.codes(rows, variants, {"end": "end"}, stacked)
    blocks += [Heading("Verdicts"), Picture(study_figures.save(figure, rows, out / "codes.png"),
                                            "Verdicts of first attempts at the start and at the last evaluation, in "
                                            "percent.")]
  return blocks


def conversation(run):
  """One episode at the first and last evaluation: one whose outcome changed, on the last variant if there is one."""
  episodes = read_workdir.read_episodes(run.directory)
  best = ()
  for variant in dict.fromkeys(episode.variant for episode in episodes):
    mine = [episode for episode in episodes if episode.variant == variant]
    first, last = transcripts.by_seed(mine, False), transcripts.by_seed(mine, True)
    pairs = [(first[seed], last[seed]) for seed in sorted(first.keys() & last.keys())]
    changed = [pair for pair in pairs if pair[0].success != pair[1].success]
    best = (changed or pairs or [best])[0] if changed or not best else best
  if not best:
    return []
  return [
    Heading("One episode"),
    Text(
      f"Episode {best[0].seed} of {labels.variant_label(best[0].variant)}, greedy; picked because its "
      "outcome changed, where one did."
    ),
    transcripts.talks([("start", best[0]), ("last", best[1])]),
  ]


def configuration(run):
  rows = tuple((labels.plain(key, 80), labels.plain(value, 200)) for key, value in flops_axis.flat(run.config).items())
  return [Heading("Config"), Table(("key", "value"), rows)]


def names_of(runs):
  """A name for each run, with as much of the path as it takes to tell them apart."""
  parts = [run.directory.resolve().parts for run in runs]
  for depth in range(1, max(map(len, parts), default=1) + 1):
    names = ["/".join(each[-depth:]) for each in parts]
    if len(set(names)) == len(names):
      break
  return [labels.plain(name, 60) for name in names]


def overlay(runs, out):
  """Runs over one another: success, metrics, what differs in their configs."""
  named = list(zip(names_of(runs), runs, strict=True))
  palette = (style.RL, style.SFT) + style.MORE
  many = len(named) > len(palette)
  colours = {name: colour_of(run) if many else palette[index] for index, (name, run) in enumerate(named)}
  blocks, rows = alarms_box.alarms(named), run_figures.success_rows(named)
  if many:
    blocks.append(
      Text(
        f"{len(named)} runs are more than there are colours: orange is sft, blue is rl; the .csv beside each figure "
        "tells them apart."
      )
    )
  if rows:
    figure = run_figures.success_of_runs(rows, colours)
    blocks += [
      Heading("Success"),
      Picture(study_figures.save(figure, rows, out / "success.png"), "Success by variant and decoding."),
    ]
    blocks.append(ends(named))
  blocks += config_differences(named)
  rows = run_figures.metric_rows(named, most=600)
  if rows:
    figure = run_figures.metrics(rows, colours)
    blocks += [Heading("Training"), Picture(study_figures.save(figure, rows, out / "training.png"), "What each run logged.")]
  return blocks


def ends(named):
  columns = sorted({(e.temperature, e.variant) for _, run in named for e in run.evaluations})
  rows = []
  for name, run in named:
    cells = []
    for temperature, variant in columns:
      curve = run.curve(variant, temperature)
      cells.append(f"{labels.percent(curve[0].success)} → {labels.percent(curve[-1].success)}" if curve else "–")
    rows.append((name, labels.flops_text(flops_axis.account(run)["total"]), *cells))
  header = ("run", "FLOPs", *(f"{labels.variant_label(v)}, {labels.temperature_label(t)}" for t, v in columns))
  return Table(header, tuple(rows), "First and last evaluation of each run, at whatever compute it was given.")


def config_differences(named):
  """The keys in which configs differ: a column a run, or a list a key where there are too many runs for columns."""
  different = flops_axis.differing([run.config for _, run in named])
  if not different:
    return [Heading("Config differences"), Text("None: all configs are equal.")]
  if len(named) <= 4:
    rows = tuple((labels.plain(key, 60), *(labels.plain(value, 60) for value in values)) for key, values in different)
    return [Heading("Config differences"), Table(("key", *(name for name, _ in named)), rows)]
  rows = []
  for key, values in different:
    groups = {}
    for (name, _), value in zip(named, values, strict=True):
      groups.setdefault(labels.plain(value, 80), []).append(name)
    if len(groups) == len(named):
      rows.append(
        (labels.plain(key, 60), "different in every run", "; ".join(f"{n[0]}: {v}" for v, n in groups.items())[:600])
      )
    else:
      rows += [(labels.plain(key, 60), value, ", ".join(names)) for value, names in groups.items()]
  return [Heading("Config differences"), Table(("key", "value", "runs"), tuple(rows))]


def disagreement(runs):
  """A word when overlaid runs did not play the same episodes."""
  hands = {(e.variant, e.seed, e.episodes, e.attempts) for run in runs for e in run.evaluations}
  variants = {variant for variant, *_ in hands}
  if len(hands) == len(variants):
    return []
  return [
    Bullets(("These runs were not all evaluated on the same episodes or with as many attempts: compare them with "
             "care.",))
  ]
