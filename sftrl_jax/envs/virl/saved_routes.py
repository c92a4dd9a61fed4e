"""Routes of the paper's data: `route_infos.json`, with `gps_pano_mapping.pkl` (places of panoramas) beside it.

Both files are hostile input. JSON of any form ends in routes or in a ValueError that names file, route and key; the
pickle is read by an unpickler that knows no class and no function, so it cannot execute anything.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pickle
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sftrl_jax.envs.virl import compass, route as routes
from sftrl_jax.envs.virl.route import Landmark, Leg, Place

MAPPING = "gps_pano_mapping.pkl"
LARGEST = 1 << 30      # bytes of a file that is read
RADIUS = 20.0          # meters: a point lies at a panorama that is at most so far
METERS = 111_195.0     # of a degree of latitude
_BLOCK = re.compile(r"\{([^{}]*)\}")
_HEADING = re.compile(r"\s*(-?\d{1,4}(?:\.\d{1,9})?)\s*(?:\(|$)")
_LANDMARK = re.compile(r"(?:The destination )?(.{1,300}?) (?:is|are) on your (.{1,30}?)\.?$")
_NAME = re.compile(r"[\w-]{1,100}", re.ASCII)
_NONE = re.compile(r"no landmarks? nearby\.?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class SavedRoute:
  """A route of a file. facing: degrees at the start, 0 where the data does not say; panoramas: places near it."""

  where: str
  facing: float
  legs: tuple[Leg, ...]
  panoramas: tuple[Place, ...]

  @property
  def points(self) -> tuple[Leg, ...]:
    """As many as the rail can have: four points between the ends of a leg, its beginning, and the destination."""
    return (*(5 * self.legs), self.legs[-1])


def route(saved: SavedRoute, draw: random.Random, straight: int, drop: float, wrap: bool, random_start: bool
          ) -> routes.Route:
  """The rail of a saved route. random_start: a heading of 0 at the start means a random one, as in the released code;
  else it is that of the first leg."""
  snap = functools.partial(_snap, saved.panoramas)
  legs = tuple(dataclasses.replace(leg, between=routes.between(leg.ends, draw, straight, drop, snap))
               for leg in saved.legs)
  facing = saved.facing or (draw.randrange(360) if random_start else saved.legs[0].heading)
  return routes.make(saved.where, facing, legs, wrap)


def read(path: str) -> tuple[SavedRoute, ...]:
  """The routes of a file, or of the directory that holds it; ValueError that names file and route for a wrong one."""
  file = Path(path).expanduser()
  file = file / "route_infos.json" if file.is_dir() else file
  try:
    stamps = tuple(part.stat() for part in (file, file.with_name(MAPPING)))
  except OSError as error:
    raise ValueError(f"routes is {path!r}, but {error.filename} cannot be read ({error.strerror}): give the path of "
                     f"route_infos.json, with {MAPPING} beside it.") from None
  return _read(file, tuple((stamp.st_mtime_ns, stamp.st_size) for stamp in stamps))


@functools.lru_cache(maxsize=8)
def _read(file: Path, stamps: tuple) -> tuple[SavedRoute, ...]:
  for part, (_, size) in zip((file, file.with_name(MAPPING)), stamps, strict=True):
    if size > LARGEST:
      raise ValueError(f"{part} has {size} bytes, and at most {LARGEST} are read.")
  try:
    table = json.loads(file.read_text(encoding="utf-8"), parse_constant=float)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{file} is no JSON ({error}).") from None
  entries = table[0] if isinstance(table, list) and table and isinstance(table[0], list) else None
  if not entries:
    raise ValueError(f"{file} must be a list whose first item is the list of routes.")
  panoramas = tuple(_load_mapping(file.with_name(MAPPING)))
  return tuple(_route(entry, f"{file}, route {number}", panoramas) for number, entry in enumerate(entries))


def _route(entry: Any, where: str, panoramas: tuple[Place, ...]) -> SavedRoute:
  start = _get(entry, where, "start_place", dict)
  result = _get(entry, where, "route_results", dict)
  codes = [start.get("relocated_geocode") or start.get("geocode"), *_get(result, where, "geocode_list", list)]
  if len(codes) < 2:
    raise ValueError(f"{where}: geocode_list is empty, so the route has no leg.")
  places = [_place(code, where) for code in codes]
  blocks = list(_blocks(_get(entry, where, "milestone_info", str)))
  if len(blocks) not in (len(codes), len(codes) - 1):
    raise ValueError(f"{where}: milestone_info has {len(blocks)} blocks for {len(codes) - 1} legs.")
  if len(set(places)) < len(places):
    raise ValueError(f"{where}: it comes to one place twice, so its instruction is ambiguous: leave it out.")
  ends = blocks[len(blocks) - len(codes) + 1:]   # the block of each leg's end; a block more is that of the start
  facing = entry.get("init_heading", 0)
  if isinstance(facing, bool) or not isinstance(facing, (int, float)) or not math.isfinite(facing):
    raise ValueError(f"{where}: init_heading is {facing!r}, but it must be a finite number of degrees.")
  legs = tuple(_leg(pair, heading, landmark, where) for pair, heading, landmark in zip(
      zip(places, places[1:], strict=False), blocks, ends, strict=False))
  if legs[-1].landmark is None:
    raise ValueError(f"{where}: the last block of milestone_info names no destination.")
  near = tuple(place for place in panoramas if any(_near(place, leg.ends) for leg in legs))
  return SavedRoute(where, facing % 360, legs, near)


def _leg(ends: tuple[Place, Place], block: dict[str, str], end_block: dict[str, str], where: str) -> Leg:
  text = block.get("to_next_intersection_heading", "")
  heading = _HEADING.match(text)
  if not heading:
    raise ValueError(f"{where}: to_next_intersection_heading is {text!r}, but it must begin with degrees, as in "
                     "'259 (west)'.")
  return Leg(float(heading[1]) % 360, ends, _landmark(end_block.get("landmarks", ""), where))


def _landmark(text: str, where: str) -> Landmark | None:
  if not text or _NONE.fullmatch(text):
    return None
  match = _LANDMARK.fullmatch(text)
  if not match:
    raise ValueError(f"{where}: landmarks is {text[:120]!r}, but it must read '... is on your right' or 'No landmark "
                     "nearby'.")
  angle = 45.0 * compass.SIDES.index(match[2]) if match[2] in compass.SIDES else 0.0
  return Landmark(match[1], "", match[2], angle)


def _blocks(text: str) -> Iterator[dict[str, str]]:
  """The brace blocks of milestone_info, line by line; a comma at the end of a line is no part of its value."""
  for block in _BLOCK.findall(text):
    pairs = (line.strip().rstrip(",").partition(":") for line in block.strip().splitlines())
    yield {key.strip().strip('"'): value.strip().strip('"') for key, _, value in pairs}


def _get(table: Any, where: str, key: str, kind: type) -> Any:
  value = table.get(key) if isinstance(table, dict) else None
  if not isinstance(value, kind):
    raise ValueError(f"{where}: {key} is a {type(value).__name__}, but it must be a {kind.__name__}.")
  return value


def _place(code: Any, where: str) -> Place:
  """A (latitude, longitude) in meters."""
  numbers = isinstance(code, (list, tuple)) and len(code) == 2 and not any(isinstance(x, bool) for x in code)
  if not numbers or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in code):
    raise ValueError(f"{where}: a geocode is {str(code)[:120]}, but it must be two finite numbers.")
  latitude, longitude = code
  if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
    raise ValueError(f"{where}: a geocode is {code}, but latitudes lie in [-90, 90] and longitudes in [-180, 180].")
  return METERS * math.cos(math.radians(latitude)) * longitude, METERS * latitude


class _Plain(pickle.Unpickler):
  """Numbers, strings and containers. Any class, function or persistent id is an error before it is looked up."""

  def find_class(self, module: str, name: str) -> Any:
    raise pickle.UnpicklingError(f"it names {module}.{name}, but only numbers, strings and containers are read")

  def persistent_load(self, pid: Any) -> Any:
    raise pickle.UnpicklingError("it refers to another file")


def panorama_of(path: str, place: Place) -> str:
  """The name of the panorama nearest to a place, within RADIUS; ValueError where there is none.

  path: as for `read`. A name is letters, digits, - and _ alone, so that it is no path.
  """
  file = Path(path).expanduser()
  mapping = _named(file / MAPPING if file.is_dir() else file.with_name(MAPPING))
  nearest = min(mapping, key=lambda pano: math.dist(pano, place), default=None)
  if nearest is None or math.dist(nearest, place) > RADIUS:
    raise ValueError(f"{MAPPING} of {path} has no panorama within {RADIUS:g} m of a point of a route: leave panoramas "
                     "out, for drawn streets.")
  name = mapping[nearest]
  if not isinstance(name, str) or not _NAME.fullmatch(name):
    raise ValueError(f"{MAPPING} of {path} names a panorama {str(name)[:60]!r}, but a name is made of letters, digits, "
                     "- and _.")
  return name


@functools.lru_cache(maxsize=8)
def _named(file: Path) -> dict[Place, Any]:
  return _load_mapping(file)


def _load_mapping(file: Path) -> dict[Place, Any]:
  """{place: name} of the mapping {(latitude, longitude): panorama}."""
  try:
    with open(file, "rb") as stream:
      mapping = _Plain(stream).load()
  except Exception as error:   # a damaged pickle can raise any
    raise ValueError(f"{file} is no pickle of plain values ({error}).") from None
  if not isinstance(mapping, dict):
    raise ValueError(f"{file} holds a {type(mapping).__name__}, but it must be a dict.")
  return {_place(code, str(file)): name for code, name in mapping.items()}


def _near(place: Place, ends: tuple[Place, Place]) -> bool:
  """Whether a place lies in the box around a leg in which a point of it can lie."""
  return all(min(a, b) - RADIUS <= x <= max(a, b) + RADIUS for x, a, b in zip(place, *ends, strict=True))


def _snap(panoramas: tuple[Place, ...], place: Place, ends: tuple[Place, Place]) -> Place | None:
  del ends
  nearest = min(panoramas, key=lambda pano: math.dist(pano, place), default=None)
  return nearest if nearest and math.dist(nearest, place) <= RADIUS else None
