"""How far the roofline of `sftrl plan` is from published step times, and the efficiency that the two imply.

  efficiency of a run = lower bound on its step / published seconds of its step
  predicted seconds = lower bound / efficiency of its generation of chips

The rule of the split was chosen before any figure was computed: of the runs sorted by name, those at even places
(0, 2, ...) calibrate and the others test. Each generation has one efficiency, which minimises the sum of |log(predicted
/ published)| over its calibrating runs, that is, their median. Names begin with the chip, so each generation has both.
"""

import dataclasses
import functools
import statistics

from sftrl_jax.parallel.chips import GIB, TPUS, V7X, Chip
from sftrl_jax.programs.plan.compilation import Machine, lower_bound
from sftrl_jax.programs.plan.published import train_step
from sftrl_jax.programs.plan.published.runs import COUNTS, MODELS, RUNS, PublishedRun

CHIPS = {**TPUS, V7X.kind: V7X}


@dataclasses.dataclass(frozen=True)
class Prediction:
  """A published run, and what is known of it without running it. FLOPs are those of a step on one chip.

  parameters: all of the model; our_flops: by models/flops.py, all scores counted; their_flops: in the publisher's count
  seconds: published, or their FLOPs / published FLOP/s; bound: least seconds of a step; bound_by: its resource
  calibrates: whether the run belongs to the half that gives the efficiency
  predicted: seconds by the efficiency of the generation
  """

  run: PublishedRun
  parameters: float
  our_flops: float
  their_flops: float
  seconds: float
  bound: float
  bound_by: str
  calibrates: bool
  predicted: float = 0.0

  @property
  def efficiency(self) -> float:
    return self.bound / self.seconds

  @property
  def ratio(self) -> float:
    return self.predicted / self.seconds

  @property
  def error(self) -> float:
    """How far the prediction is off, as a share of the smaller of the two times."""
    return max(self.ratio, 1 / self.ratio) - 1

  def mfu(self, seconds: float) -> float:
    """Their FLOPs in so many seconds, as a share of the chip's peak."""
    return self.their_flops / (seconds * CHIPS[self.run.chip].flops)

  @property
  def recount(self) -> float | None:
    """Our count of their FLOPs over the published one; None where it was not published, or only without a time."""
    known = self.run.seconds or self.run.tokens_per_second
    return self.their_flops / (self.seconds * self.run.tflops * 1e12) if known and self.run.tflops else None


def machine(chip: Chip) -> Machine:
  """The peaks of a chip."""
  return Machine(chip.hbm_gib * GIB, chip.flops, chip.bandwidth, chip.ici)


def is_calibrating(names: tuple[str, ...]) -> dict[str, bool]:
  """Whether the run of each name calibrates: those at even places in the order of the names."""
  return {name: place % 2 == 0 for place, name in enumerate(sorted(names))}


def fit(runs: tuple[Prediction, ...]) -> float:
  """The efficiency of least absolute log error: the median, between the middle two their geometric mean."""
  ordered = sorted(run.efficiency for run in runs)
  return (ordered[(len(ordered) - 1) // 2] * ordered[len(ordered) // 2]) ** 0.5


@functools.cache
def predictions() -> tuple[Prediction, ...]:
  """All published runs in the order of their names, predicted by the efficiency of their generation."""
  calibrates = is_calibrating(tuple(run.name for run in RUNS))
  runs = tuple(_unpredicted(run, calibrates[run.name]) for run in sorted(RUNS, key=lambda run: run.name))
  fitted = {chip: fit(tuple(run for run in runs if run.calibrates and run.run.chip == chip))
            for chip in dict.fromkeys(run.run.chip for run in runs)}
  return tuple(dataclasses.replace(run, predicted=run.bound / fitted[run.run.chip]) for run in runs)


@dataclasses.dataclass(frozen=True)
class Efficiency:
  """Of the published runs on one generation of chips. fitted: on the calibrating half; lowest, highest: of all."""

  fitted: float
  lowest: float
  highest: float
  runs: int


def efficiency(chip: str) -> Efficiency | None:
  """The efficiency of published runs on chips of a kind; None where there are none."""
  runs = [run for run in predictions() if run.run.chip == chip]
  if not runs:
    return None
  shares = [run.efficiency for run in runs]
  return Efficiency(runs[0].bound / runs[0].predicted, min(shares), max(shares), len(runs))


def tested_errors(runs: tuple[Prediction, ...]) -> tuple[float, Prediction]:
  """(median error, the run of the worst error) of the half that did not calibrate."""
  tested = [run for run in runs if not run.calibrates]
  return statistics.median(run.error for run in tested), max(tested, key=lambda run: run.error)


def _unpredicted(run: PublishedRun, calibrates: bool) -> Prediction:
  step, theirs = train_step.of(run), train_step.counted_flops(run, run.count)
  if run.seconds:
    seconds = run.seconds
  elif run.tokens_per_second:
    seconds = step.tokens / run.tokens_per_second
  else:
    seconds = theirs / (run.tflops * 1e12)
  bound, bound_by = lower_bound(step.computed_flops, step.traffic, machine(CHIPS[run.chip]))
  return Prediction(run, train_step.parameters(MODELS[run.model]), train_step.counted_flops(run, COUNTS[1]), theirs,
                    seconds, bound, bound_by, calibrates)
