"""What the methods of a study have learned from pairs: the pairs, the reward models, and gold beside proxy."""

import math
from collections.abc import Iterable, Sequence

from sftrl_jax.report.figures import proxy_figure, study_figures
from sftrl_jax.report.figures.rows import Row
from sftrl_jax.report.labels import percent
from sftrl_jax.report.pages.blocks import Block, Heading, Picture, Table
from sftrl_jax.report.pages.study_page import Chapter
from sftrl_jax.report.records import PairsRun, Study

KEYS = ("step", "kl", "proxy", "gold")


def blocks(chapter: Chapter) -> list[Block]:
  """A table of the runs that methods use, and a figure for each method that learns from a reward model; [] without."""
  table, figures = pairs_table(chapter.study), proxies(chapter)
  return [Heading("Pairs and reward models"), *table, *figures] if table or figures else []


def pairs_table(study: Study) -> list[Block]:
  """Pairs and accuracies of every name of study.prepares: means over its finished runs, and their range; [] without.
  A run without pairs, such as a teacher, is left out."""
  named = {name: [run for run in runs if run.finished and (run.counts or run.accuracies)]
           for name, runs in study.prepared.items()}
  named = {name: runs for name, runs in named.items() if runs}
  variants = list(dict.fromkeys(variant for runs in named.values() for run in runs for variant in run.accuracies))
  rows = []
  for name, runs in named.items():
    of = lambda key, runs=runs: _mean(run.counts.get(key, math.nan) for run in runs)
    accuracies = [_range(runs, variant) for variant in variants]
    rows.append((name, str(len(runs)), f"{of('pairs'):,.0f}", f"{of('prompts'):,.0f}", percent(of("chosen_correct")),
                 *accuracies, f"{_mean(run.flops for run in runs):.2e}"))
  header = ("run", "bases", "pairs", "prompts", "preferred is right",
            *(f"held out, {study.labels.variant(variant)}" for variant in variants), "FLOPs")
  return [Table(header, tuple(rows), (
      "A pair is two of the start's own answers to a prompt, ordered by the verifier; equal ones are left out. Held "
      "out: the share of such pairs under a rule that a run orders rightly at its end (mean over bases, their range). "
      "FLOPs: of the run, with its pairs."))] if rows else []


def proxies(chapter: Chapter) -> list[Block]:
  """Proxy and gold against the KL from the start, of each method with a reward model."""
  study, pictures = chapter.study, []
  for method, label in study.methods.items():
    rows = mean_rows([proxy_figure.proxy_rows(run) for (_, name, _), run in study.runs.items() if name == method])
    if rows:
      figure = proxy_figure.proxy(rows, chapter.colours[method], study.labels)
      pictures.append(Picture(study_figures.save(figure, rows, chapter.out / f"proxy_{method}.png"), (
          f"{label}: the reward that was learned from (proxy) and that of the verifier (gold) against the KL from the "
          "start, at temperature 1; means over bases, a point for each evaluation. Where the proxy rises and gold "
          "falls, the policy learns the reward model's errors.")))
  return pictures


def mean_rows(runs: Sequence[Sequence[Row]]) -> list[Row]:
  """The mean over runs of every evaluation, by its place in the order of steps; training is left out."""
  there = [[row for row in rows if row["source"] != proxy_figure.TRAINING] for rows in runs if rows]
  sources = list(dict.fromkeys(row["source"] for rows in there for row in rows))
  means = []
  for source in sources:
    lines = [sorted((row for row in rows if row["source"] == source), key=lambda row: row["step"]) for rows in there]
    for place in range(min(map(len, lines))):
      means.append({"source": source, **{key: _mean(line[place][key] for line in lines) for key in KEYS}})
  return means


def _mean(values: Iterable[float]) -> float:
  """Of the finite ones; NaN without any."""
  finite = [value for value in values if math.isfinite(value)]
  return sum(finite) / len(finite) if finite else math.nan


def _range(runs: Sequence[PairsRun], variant: str) -> str:
  shares = [run.accuracies[variant] for run in runs if math.isfinite(run.accuracies.get(variant, math.nan))]
  if not shares:
    return "–"
  mean = percent(_mean(shares))
  return mean if len(shares) == 1 else f"{mean} ({percent(min(shares))} to {percent(max(shares))})"
