"""Two ways to do the same work, timed in turns: on a machine that others use too, only neighbours in time compare."""

import dataclasses
import statistics
import time
from collections.abc import Callable

Work = Callable[[], float | None]   # returns when it is done, with the seconds that count where not all of them do


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Seconds of the same work, pair by pair; `theirs` is empty where there was no peer."""

  ours: tuple[float, ...]
  theirs: tuple[float, ...] = ()

  @property
  def seconds(self) -> float:
    """The median of ours."""
    return statistics.median(self.ours)

  @property
  def their_seconds(self) -> float:
    return statistics.median(self.theirs)

  @property
  def ratios(self) -> tuple[float, ...]:
    """How many times as fast ours was, in each pair."""
    return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

  @property
  def ratio(self) -> float:
    """The median over pairs."""
    return statistics.median(self.ratios)

  @property
  def spread(self) -> tuple[float, float]:
    """The lowest and the highest ratio of a pair."""
    return min(self.ratios), max(self.ratios)


def timed(work: Work) -> float:
  """Seconds that a piece of work takes."""
  began = time.perf_counter()
  counted = work()
  return time.perf_counter() - began if counted is None else counted


def alternate(ours: Work, theirs: Work | None, count: int, clock: Callable[[Work], float] = timed) -> Pairs:
  """`count` pairs after one warm-up of each. Who goes first changes from pair to pair."""
  ours()
  if theirs is None:
    return Pairs(tuple(clock(ours) for _ in range(count)))
  theirs()
  mine, others = [], []
  for number in range(count):
    turns = [(ours, mine), (theirs, others)]
    for work, seconds in turns if number % 2 == 0 else reversed(turns):
      seconds.append(clock(work))
  return Pairs(tuple(mine), tuple(others))
