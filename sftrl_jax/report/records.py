"""Evaluations, episodes, runs and studies as frozen data."""

import dataclasses
import functools
import math
import pathlib
from typing import Any

import numpy as np

from sftrl_jax.report.labels import EnvLabels, merge_labels

REFERENCE_VERB = "sft"   # of the runs that others are compared with, where study.json names no method
MOST_COLUMNS = 5  # methods of a study, above which its report has a row for each instead of columns and colours

RunKey = tuple[int, str, int]  # (base, method, seed)


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One line of evals.jsonl.

  `outcomes` [episodes] uint8: the attempt that was right, 0 for none; empty if the line has none. `low` and `high` are
  the 95% interval of `success`, `codes` the counts of first verdicts. `kl` is NaN if it was not measured.
  """

  step: int
  variant: str
  temperature: float
  seed: int
  attempts: int
  episodes: int
  success: float
  low: float
  high: float
  flops: float
  outcomes: np.ndarray
  codes: dict[str, float]
  kl: float

  def within(self, attempts: int) -> np.ndarray:
    """Right within so many attempts: [episodes] float32, 0 or 1."""
    return ((self.outcomes > 0) & (self.outcomes <= attempts)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class LoggedEpisode:
  """A greedy evaluation in episodes.jsonl; `chat` holds (role, text), `rewards` and `codes` an entry a response."""

  step: int
  variant: str
  seed: int
  chat: tuple[tuple[str, str], ...]
  rewards: tuple[float, ...]
  codes: tuple[str, ...]
  success: bool


@dataclasses.dataclass(frozen=True)
class Run:
  """One workdir. `metrics` are the lines of metrics.jsonl, `phase` ("" if absent) and `done` those of progress.json."""

  directory: pathlib.PurePath
  name: str
  verb: str
  config: dict[str, Any]
  evaluations: tuple[Evaluation, ...]
  metrics: tuple[dict[str, Any], ...]
  phase: str
  done: float
  labels: EnvLabels

  @property
  def finished(self) -> bool:
    return self.phase == "complete"

  def curve(self, variant: str, temperature: float) -> tuple[Evaluation, ...]:
    """The evaluations of one variant and temperature by step."""
    kept = [e for e in self.evaluations if e.variant == variant and e.temperature == temperature]
    return tuple(sorted(kept, key=lambda evaluation: evaluation.step))

  def column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of one metric where it was written; a value that is no finite number is NaN."""
    pairs = [(number(line.get("step")), number(line[name])) for line in self.metrics if name in line]
    steps, values = np.array(pairs, dtype=float).reshape(-1, 2).T
    return steps, values

  def last(self, name: str, default: float = math.nan) -> float:
    """The last finite value of a metric."""
    _, values = self.column(name)
    values = values[np.isfinite(values)]
    return float(values[-1]) if values.size else default


@dataclasses.dataclass(frozen=True)
class Study:
  """study.json and its runs.

  `methods` maps names to labels; `id` and `ood` are the variants in distribution and shifted. `runs` is by
  (base, method, seed), `starts` by base (a shipped start has no run); `missing` names the runs without a workdir.
  """

  directory: pathlib.PurePath
  name: str
  claim: str
  methods: dict[str, str]
  bases: tuple[int, ...]
  seeds: tuple[int, ...]
  flops: float
  id: str
  ood: str
  named_reference: str
  disclosure: tuple[str, ...]
  command: str
  hardware: str
  runs: dict[RunKey, Run]
  starts: dict[int, Run]
  missing: tuple[str, ...]

  @property
  def has_many_methods(self) -> bool:
    """Whether there are more methods than columns and colours can tell apart."""
    return len(self.methods) > MOST_COLUMNS

  @property
  def reference(self) -> str:
    """The method that the other methods are compared with.

    It is the one that study.json names, else the first whose runs are of REFERENCE_VERB; before any of them ran, the
    method of that name, else the first.
    """
    if self.named_reference:
      return self.named_reference
    trained_by_sft = {method for (_, method, _), run in self.runs.items() if run.verb == REFERENCE_VERB}
    candidates = [method for method in self.methods if method in trained_by_sft] or [REFERENCE_VERB]
    return candidates[0] if candidates[0] in self.methods else next(iter(self.methods))

  @property
  def reference_label(self) -> str:
    return self.methods[self.reference]

  @property
  def compared_methods(self) -> tuple[str, ...]:
    """Every method but the reference."""
    return tuple(method for method in self.methods if method != self.reference)

  @property
  def held_out(self) -> str:
    """The variant of the training rule that no method trained on, by its name; "" if there is none."""
    return next((variant for variant in self.variants if "unseen" in variant), "")

  @property
  def variants(self) -> tuple[str, ...]:
    """The evaluated variants: in distribution first, the shifted one last."""
    seen = dict.fromkeys(e.variant for run in self.runs.values() for e in run.evaluations)
    middle = sorted(variant for variant in seen if variant not in (self.id, self.ood))
    return tuple(variant for variant in (self.id, *middle, self.ood) if variant in seen)

  @property
  def temperatures(self) -> tuple[float, ...]:
    return tuple(sorted({e.temperature for run in self.runs.values() for e in run.evaluations}))

  @functools.cached_property
  def labels(self) -> EnvLabels:
    """The environment's labels, from whichever run has them."""
    return merge_labels(run.labels for run in (*self.runs.values(), *self.starts.values()))


def number(value: object) -> float:
  """A finite float, or NaN for anything else (a string, a bool, 1e999, NaN)."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return math.nan
  try:
    return float(value) if math.isfinite(float(value)) else math.nan
  except OverflowError:
    return math.nan
