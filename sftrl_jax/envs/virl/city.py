"""Generated cities: a street graph with named landmarks, and routes through it.

A city is a square grid of intersections, turned by some degrees, with streets along the axes and the diagonals. Its
name decides everything, on every machine. Training cities and shifted cities share no name, no kind of landmark and no
landmark's name.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random

from sftrl_jax.envs.virl import compass, route

KNOWN = ("bank", "bakery", "bar", "barber", "bookshop", "cafe", "church", "cinema", "clinic", "diner", "florist",
         "gallery", "garage", "gym", "hotel", "laundry", "library", "market", "museum", "pharmacy", "pizzeria",
         "school", "station", "theatre")
UNSEEN = ("brewery", "casino", "chapel", "circus", "fountain", "harbour", "observatory", "palace", "stadium", "temple",
          "tower", "zoo")
POOLS = {"known": KNOWN, "unseen": UNSEEN, "all": KNOWN + UNSEEN}

_NAMES = {  # first words of landmarks; and first and last syllables of cities
    "known": ("Amber Birch Cedar Clover Copper Corner Elm Garden Golden Harvest Ivory Juniper Linden Maple Meadow "
              "Olive Orchard Park Pearl River Rose Silver Sunny Willow".split(),
              "Alder Brook Carl Dun Esk Fair Glen Hart".split(), "bridge dale ford ham ton wick".split()),
    "unseen": ("Aurora Basalt Cinder Coral Crimson Desert Echo Falcon Glacier Indigo Jade Lotus Marble Monsoon Onyx "
               "Opal Quartz Saffron Sierra Tiger Tundra Velvet Zenith Zephyr".split(),
               "Ka Lu Mira Nor Ora Pasa Quil Sol".split(), "bay crest haven mar polis ville".split())}
_OUT = {0: (0, 1), 1: (1, 1), 2: (1, 0), 3: (1, -1)}   # eighths of a circle -> a step; the other four are these, back
_SPACING = 10.0   # meters between two panoramas of a street
_DRAWS = 20_000

Node = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class City:
  """streets: {node: {eighth of a circle: the next node}}; landmarks: {node: (name, kind, bearing in degrees)}.

  rotation: degrees by which the grid is turned; block: meters between two neighbours along a side; number: of its pool
  """

  name: str
  rotation: int
  block: float
  streets: dict[Node, dict[int, Node]]
  landmarks: dict[Node, tuple[str, str, int]]
  number: int = 0

  def heading(self, eighth: int) -> int:
    return (45 * eighth + self.rotation) % 360

  def place(self, node: Node) -> tuple[float, float]:
    """(x, y) in meters, east and north."""
    angle = math.radians(self.rotation)
    x, y = node[0] * self.block, node[1] * self.block
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


@functools.lru_cache(maxsize=2048)
def generate(number: int, pool: str, size: int, share: float) -> City:
  """The city of this number and pool of landmarks.

  pool: a key of POOLS; size: intersections along a side; share: of intersections that have a landmark.
  """
  draw = random.Random(f"city {pool} {number}")
  words, first, last = _NAMES["unseen" if pool == "unseen" else "known"]
  name = f"{first[number % len(first)]}{last[number // len(first) % len(last)]}"
  name += f" {number // (len(first) * len(last)) + 1}" if number >= len(first) * len(last) else ""
  straight, diagonal = 0.9 + 0.1 * draw.random(), 0.35 + 0.3 * draw.random()
  nodes = [(x, y) for x in range(size) for y in range(size)]
  streets = {node: {} for node in nodes}
  for node in nodes:
    for eighth, (dx, dy) in _OUT.items():
      following = (node[0] + dx, node[1] + dy)
      if following in streets and draw.random() < (diagonal if eighth % 2 else straight):
        streets[node][eighth] = following
        streets[following][eighth + 4] = node
  landmarks, taken = {}, set()
  for node in nodes:
    if draw.random() < share:
      kind = draw.choice(POOLS[pool])
      if pool == "all":
        words = _NAMES["known" if kind in KNOWN else "unseen"][0]
      free = [word for word in words if (word, kind) not in taken] or words
      word = draw.choice(free)
      taken.add((word, kind))
      landmarks[node] = f"{word} {kind.capitalize()}", kind, draw.randrange(360)
  return City(name, draw.randint(-20, 20), draw.randint(60, 110), streets, landmarks, number)


def walk(city: City, draw: random.Random, legs: int, straight: int, drop: float, number: int | str = "",
         wrap: bool = True, distractors: float = 0.0) -> route.Route:
  """A route of so many legs that ends at a landmark and visits no intersection twice; ValueError if none is found.

  straight, drop: candidates for points between the ends of a leg, and the share of them that is left out
  number: for the route's name; wrap: as in route.make
  distractors: share of the points between the ends of a leg at which a landmark of another street is seen
  """
  nodes = list(city.streets)
  for _ in range(_DRAWS):
    node, facing = nodes[int(draw.random() * len(nodes))], int(8 * draw.random())
    path, start = [], city.heading(facing)
    visited = {node}
    while len(path) < legs:
      # Neither straight on nor back: every leg begins with a turn.
      ways = [way for way, following in city.streets[node].items()
              if (way - facing) % 4 and following not in visited]
      if not ways:
        break
      facing = ways[int(draw.random() * len(ways))]
      path.append((node, facing))
      node = city.streets[node][facing]
      visited.add(node)
    if len(path) == legs and node in city.landmarks:
      parts = tuple(_leg(city, *step, draw, straight, drop) for step in path)
      name = f"route {number} of {city.name}"
      # A stream of its own: with and without distractors a seed has the same route.
      parts = _distracted(city, parts, random.Random(f"distractors {name}"), distractors) if distractors else parts
      return route.make(name, start, parts, wrap, city.number)
  raise ValueError(f"no route of {legs} legs was drawn in {city.name} in {_DRAWS} attempts: use fewer legs, a larger "
                   "size, or more landmarks.")


def _leg(city: City, node: Node, facing: int, draw: random.Random, straight: int, drop: float) -> route.Leg:
  following, heading = city.streets[node][facing], city.heading(facing)
  begin, end = city.place(node), city.place(following)
  sign = city.landmarks.get(following)
  landmark = route.Landmark(sign[0], sign[1], compass.side_word(heading, sign[2]),
                            compass.bend(heading, sign[2])) if sign else None
  streets = tuple(tuple(map(city.heading, city.streets[ending])) for ending in (node, following))
  return route.Leg(heading, (begin, end), landmark, route.between((begin, end), draw, straight, drop, _snap), streets)


def _distracted(city: City, legs: tuple[route.Leg, ...], draw: random.Random, share: float) -> tuple[route.Leg, ...]:
  """The legs with landmarks at points between their ends, of kinds that the route does not name."""
  named = {leg.landmark.kind for leg in legs if leg.landmark}
  others = [(name, kind) for name, kind, _ in city.landmarks.values() if kind not in named]
  def sign() -> route.Landmark | None:
    if not others or draw.random() >= share:
      return None
    angle = draw.randrange(-180, 180)
    return route.Landmark(*draw.choice(others), compass.side_word(0, angle), angle)
  return tuple(dataclasses.replace(leg, distractors=tuple(sign() for _ in leg.between)) for leg in legs)


def _snap(place: route.Place, ends: tuple[route.Place, route.Place]) -> route.Place:
  """The nearest panorama of the street."""
  begin, end = ends
  length = math.dist(begin, end)
  share = round(math.dist(begin, place) / _SPACING) * _SPACING / length
  return begin[0] + share * (end[0] - begin[0]), begin[1] + share * (end[1] - begin[1])
