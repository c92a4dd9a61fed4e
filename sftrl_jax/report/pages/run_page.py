"""The report of one run, and of several runs over one another, as blocks. `named_runs` is [(name, Run)]."""

import math
import pathlib
from collections.abc import Sequence

from sftrl_jax.report.figures import proxy_figure, run_figures, study_figures, style
from sftrl_jax.report.figures.rows import verdict_groups
from sftrl_jax.report.labels import flops_text, merge_labels, percent, plain, points, seconds_text, temperature_label
from sftrl_jax.report.pages import alarms_box, forgetting, transcripts
from sftrl_jax.report.pages.blocks import Block, Bullets, Heading, Notice, Picture, Table, Text
from sftrl_jax.report.pages.tables.responses_table import response_blocks
from sftrl_jax.report.read_workdir import read_episodes
from sftrl_jax.report.records import Run
from sftrl_jax.report.stats import alarms
from sftrl_jax.report.stats.flops_axis import account, differing, flat


def state(run: Run) -> list[Block]:
  """What the run is and how far it came, alarms first."""
  blocks, skipped = alarms_box.notices([(run.name, run)]), alarms.skipped(run)
  if skipped > 0:
    blocks.append(Notice("Steps were skipped", (
        f"{skipped:g} updates had a non-finite loss or gradient and were not applied.",)))
  if not run.finished:
    blocks.append(Notice("This run is not finished", (f"phase {run.phase or 'unknown'}, {run.done:.0%} done",)))
  charged = {part: flops_text(flops) for part, flops in account(run).items()}
  rows = (
      ("verb", run.verb or "–"),
      ("algorithm", str(run.config.get("algorithm", "–"))),
      ("seed", str(run.config.get("seed", "–"))),
      ("start", str(run.config.get("start", "–"))),
      ("steps", f"{run.last('step', 0):g}"),
      ("time", seconds_text(run.last("seconds"))),
      ("peak memory", f"{run.most('memory/peak_gib'):.2f} GiB" if math.isfinite(run.most("memory/peak_gib")) else "–"),
      ("tokens", f"{run.last('tokens', 0):,.0f}"),
      ("FLOPs", f"{charged['total']} (training {charged['train']}, rollouts {charged['rollout']}, scoring "
                f"{charged['score']})"))
  return [*blocks, Table(("run", run.name), tuple((key, plain(value, 200)) for key, value in rows))]


def evaluations(run: Run, out: pathlib.Path) -> list[Block]:
  """Start and end by variant, and success against compute."""
  rows = run_figures.success_rows([(run.name, run)])
  if not rows:
    return [Text("This run has no evaluations (evals.jsonl is empty or absent)."), *forgetting.run_blocks(run, out)]
  if not any(e.verifies for e in run.evaluations):
    return [*_scored_evaluations(run), *forgetting.run_blocks(run, out)]
  lines = []
  for variant in dict.fromkeys(row["variant"] for row in rows):
    for temperature in sorted({row["temperature"] for row in rows}):
      curve = run.curve(variant, temperature)
      if curve:
        first, last = curve[0], curve[-1]
        lines.append((run.labels.variant(variant), temperature_label(temperature), percent(first.success),
                      f"{percent(last.success)} ({percent(last.low)} to {percent(last.high)})",
                      points(last.success - first.success), f"{last.episodes}", f"{last.attempts}",
                      f"{last.kl:.3g}" if math.isfinite(last.kl) else "–"))
  figure = run_figures.success_of_run(rows, style.verb_colour(run.verb), run.labels)
  blocks = [
      Heading("Success"),
      Picture(study_figures.save(figure, rows, out / "success.png"), (
          "Success on each variant; bars are 95% Wilson intervals over episodes. They say nothing about other seeds or "
          "starts.")),
      Table(("variant", "decoding", "start", "last (95%)", "change", "episodes", "attempts", "KL"), tuple(lines), (
          "An attempt is a try at a point: an episode succeeds if every point is right within so many."
          if any(e.attempts_of == "point" for e in run.evaluations) else ""))]
  return blocks + forgetting.run_blocks(run, out) + response_blocks(run)


def _scored_evaluations(run: Run) -> list[Block]:
  """Start and end by variant of a task in which no response is right or wrong."""
  lines, form = [], lambda value: f"{value:.3g}" if math.isfinite(value) else "–"
  for variant in dict.fromkeys(e.variant for e in run.evaluations):
    for temperature in sorted({e.temperature for e in run.evaluations}):
      curve = run.curve(variant, temperature)
      if curve:
        first, last = curve[0], curve[-1]
        lines.append((run.labels.variant(variant), temperature_label(temperature), form(first.score), form(last.score),
                      form(last.score - first.score), f"{last.episodes}", form(last.response_length), form(last.kl)))
  return [Heading("Scores"), Table(
      ("variant", "decoding", "start", "last", "change", "episodes", "tokens a response", "KL"), tuple(lines), (
          "Mean reward of an episode, by what the run learns from. Nobody says which responses are right."))]


def scores(run: Run, out: pathlib.Path) -> list[Block]:
  """The learned reward beside the environment's; [] for a run without a reward model."""
  rows = proxy_figure.proxy_rows(run)
  if not rows:
    return []
  figure = proxy_figure.proxy(rows, style.verb_colour(run.verb), run.labels)
  known = any(math.isfinite(row["gold"]) for row in rows)
  return [Heading("Gold and proxy"), Picture(study_figures.save(figure, rows, out / "proxy.png"), (
      "The reward that was learned from (proxy) "
      + ("and that of the environment (gold) " if known else "") + "against the KL from the start: evaluations at "
      "temperature 1, and a moving average of the training episodes. " + (
          "Where the proxy rises and gold falls, the policy learns the reward model's errors." if known else
          "No environment says what the answers are worth: read some of them.")))]


def training(run: Run, out: pathlib.Path) -> list[Block]:
  """Metrics, time and verdicts."""
  blocks, rows = [], run_figures.metric_rows([(run.name, run)])
  if rows:
    figure = run_figures.metrics(rows, {run.name: style.verb_colour(run.verb)})
    blocks += [Heading("Training"), Picture(study_figures.save(figure, rows, out / "training.png"), (
        "What the run logged at each step; thin: as logged, thick: moving average."))]
  rows = run_figures.time_rows(run)
  if rows:
    figure = run_figures.time(rows)
    blocks += [Heading("Time"),
               Picture(study_figures.save(figure, rows, out / "time.png"), "Time by phase, whole run.")]
  groups = verdict_groups([run])
  rows = run_figures.verdict_rows(run, groups)
  if rows:
    variants = {row["variant"]: run.labels.variant(row["variant"]) for row in rows}
    figure = study_figures.verdicts(rows, variants, {"end": "end"}, groups)
    of = "all responses" if any(e.attempts_of == "point" for e in run.evaluations) else "first attempts"
    blocks += [Heading("Verdicts"), Picture(study_figures.save(figure, rows, out / "codes.png"), (
        f"Verdicts of {of} at the start and at the last evaluation, in percent."))]
  return blocks


def conversation(run: Run) -> list[Block]:
  """One episode at the first and last evaluation: one whose outcome changed, on the last variant that has one."""
  episodes = read_episodes(run.directory)
  best = ()
  for variant in dict.fromkeys(episode.variant for episode in episodes):
    of_variant = [episode for episode in episodes if episode.variant == variant]
    first, last = transcripts.by_seed(of_variant, False), transcripts.by_seed(of_variant, True)
    pairs = [(first[seed], last[seed]) for seed in sorted(first.keys() & last.keys())]
    changed = [(before, after) for before, after in pairs if before.success != after.success]
    if changed or not best:
      best = (changed or pairs or [best])[0]
  if not best:
    return []
  before, after = best
  return [Heading("One episode"), Text(
      f"Episode {before.seed} of {run.labels.variant(before.variant)}, greedy; picked because its outcome changed, "
      "where one did."), transcripts.transcripts([("start", before), ("last", after)])]


def configuration(run: Run) -> list[Block]:
  rows = tuple((plain(key, 80), plain(value, 200)) for key, value in flat(run.config).items())
  return [Heading("Config"), Table(("key", "value"), rows)]


def names_of(runs: Sequence[Run]) -> list[str]:
  """A name for each run, with as much of the path as it takes to tell them apart."""
  parts = [run.directory.resolve().parts for run in runs]
  for depth in range(1, max(map(len, parts), default=1) + 1):
    names = ["/".join(path[-depth:]) for path in parts]
    if len(set(names)) == len(names):
      break
  return [plain(name, 60) for name in names]


def overlay(runs: Sequence[Run], out: pathlib.Path) -> list[Block]:
  """Runs over one another: success, metrics, the config keys in which they differ."""
  named_runs = list(zip(names_of(runs), runs, strict=True))
  labels = merge_labels(run.labels for run in runs)
  palette = (style.RL, style.SFT, *style.MORE)
  many = len(named_runs) > len(palette)
  colours = {name: style.verb_colour(run.verb) if many else palette[index]
             for index, (name, run) in enumerate(named_runs)}
  blocks, rows = alarms_box.notices(named_runs), run_figures.success_rows(named_runs)
  if many:
    blocks.append(Text(f"{len(named_runs)} runs are more than there are colours: orange is sft, blue is rl; the .csv "
                       "beside each figure tells them apart."))
  if rows:
    figure = run_figures.success_of_runs(rows, colours, labels)
    blocks += [
        Heading("Success"),
        Picture(study_figures.save(figure, rows, out / "success.png"), "Success by variant and decoding."),
        _ends(named_runs)]
  blocks += config_differences(named_runs)
  rows = run_figures.metric_rows(named_runs, most=600)
  if rows:
    figure = run_figures.metrics(rows, colours)
    blocks += [Heading("Training"),
               Picture(study_figures.save(figure, rows, out / "training.png"), "What each run logged.")]
  return blocks


def _ends(named_runs: Sequence[tuple[str, Run]]) -> Table:
  labels = merge_labels(run.labels for _, run in named_runs)
  columns = sorted({(e.temperature, e.variant) for _, run in named_runs for e in run.evaluations})
  rows = []
  for name, run in named_runs:
    cells = []
    for temperature, variant in columns:
      curve = run.curve(variant, temperature)
      cells.append(f"{percent(curve[0].success)} → {percent(curve[-1].success)}" if curve else "–")
    rows.append((name, flops_text(account(run)["total"]), *cells))
  header = ("run", "FLOPs", *(f"{labels.variant(variant)}, {temperature_label(t)}" for t, variant in columns))
  return Table(header, tuple(rows), "First and last evaluation of each run, at whatever compute it was given.")


def config_differences(named_runs: Sequence[tuple[str, Run]]) -> list[Block]:
  """The keys in which configs differ: a column a run, or a list a key where there are too many runs for columns."""
  differences = differing([run.config for _, run in named_runs])
  heading = Heading("Config differences")
  if not differences:
    return [heading, Text("None: all configs are equal.")]
  if len(named_runs) <= 4:
    rows = tuple((plain(key, 60), *(plain(value, 60) for value in values)) for key, values in differences)
    return [heading, Table(("key", *(name for name, _ in named_runs)), rows)]
  rows = []
  for key, values in differences:
    by_value = {}
    for (name, _), value in zip(named_runs, values, strict=True):
      by_value.setdefault(plain(value, 80), []).append(name)
    if len(by_value) == len(named_runs):
      pairs = "; ".join(f"{names[0]}: {value}" for value, names in by_value.items())
      rows.append((plain(key, 60), "different in every run", pairs[:600]))
    else:
      rows += [(plain(key, 60), value, ", ".join(names)) for value, names in by_value.items()]
  return [heading, Table(("key", "value", "runs"), tuple(rows))]


def disagreement(runs: Sequence[Run]) -> list[Block]:
  """A warning if overlaid runs did not play the same episodes."""
  episode_sets = {(e.variant, e.seed, e.episodes, e.attempts) for run in runs for e in run.evaluations}
  if len(episode_sets) == len({variant for variant, *_ in episode_sets}):
    return []
  return [Bullets(("These runs were not all evaluated on the same episodes or with as many attempts: compare them with "
                   "care.",))]
