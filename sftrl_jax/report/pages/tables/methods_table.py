"""What each method of a study is: its note, its runs, updates, FLOPs, KL and accuracy at the expert's states."""

import math
from collections.abc import Callable, Sequence

from sftrl_jax.report.labels import flops_text, percent
from sftrl_jax.report.pages.blocks import Block, Table
from sftrl_jax.report.records import Evaluation, Run, Study
from sftrl_jax.report.stats.effects import Effects


def methods_table(study: Study, effects: Effects, order: Sequence[str]) -> list[Block]:
  """A row a method, every one of them, finished or not: means over its runs' last evaluations."""
  columns = _columns(study, effects)
  rows = []
  for method in order:
    runs = [run for key, run in study.runs.items() if key[1] == method]
    values = [[column(run) for run in runs if run.evaluations] for _, column, _ in columns]
    rows.append((study.methods[method], study.notes.get(method, ""), _state(study, runs), *(
        form(mean(of_runs)) for of_runs, (_, _, form) in zip(values, columns, strict=True))))
  header = ("method", "what it is for", "runs", *(name for name, _, _ in columns))
  kept = [0, *([1] if study.notes else []), 2, *(
      index for index in range(3, len(header)) if any(row[index] != "–" for row in rows))]
  choose = lambda cells: tuple(cells[index] for index in kept)
  return [Table(choose(header), tuple(map(choose, rows)), (
      "Means over runs at their last evaluations. Updates are steps of the optimizer, FLOPs those of post-training. KL "
      "is in nats a response token from the run's own start, on the model's own responses at T=1. Accuracy at the "
      "expert's states is the share of right greedy responses where everything before was answered rightly."
      + _other_starts(study)))]


Column = tuple[str, Callable[[Run], float], Callable[[float], str]]   # (heading, value of a run, its text)


def _columns(study: Study, effects: Effects) -> list[Column]:
  number = lambda value: "–" if math.isnan(value) else f"{value:,.0f}"
  columns: list[Column] = [
      ("updates", lambda run: last_value(run, lambda e: e.updates), number),
      ("FLOPs", lambda run: last_value(run, lambda e: e.flops), flops_text),
      ("FLOPs, paper's formula", lambda run: last_value(run, lambda e: e.count("paper_flops")), flops_text)]
  variants = [variant for variant in (study.id, study.ood) if variant in study.variants]
  for variant in variants:
    columns.append((f"KL, {study.labels.variant(variant)}",
                    lambda run, variant=variant: last_value(run, lambda e: e.kl, variant), nats))
  for variant in variants:
    accuracy = lambda run, variant=variant: last_value(run, lambda e: e.count("expert_accuracy"), variant)
    columns.append((f"at the expert's states, {study.labels.variant(variant)}", accuracy, percent))
  return columns


def nats(value: float) -> str:
  return "–" if math.isnan(value) else f"{value:.2f}"


def last_value(run: Run, value: Callable[[Evaluation], float], variant: str = "") -> float:
  """The value of a run's last evaluation step that has one, NaN without."""
  known = [(e.step, value(e)) for e in run.evaluations if variant in ("", e.variant) and math.isfinite(value(e))]
  return max(known)[1] if known and max(known)[0] == max(e.step for e in run.evaluations) else math.nan


def mean(values: Sequence[float]) -> float:
  """Of the finite ones, NaN without."""
  known = [value for value in values if math.isfinite(value)]
  return sum(known) / len(known) if known else math.nan


def _state(study: Study, runs: Sequence[Run]) -> str:
  """`5 of 5 finished`, of all runs that the study asks for."""
  wanted = len(study.bases) * len(study.seeds)
  finished = sum(run.finished for run in runs)
  begun = len(runs) - finished
  return f"{finished} of {wanted} finished{f', {begun} begun' if begun else ''}"


def _other_starts(study: Study) -> str:
  others = [study.methods[method] for method in study.methods if study.bases_of.get(method)]
  if not others:
    return ""
  return (f" {' and '.join(others)} start{'s' if len(others) == 1 else ''} from other bases than the rest: changes are "
          f"from {'its' if len(others) == 1 else 'their'} own start, and no gap to {study.reference_label} is formed.")
