"""From how many FLOPs on one method is above another, by paired draws of both curves."""

import dataclasses
import math

import numpy as np

from sftrl_jax.forecast.sigmoid import LEVEL

LEAST_SHARE = (1 + LEVEL) / 2   # of the draws: with fewer, the upper end of the interval is beyond the horizon
POINTS = 200   # of a grid of FLOPs


@dataclasses.dataclass(frozen=True)
class Crossing:
  """at_D: the FLOPs from which on the first is above the second, up to the horizon.

  0: from the first FLOPs of the grid on; infinity: it is not above at the horizon.
  """

  at_D: np.ndarray
  horizon: float

  @property
  def share(self) -> float:
    """Of the draws in which the first is above the second at the horizon."""
    return float(np.isfinite(self.at_D).mean())

  @property
  def is_known(self) -> bool:
    """Whether so many draws pass that the whole interval lies within the horizon."""
    return self.share >= LEAST_SHARE

  def interval(self, level: float = LEVEL) -> tuple[float, float, float]:
    """(low, median, high) over all draws, infinite where these do not pass."""
    ordered = np.sort(self.at_D)
    places = [min(len(ordered) - 1, math.floor(share * len(ordered))) for share in (
        (1 - level) / 2, 0.5, (1 + level) / 2 - 1e-9)]
    low, middle, high = (float(ordered[place]) for place in places)
    return low, middle, high


def grid(first: float, horizon: float) -> np.ndarray:
  """FLOPs from the first evaluation after the start to the horizon, in equal ratios."""
  return np.geomspace(first, horizon, POINTS)


def crossing(first_DG: np.ndarray, second_DG: np.ndarray, flops_G: np.ndarray) -> Crossing:
  """Where `first` rises above `second` and stays there, linear between the FLOPs of the grid."""
  gap_DG = first_DG - second_DG
  under_DG = gap_DG <= 0
  size = gap_DG.shape[1]
  last_D = np.where(under_DG.any(axis=1), size - 1 - under_DG[:, ::-1].argmax(axis=1), -1)
  rows, left, right = np.arange(len(gap_DG)), np.maximum(last_D, 0), np.minimum(last_D + 1, size - 1)
  before, after = gap_DG[rows, left], gap_DG[rows, right]
  share = -before / np.where(after > before, after - before, 1.0)
  at_D = flops_G[left] + share * (flops_G[right] - flops_G[left])
  return Crossing(np.where(last_D < 0, 0.0, np.where(last_D == size - 1, np.inf, at_D)), float(flops_G[-1]))
