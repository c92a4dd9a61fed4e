"""Directions as numbers and as words: headings in degrees clockwise from north, turns, and sides."""

from __future__ import annotations

COMPASS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
RELATIVE = ("left", "slightly left", "slightly right", "right")
SIDES = ("front", "right front", "right", "right behind", "behind", "left behind", "left", "left front")


def compass_word(heading: float) -> str:
  """The nearest of the eight compass words."""
  return COMPASS[round(heading / 45) % 8]


def side_word(heading: float, bearing: float) -> str:
  """Where somebody who faces `heading` sees what lies at `bearing`: one of SIDES."""
  return SIDES[round((bearing - heading) / 45) % 8]


def bend(before: float, after: float) -> float:
  """The turn from one heading to another in degrees, in [-180, 180); negative is left."""
  return (after - before + 180) % 360 - 180


def relative_word(before: float, after: float, wrap: bool = True) -> str:
  """The turn from one heading to another as one of RELATIVE: more than 45 degrees, or at most.

  wrap: without it, 350 to 10 degrees is a turn of -340 degrees to the left, as in the paper's released code.
  """
  turn = bend(before, after) if wrap else after - before
  if abs(turn) > 45:
    return "left" if turn < 0 else "right"
  return "slightly right" if turn > 0 else "slightly left"
