"""Two ways to do the same work, timed in turns: on a shared machine only measurements close in time can be compared."""

import dataclasses
import statistics
import time
from collections.abc import Callable

Work = Callable[[], float | None]   # returns when it is done; a number is its own count of seconds


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Seconds of the same work, pair by pair; `theirs` is () where there is no peer."""

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
    """Speed of ours over theirs, in each pair."""
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
  """Seconds of one piece of work: by its own count, or else by the wall clock."""
  began = time.perf_counter()
  counted = work()
  return time.perf_counter() - began if counted is None else counted


def alternate(ours: Work, theirs: Work | None, count: int, clock: Callable[[Work], float] = timed) -> Pairs:
  """`count` pairs after one warm-up of each; ours goes first in every other pair."""
  ours()
  if theirs is None:
    return Pairs(tuple(clock(ours) for _ in range(count)))
  theirs()
  our_seconds, their_seconds = [], []
  for number in range(count):
    turns = [(ours, our_seconds), (theirs, their_seconds)]
    for work, seconds in turns if number % 2 == 0 else reversed(turns):
      seconds.append(clock(work))
  return Pairs(tuple(our_seconds), tuple(their_seconds))
