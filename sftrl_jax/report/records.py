"""Evaluations, episodes, runs and studies as frozen data."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sftrl_jax.report.labels import EMA, EnvLabels, merge_labels
from sftrl_jax.report.registered_claim import RegisteredClaim
from sftrl_jax.report.task_results import TaskResult

REFERENCE_VERB = "sft"   # of the runs that others are compared with, where study.json names no method
MOST_COLUMNS = 5  # methods of a study, above which its report has a row for each instead of columns and colours

RunKey = tuple[int, str, int]  # (base, method, seed)
NO_COUNTS = np.zeros(0, np.int64)
PER_STEP = "per_step"
MEASURE_LABELS = {"success": "success", PER_STEP: "right responses"}
PartCounts = tuple[np.ndarray, np.ndarray]   # [episodes] each: right responses of those that have a part, and all these


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One line of evals.jsonl.

  `outcomes` [episodes] uint8: the attempt that was right, 0 for none; empty if the line has none. `low` and `high` are
  the 95% interval of `success`, `codes` the counts of first verdicts. `kl` is NaN if it was not measured.
  What follows `kl` is absent in lines of older versions. `attempts_of`: "episode", or "point" where a task of many
  points allows so many tries at each; an outcome is then the most tries that a point took. `right_N` and `responses_N`
  [episodes]: right responses and responses of every episode, or both empty. `all_codes` counts the verdicts of all
  responses, `pass_at` is {k: pass@k}, and `counts` holds the numbers of read_workdir.COUNTS that the line has.
  `proxy` is the mean reward of an episode by the scorer that a run learns from, `gold` by the environment, NaN where
  there is none; `response_length` is in tokens. `parts` has counts of what verdicts judge apart, such as the reading of
  a picture: of all responses where a task has many points, else of first ones. `verifies`: whether the task has right
  and wrong responses; `success` is 0 without. `probe`: whether the variant is a task from before training.
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
  attempts_of: str = "episode"
  right_N: np.ndarray = dataclasses.field(default_factory=lambda: NO_COUNTS)
  responses_N: np.ndarray = dataclasses.field(default_factory=lambda: NO_COUNTS)
  all_codes: Mapping[str, float] = dataclasses.field(default_factory=dict)
  pass_at: Mapping[int, float] = dataclasses.field(default_factory=dict)
  counts: Mapping[str, float] = dataclasses.field(default_factory=dict)
  proxy: float = math.nan
  gold: float = math.nan
  response_length: float = math.nan
  verifies: bool = True
  probe: bool = False
  parts: Mapping[str, PartCounts] = dataclasses.field(default_factory=dict)

  @property
  def score(self) -> float:
    """The mean reward of an episode that the run learns from: the scorer's, else the environment's."""
    return self.proxy if math.isfinite(self.proxy) else self.gold

  @property
  def per_step(self) -> float:
    """Right responses of all responses, NaN without them."""
    responses = int(self.responses_N.sum())
    return float(self.right_N.sum() / responses) if responses else math.nan

  @property
  def updates(self) -> float:
    """Updates of the optimizer so far, NaN in a line of an older version."""
    return self.count("updates")

  @property
  def verdicts(self) -> Mapping[str, float]:
    """Counts by verdict code: of all responses where a task has many points, else of first ones."""
    return self.all_codes if self.attempts_of == "point" and self.all_codes else self.codes

  def count(self, name: str) -> float:
    """A number of `counts`, NaN where the line has none."""
    return self.counts.get(name, math.nan)

  def share(self, part: str, whole: str) -> float:
    """The quotient of two `counts`, NaN where it does not exist."""
    return self.count(part) / self.count(whole) if self.count(whole) > 0 else math.nan

  def within(self, attempts: int) -> np.ndarray:
    """Right within so many attempts: [episodes] float32, 0 or 1."""
    return ((self.outcomes > 0) & (self.outcomes <= attempts)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class LoggedEpisode:
  """A greedy evaluation in episodes.jsonl; `chat` holds (role, text), `rewards` and `codes` an entry a response.

  `pictures`: the PNG file of what a message shows, by its place in the chat.
  """

  step: int
  variant: str
  seed: int
  chat: tuple[tuple[str, str], ...]
  rewards: tuple[float, ...]
  codes: tuple[str, ...]
  success: bool
  pictures: dict[int, pathlib.PurePath] = dataclasses.field(default_factory=dict)


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
  tasks: tuple[TaskResult, ...] = ()

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

  def most(self, name: str) -> float:
    """The largest finite value of a metric; NaN without one."""
    _, values = self.column(name)
    return float(np.max(values[np.isfinite(values)], initial=-math.inf)) if np.isfinite(values).any() else math.nan


@dataclasses.dataclass(frozen=True)
class PairsRun:
  """A run that methods of a study use, by the pairs that it has learned from and those that it was measured on.

  counts: numbers of pairs.json; {} where the run has not sampled its pairs
  accuracies: {variant: share of its held-out pairs that the run's last parameters order rightly}
  flops: of the run, its pairs included, NaN where it was never measured
  """

  name: str
  finished: bool
  counts: Mapping[str, float]
  accuracies: Mapping[str, float]
  flops: float = math.nan


@dataclasses.dataclass(frozen=True)
class Study:
  """study.json and its runs.

  `methods` maps names to labels; `id` and `ood` are the variants in distribution and shifted. `runs` is by
  (base, method, seed), `starts` by (base, group of bases), "" the bases of the study (a shipped start has no run);
  `missing` names the runs without a workdir. `named_measure` is what study.json heads the report with, `claims` were
  recorded before the runs started, `notes` are sentences by method. `bases_of` is {method: its group of bases} of those
  that start from others, `budgets` {method: {"flops" or "steps": its own}}. `prepared` is by name the runs, in the
  order of bases and seeds, that methods use and that are not compared.
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
  starts: dict[tuple[int, str], Run]
  missing: tuple[str, ...]
  named_measure: str = "success"
  claims: tuple[RegisteredClaim, ...] = ()
  notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
  bases_of: Mapping[str, str] = dataclasses.field(default_factory=dict)
  budgets: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
  prepared: Mapping[str, tuple[PairsRun, ...]] = dataclasses.field(default_factory=dict)

  @property
  def has_many_methods(self) -> bool:
    """Whether there are more methods than columns and colours can tell apart."""
    return len(self.methods) > MOST_COLUMNS

  @property
  def is_registered(self) -> bool:
    """Whether claims or notes were recorded before the runs started: then the methods are not ranked by results."""
    return bool(self.claims or self.notes)

  @functools.cached_property
  def measures(self) -> tuple[str, ...]:
    """The measures that evaluations hold, the one that heads the report first. Where no episode has a second response,
    right responses of all responses are successes."""
    every = [e for run in self.runs.values() for e in run.evaluations]
    least = 0 if PER_STEP in (self.named_measure, *(claim.measure for claim in self.claims)) else 1
    held = ["success"] + [PER_STEP] * any((e.responses_N > least).any() for e in every)
    held.sort(key=lambda measure: measure != self.named_measure)
    return (*held, *(part for part in self.labels.parts if any(part in e.parts for e in every)))

  @property
  def measure(self) -> str:
    """What heads the report: the measure that study.json names, if evaluations hold it."""
    return self.measures[0]

  def measure_label(self, measure: str) -> str:
    """A measure in a few words; a part of verdicts without a label stands for itself."""
    return MEASURE_LABELS.get(measure) or self.labels.parts.get(measure, measure)

  @property
  def of_points(self) -> bool:
    """Whether an attempt is a try at one of many points of an episode."""
    return any(e.attempts_of == "point" for run in self.runs.values() for e in run.evaluations)

  @functools.cached_property
  def start_groups(self) -> dict[str, tuple[str, ...]]:
    """{name of a start: the methods that begin from it}, "start" for the bases of the study."""
    groups = {}
    for method in self.methods:
      group = self.bases_of.get(method, "")
      groups.setdefault(f"start of {self.methods.get(group, group)}" if group else "start", []).append(method)
    return {name: tuple(methods) for name, methods in groups.items()}

  def share_bases(self, method: str, other_method: str) -> bool:
    """Whether two methods start from the same models."""
    return self.bases_of.get(method, "") == self.bases_of.get(other_method, "")

  @property
  def reference(self) -> str:
    """The method that the other methods are compared with.

    It is the one that study.json names, else of those whose runs are of REFERENCE_VERB the one of that name or the
    first; before any of them ran, the method of that name, else the first.
    """
    if self.named_reference:
      return self.named_reference
    trained_by_sft = {method for (_, method, _), run in self.runs.items() if run.verb == REFERENCE_VERB}
    candidates = [method for method in self.methods if method in trained_by_sft] or [REFERENCE_VERB]
    candidates.sort(key=lambda method: method != REFERENCE_VERB)
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
    return next((variant for variant in self.variants if "unseen" in variant and not variant.startswith(EMA)), "")

  @property
  def variants(self) -> tuple[str, ...]:
    """The evaluated variants: in distribution first, the shifted one last."""
    seen = dict.fromkeys(e.variant for run in self.runs.values() for e in run.evaluations)
    middle = sorted(variant for variant in seen if variant not in (self.id, self.ood))
    return tuple(variant for variant in (self.id, *middle, self.ood) if variant in seen)

  @property
  def own_variants(self) -> tuple[str, ...]:
    """The variants without those of averaged parameters, which few methods have."""
    return tuple(variant for variant in self.variants if not variant.startswith(EMA))

  @property
  def probes(self) -> tuple[str, ...]:
    """The variants that are tasks from before training, those of averaged parameters apart."""
    probes = dict.fromkeys(e.variant for run in self.runs.values() for e in run.evaluations if e.probe)
    return tuple(variant for variant in probes if not variant.startswith(EMA))

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
