"""A row a method with what distinguishes methods, and which one the measured values recommend for which purpose."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sftrl_jax.report.labels import count, flops_text, percent, points, seconds_text, temperature_label
from sftrl_jax.report.pages.blocks import Block, Heading, Table, Text
from sftrl_jax.report.pages.tables.methods_table import last_value, mean, nats
from sftrl_jax.report.records import MEASURE_LABELS, Run, Study
from sftrl_jax.report.stats import choices
from sftrl_jax.report.stats.bootstrap import MIN_BASES
from sftrl_jax.report.stats.choices import Choice
from sftrl_jax.report.stats.effects import Effects

NOTES = {   # of columns, where these are shown
    "change, probes": "Probes are tasks from before this training.",
    "training time": "Training time is that of steps, without evaluations, on a machine that several runs may share.",
    "peak memory, GiB": "Peak memory is that of the fullest accelerator, on CPUs of the whole process."}
PROBES, TIME, MEMORY = NOTES


def key_differences(study: Study, effects: Effects, order: Sequence[str]) -> list[Block]:
  """The table and the recommendations; [] where no run has finished."""
  lowest = min(study.temperatures, default=0.0)
  if not choices.ends(study, study.id, lowest):
    return []
  return [Heading("Key differences"), _table(study, effects, order, lowest), Heading("Which one for you?", 3),
          Text(" ".join(_sentences(study, lowest)))]


def _table(study: Study, effects: Effects, order: Sequence[str], temperature: float) -> Table:
  rows = []
  for method in order:
    runs = [run for key, run in study.runs.items() if key[1] == method]
    of_runs = lambda read, runs=runs: mean([read(run) for run in runs])
    change = lambda variant, method=method: effects.find("change", method, variant, temperature)
    changes = lambda variants, change=change: [estimate.value for estimate in map(change, variants) if estimate]
    shift = change(study.ood)
    rows.append((
        study.methods[method],
        *(points(mean(changes(variants))) for variants in ((study.id,), (study.ood,), study.probes)),
        f"{100 * float(np.std(shift.per_base, ddof=1)):.1f}" if shift and shift.bases > 1 else "–",
        flops_text(of_runs(lambda run: last_value(run, lambda e: e.flops, study.id))),
        seconds_text(of_runs(lambda run: run.last("seconds"))),
        _gib(of_runs(lambda run: run.most("memory/peak_gib"))),
        nats(of_runs(lambda run: last_value(run, lambda e: e.kl, study.id))),
        percent(of_runs(lambda run: last_value(run, lambda e: e.share("legal", "responses"), study.id))),
        _pass_at(study, runs), str(len(study.bases) * len(study.seeds) - sum(run.finished for run in runs))))
  header = ("method", f"gain, {study.labels.variant(study.id)}", f"change, {study.labels.variant(study.ood)}",
            PROBES, "spread of the shifted change", "FLOPs", TIME, MEMORY,
            "KL, nats a token", "valid form", "pass@k", "runs not finished")
  shown = [0, *(index for index in range(1, len(header)) if any(row[index] not in ("–", "0") for row in rows))]
  choose = lambda cells: tuple(cells[index] for index in shown)
  columns = choose(header)
  return Table(columns, tuple(map(choose, rows)), " ".join((
      f"{MEASURE_LABELS[study.measure].capitalize()}, {temperature_label(temperature)}: points from the run's own "
      "start, as in the tables above, whose intervals are there; the spread is the standard deviation over bases.",
      *(note for column, note in NOTES.items() if column in columns))))


def _gib(value: float) -> str:
  return f"{value:.2f}" if math.isfinite(value) else "–"


def _pass_at(study: Study, runs: Sequence[Run]) -> str:
  """`pass@8 71.2%`, of the largest k."""
  largest = max((k for run in runs for e in run.evaluations for k in e.pass_at), default=0)
  value = mean([last_value(run, lambda e: e.pass_at.get(largest, math.nan), study.id) for run in runs])
  return f"pass@{largest} {percent(value)}" if math.isfinite(value) else "–"


def _sentences(study: Study, temperature: float) -> list[str]:
  """A sentence a purpose, with its value and with what is not distinguished from it."""
  inside, shifted = (study.labels.variant(variant) for variant in (study.id, study.ood))
  level, cost = choices.costs(study, temperature)
  purposes: list[tuple[str, Mapping, int, Callable[[float], str]]] = [
      (f"What you will see is what it trains on ({inside})", choices.ends(study, study.id, temperature), 1, percent),
      (f"It may change ({shifted})", choices.ends(study, study.ood, temperature), 1, percent),
      ("Old tasks have to stay (probes)", choices.kept(study, temperature), 1,
       lambda value: f"{points(value)} points"),
      (f"Compute is short (FLOPs to {100 * level:g}% on {inside})", cost, -1, flops_text)]
  chosen = [(purpose, choice, form) for purpose, values, sign, form in purposes
            if (choice := choices.choose(values, sign)) is not None]
  return [_sentence(study, *of) for of in chosen] + [_few(study)] * (len(study.bases) < MIN_BASES)


def _sentence(study: Study, purpose: str, choice: Choice, form: Callable[[float], str]) -> str:
  text = f"{purpose}: {study.methods[choice.method]}, {form(choice.value)} over {count(choice.bases, 'base')}"
  if choice.equals:
    near = ", ".join(f"{study.methods[method]} ({form(value)})" for method, value in choice.equals.items())
    text += f"; not distinguished from it: {near}"
  if choice.unclear and choice.bases >= MIN_BASES:
    text += f"; on too few of its bases: {', '.join(study.methods[method] for method in choice.unclear)}"
  return text + "."


def _few(study: Study) -> str:
  return (f"{count(len(study.bases), 'base')} cannot distinguish methods: these are the largest means, not "
          "recommendations.")
