"""Reading alone: a picture with a sign in each of its four views, or in some; the whole response names them in order.

  prompt    [picture] SEE
  response  bank nothing cafe zoo     (front, right, back, left)

A point of a route has one sign at most, so a model that reads this picture learns from four signs where a route's gives
it one.
"""

from __future__ import annotations

import random

from sftrl_jax.envs.virl import city, compact, compass
from sftrl_jax.envs.virl.route import Landmark

SHARE = 0.8   # of the views that have a sign
_SIGHTS = frozenset((compact.NOTHING, *city.KNOWN, *city.UNSEEN))

Signs = tuple[Landmark | None, ...]   # one a view


def draw(source: random.Random, pool: str, turns: tuple[float, ...]) -> Signs:
  """A landmark of the pool, or None, for each view; turns: degrees to the right in which the views look."""
  signs = []
  for turn in turns:
    angle = (turn + source.randrange(-45, 45)) % 360
    kind = source.choice(city.POOLS[pool])
    shown = source.random() < SHARE
    signs.append(Landmark(kind.capitalize(), kind, compass.side_word(0, angle), angle) if shown else None)
  return tuple(signs)


def write(signs: Signs) -> str:
  return " ".join(map(compact.kind_of, signs))


def judge(signs: Signs, response: str) -> str:
  """The code of a response."""
  words = response.split(" ") if len(response) <= compact.LONGEST else ()
  if len(words) != len(signs) or not _SIGHTS.issuperset(words):
    return "illegal"
  return "correct" if response == write(signs) else "misread"


def misread(signs: Signs, source: random.Random, pool: str) -> str:
  """A response that takes one of the signs, or the lack of one, for another."""
  words, place = write(signs).split(" "), int(source.random() * len(signs))
  words[place] = source.choice([kind for kind in city.POOLS[pool] if kind != words[place]])
  return " ".join(words)
