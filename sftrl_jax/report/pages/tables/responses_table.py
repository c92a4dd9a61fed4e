"""What a run's evaluations hold of single responses, beside the success of episodes: at the start and at the end."""

import math
from collections.abc import Callable

from sftrl_jax.report.labels import percent, temperature_label
from sftrl_jax.report.pages.blocks import Block, Heading, Table
from sftrl_jax.report.records import Evaluation, Run

Column = tuple[str, Callable[[Evaluation], float], Callable[[float], str]]   # (heading, value, its text)


def response_blocks(run: Run) -> list[Block]:
  """A row a variant and decoding, `start → last` in every column that some line has; [] where none has any."""
  columns = [column for column in _columns(run) if any(math.isfinite(column[1](e)) for e in run.evaluations)]
  rows = []
  for variant in dict.fromkeys(e.variant for e in run.evaluations):
    for temperature in sorted({e.temperature for e in run.evaluations}):
      curve = run.curve(variant, temperature)
      if curve:
        rows.append((run.labels.variant(variant), temperature_label(temperature), *(
            _change(value(curve[0]), value(curve[-1]), form) for _, value, form in columns)))
  if not columns:
    return []
  return [Heading("Responses", 3), Table(("variant", "decoding", *(name for name, _, _ in columns)), tuple(rows), (
      "At the start → at the last evaluation. Right per step: right responses of all responses, retries included. "
      "First try: points whose first response was right. Valid: responses of a legal form. Attempts: of solved "
      "episodes, the attempt that was right, or the most tries that a point took. Entropy: nats a response token. "
      "pass@k: one of k samples solves the episode. Distinct: different solutions of an episode among its samples. "
      "Expert's states: right greedy responses where everything before was answered rightly."))]


def _columns(run: Run) -> list[Column]:
  number = lambda value: f"{value:.2f}"
  most = sorted({k for e in run.evaluations for k in e.pass_at})
  return [
      ("right per step", lambda e: e.per_step, percent),
      ("first try", lambda e: e.share("first_right", "points"), percent),
      ("valid", lambda e: e.share("legal", "responses"), percent),
      ("responses an episode", lambda e: e.count("responses") / e.episodes, number),
      *([("attempts used", mean_attempts, number)] if any(e.counts for e in run.evaluations) else []),
      ("entropy", lambda e: e.count("entropy"), number),
      *((f"pass@{k}", lambda e, k=k: e.pass_at.get(k, math.nan), percent) for k in most),
      ("distinct", lambda e: e.count("distinct"), number),
      ("at the expert's states", lambda e: e.count("expert_accuracy"), percent)]


def mean_attempts(evaluation: Evaluation) -> float:
  """The mean outcome of solved episodes, NaN where none is solved."""
  solved = evaluation.outcomes[evaluation.outcomes > 0]
  return float(solved.mean()) if solved.size else math.nan


def _change(start: float, last: float, form: Callable[[float], str]) -> str:
  if math.isnan(start) and math.isnan(last):
    return "–"
  return " → ".join("–" if math.isnan(value) else form(value) for value in (start, last))
