"""A route: legs between intersections, and the rail of points at which the policy acts.

The policy never leaves the rail: a right action moves on to the next point, a wrong one does not.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

from sftrl_jax.envs.virl import compass

END_MARGIN = 8.0   # meters: no point between the ends of a leg is nearer to one of them
SHORTEST = 5.0     # meters: a leg up to this length has no point between its ends

Place = tuple[float, float]   # (x, y): meters east and north


@dataclasses.dataclass(frozen=True, slots=True)
class Landmark:
  """What is seen at a point. `name` is its proper name, `kind` its word in the compact style, `side` one of SIDES.

  angle: of the side, in degrees to the right of where one faces
  """

  name: str
  kind: str
  side: str
  angle: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Leg:
  """A straight walk. heading: degrees; ends: its two places; landmark: at its end, if any.

  between: the points of the rail between the two ends, in order
  distractors: landmarks that are seen there and that the instruction does not name, or None; () for none at all
  streets: headings of the streets that leave either end; () where they are not known
  """

  heading: float
  ends: tuple[Place, Place]
  landmark: Landmark | None
  between: tuple[Place, ...] = ()
  streets: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
  distractors: tuple[Landmark | None, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
  """A point of the rail: what is observed, the line of the instruction that holds (from 1), and the right action.

  move: "turn", "forward" or "stop". absolute, relative: the word of a turn in either action space, else "".
  heading: where one faces on arriving; streets: headings of the streets that leave the point. Both in degrees.
  """

  landmark: Landmark | None
  intersection: bool
  line: int
  move: str
  absolute: str = ""
  relative: str = ""
  place: Place = (0.0, 0.0)
  heading: float = 0.0
  streets: tuple[float, ...] = ()

  def word(self, space: str) -> str:
    return self.absolute if space == "absolute" else self.relative


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
  """The first of a leg's two instructions, as words of both action spaces."""

  relative: str
  absolute: str


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
  """A route. name: for messages and maps; turns, landmarks: those of each leg; points: the rail; city: its number."""

  name: str
  turns: tuple[Turn, ...]
  landmarks: tuple[Landmark | None, ...]
  points: tuple[Point, ...]
  city: int = 0


def make(name: str, facing: float, legs: tuple[Leg, ...], wrap: bool = True, city: int = 0) -> Route:
  """The route along these legs, for somebody who faces `facing` degrees at the start. wrap: of `relative_word`."""
  turns, points, seen = [], [], None
  for index, leg in enumerate(legs):
    line = 2 * index + 1
    turn = Turn(compass.relative_word(facing, leg.heading, wrap), compass.compass_word(leg.heading))
    turns.append(turn)
    # Where a file does not say which streets there are: the one walked along and the next.
    streets = leg.streets[0] or ((facing + 180) % 360, leg.heading)
    points.append(Point(seen, index > 0, line, "turn", turn.absolute, turn.relative, leg.ends[0], facing, streets))
    both = (leg.heading, (leg.heading + 180) % 360)
    shown = leg.distractors or (None,) * len(leg.between)
    points += [Point(sign, False, line + 1, "forward", place=place, heading=leg.heading, streets=both)
               for place, sign in zip(leg.between, shown, strict=True)]
    facing, seen = leg.heading, leg.landmark
  points.append(Point(seen, False, 2 * len(legs), "stop", place=legs[-1].ends[1], heading=facing,
                      streets=legs[-1].streets[1] or ((facing + 180) % 360,)))
  return Route(name, tuple(turns), tuple(leg.landmark for leg in legs), tuple(points), city)


def between(ends: tuple[Place, Place], draw: random.Random, straight: int, drop: float,
            snap: Callable[[Place, tuple[Place, Place]], Place | None]) -> tuple[Place, ...]:
  """The points of the rail between the ends of a leg.

  Of `straight` candidates, at i/straight of its length, each is left out with probability `drop`; each other lies at
  the nearest panorama, unless that is near an end or a point already.

  snap: (place, ends) -> the nearest panorama; None if there is none near
  """
  (x, y), (to_x, to_y) = ends
  places = []
  for index in range(1, straight + 1 if math.dist(*ends) > SHORTEST else 1):
    if draw.random() >= drop:
      share = index / straight
      place = snap((x + share * (to_x - x), y + share * (to_y - y)), ends)
      if place and place not in places and min(math.dist(place, end) for end in ends) > END_MARGIN:
        places.append(place)
  return tuple(places)
