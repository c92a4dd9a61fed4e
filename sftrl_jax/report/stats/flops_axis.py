"""One axis of compute: where methods are compared, curves over FLOPs, and one curve read at another's success.

FLOPs are those of post-training only, as the runs charged them (padding and discarded rollouts included);
pre-training of the start is shared and not counted.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sftrl_jax.report.labels import flops_text
from sftrl_jax.report.records import Run, RunKey, Study

TOLERANCE = 0.03
ABSENT = "–"


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Which runs are compared and at how many FLOPs.

  `at` maps (base, method, seed) to FLOPs (inf: the run's last evaluation), `spent` to the FLOPs of that evaluation;
  `left_out` names unfinished runs.
  """

  at: dict[RunKey, float]
  notes: tuple[str, ...]
  left_out: tuple[str, ...]
  spent: dict[RunKey, float]

  def equal_flops(self, key: RunKey, partner: RunKey) -> tuple[float, float]:
    """Where two runs are read for their gap: as everywhere if that is at equal FLOPs, else at the smaller of both."""
    pair = [min(self.at[run], self.spent[run]) for run in (key, partner)]
    if max(pair) <= min(pair) * (1 + TOLERANCE):
      return self.at[key], self.at[partner]
    return min(pair), min(pair)

  @property
  def bases(self) -> int:
    """The number of bases that have a run in the comparison."""
    return len({base for base, _, _ in self.at})


def last_flops(run: Run) -> float:
  """FLOPs at a run's last evaluation, 0 if it has none after the start."""
  return max((e.flops for e in run.evaluations if e.step > 0), default=0.0)


def comparison(study: Study) -> Comparison:
  """The runs to compare, per method the finished ones (the unfinished where none is), at equal FLOPs within a base.

  Last evaluations within 3% of one another count as equal; otherwise every method of that base is read at the smallest,
  by linear interpolation between evaluations, and a note says so. A method with a budget of its own is read at its end,
  and so is every one of many methods, lest one that stopped early hides what the others came to.
  """
  compared, notes, left_out = {}, [], []
  for method, budget in study.budgets.items():
    words = " and ".join(f"{flops_text(value)} FLOPs" if key == "flops" else f"{value:,.0f} {key}"
                         for key, value in budget.items())
    notes.append(f"{study.methods[method]} has a budget of its own ({words}): it is read at its own end, and a gap to "
                 "another method at the smaller FLOPs of the two.")
  for method, label in study.methods.items():
    runs = {key: run for key, run in study.runs.items() if key[1] == method}
    trained = {key: run for key, run in runs.items() if any(e.step > 0 for e in run.evaluations)}
    finished = {key: run for key, run in trained.items() if run.finished}
    if trained and not finished:
      notes.append(f"No {label} run is finished: what there is of them is compared, at the FLOPs reached so far.")
    compared |= finished or trained
    left_out += [run.name for key, run in runs.items() if key not in (finished or trained)]
  if study.has_many_methods:
    reached = {key[1]: last_flops(run) for key, run in compared.items() if key[1] not in study.budgets}
    most = max(reached.values(), default=0.0)
    short = {method: flops for method, flops in reached.items() if flops * (1 + TOLERANCE) < most}
    notes += [f"{study.methods[method]} ends at {flops_text(flops)} FLOPs, before others: it is read there, and a gap "
              "to another method at the smaller FLOPs of the two." for method, flops in short.items()]
    return Comparison({key: math.inf for base in study.bases for key in compared if key[0] == base}, tuple(notes),
                      tuple(left_out), {key: last_flops(run) for key, run in compared.items()})
  at = {}
  for base in study.bases:
    spent = {key: last_flops(run) for key, run in compared.items() if key[0] == base and key[1] not in study.budgets}
    low, high = min(spent.values(), default=0.0), max(spent.values(), default=0.0)
    equal = high <= low * (1 + TOLERANCE)
    at |= dict.fromkeys(spent, math.inf if equal else low)
    if not equal:
      notes.append(f"base-{base}: last evaluations lie between {low:.3g} and {high:.3g} FLOPs, more than 3% apart; its "
                   f"methods are compared at {low:.3g} by linear interpolation between evaluations.")
  at |= {key: math.inf for key in compared if key[1] in study.budgets}
  at = {key: at[key] for base in study.bases for key in compared if key[0] == base}
  return Comparison(at, tuple(notes), tuple(left_out), {key: last_flops(compared[key]) for key in at})


def read_at(flops_K: Sequence[float], values_RK: np.ndarray, at: float) -> np.ndarray:
  """Values [R] at `at` FLOPs, linear between evaluations and held at the ends."""
  flops_K = np.asarray(flops_K, float)
  if at >= flops_K[-1]:
    return values_RK[:, -1]
  right = int(np.searchsorted(flops_K, at, side="right"))
  if right == 0:
    return values_RK[:, 0]
  share = (at - flops_K[right - 1]) / (flops_K[right] - flops_K[right - 1])
  return values_RK[:, right - 1] + np.float32(share) * (values_RK[:, right] - values_RK[:, right - 1])


def first_crossing(along_RK: np.ndarray, read_RK: np.ndarray, target_R: np.ndarray) -> np.ndarray:
  """`read` where `along` first reaches `target`, per resample [R]; NaN where it starts there or never gets there."""
  below = along_RK[:, :-1] < target_R[:, None]
  reached = along_RK[:, 1:] >= target_R[:, None]
  hit_RK = below & reached
  rows, step = np.arange(len(target_R)), hit_RK.argmax(axis=1)
  valid = hit_RK.any(axis=1) & (along_RK[:, 0] < target_R)
  left, right = along_RK[rows, step], along_RK[rows, step + 1]
  share = (target_R - left) / np.where(valid, right - left, 1)
  value = read_RK[rows, step] + share * (read_RK[rows, step + 1] - read_RK[rows, step])
  return np.where(valid, value, np.nan)


def bracket(along_K: np.ndarray, target: float) -> tuple[int, int] | tuple[()]:
  """The evaluations (index before, index after) between which `along` first reaches `target`; () if it does not."""
  if along_K[0] >= target:
    return ()
  reached = np.flatnonzero(np.asarray(along_K[1:]) >= target)
  return (int(reached[0]), int(reached[0]) + 1) if reached.size else ()


def mean_curve(curves: Iterable[tuple[Sequence, Sequence]], points: int = 25) -> tuple[np.ndarray, np.ndarray]:
  """Mean of curves [(x_K, y_K), ...] as (x, y).

  Curves with the same evaluations (x within 5% of the last) are averaged evaluation by evaluation; others on a common
  grid up to the shortest curve's end.
  """
  curves = [(np.asarray(x, float), np.asarray(y, float)) for x, y in curves if len(x)]
  if not curves:
    return np.zeros(0), np.zeros(0)
  if len({len(x) for x, _ in curves}) == 1:
    stack = np.array([x for x, _ in curves])
    if np.ptp(stack, axis=0).max() <= 0.05 * max(stack.max(), 1e-300):
      return stack.mean(axis=0), np.mean([y for _, y in curves], axis=0)
  grid = np.linspace(max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves), points)
  return grid, np.mean([np.interp(grid, x, y) for x, y in curves], axis=0)


def account(run: Run) -> dict[str, float]:
  """FLOPs that a run was charged for training, rollouts, scoring and in total at its last metrics line, 0 if absent."""
  parts = {part: run.last(f"compute/{part}_flops", 0.0) for part in ("train", "rollout", "score", "total")}
  parts["total"] = parts["total"] or parts["train"] + parts["rollout"] + parts["score"] or last_flops(run)
  return parts


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """A nested dict as {dotted key: value}."""
  pairs = {}
  for name, value in config.items():
    key = f"{prefix}{name}"
    pairs |= flat(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
  return pairs


def differing(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list]]:
  """The keys in which configs differ, sorted: [(key, its value in each config, ABSENT where a config has none)]."""
  flats = [flat(config) for config in configs]
  keys = sorted(set().union(*flats))
  rows = [(key, [config.get(key, ABSENT) for config in flats]) for key in keys]
  return [(key, values) for key, values in rows if any(value != values[0] for value in values[1:])]
