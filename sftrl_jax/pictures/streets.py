"""Street views of generated cities: four views of 90 degrees from a point, with shopfront signs that can be read.

A view is drawn by casting a ray for each column. The free ground around a point is the union of the corridors of its
streets, and each corridor holds the point, so a ray ends at the farthest of the walls that it would meet in each of
them. Depth Z of the column with slope t = x / f (f: half the width of a view of 90 degrees): W in front of a wall
across, and W / |t cos a - sin a| in the street at a degrees to the right. Backgrounds are drawn once and copied.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HALF_STREET, HALF_ROAD, EYE = 7.0, 4.0, 1.7   # meters: from the middle to a wall, to the kerb; height of the camera
FAR = 300.0   # meters: no wall is further
VARIANTS = 4   # of a background: other buildings
TINTS = 2   # of every palette of a look
COLUMNS = 120   # pixels of a view from which views are parted by a line and a sign has a name's two lines

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Palette:
  """The colours of a city. sky: above and at the horizon; sign: board, ink, frame."""

  sky: tuple[Colour, Colour]
  road: Colour
  pavement: Colour
  facades: tuple[Colour, ...]
  window: Colour
  sign: tuple[Colour, Colour, Colour]
  height: float   # meters of an average building


# Looks by daylight and by dusk: no palette is in both.
DAY = (
    Palette(((92, 148, 214), (196, 220, 240)), (78, 78, 82), (168, 166, 160), (
        (168, 84, 66), (190, 160, 120), (140, 120, 108), (204, 190, 170), (120, 96, 84)), (58, 74, 92), (
            (250, 248, 240), (20, 20, 24), (60, 60, 60)), 11.0),
    Palette(((120, 160, 200), (214, 224, 232)), (92, 90, 88), (186, 180, 168), (
        (214, 200, 176), (226, 214, 196), (196, 170, 136), (180, 150, 120), (208, 186, 160)), (84, 98, 110), (
            (28, 64, 120), (250, 250, 250), (250, 250, 250)), 9.0),
    Palette(((150, 164, 178), (206, 210, 214)), (66, 68, 72), (146, 148, 150), (
        (110, 114, 120), (132, 136, 142), (92, 98, 108), (150, 150, 150), (120, 128, 132)), (176, 192, 204), (
            (20, 96, 60), (248, 248, 230), (230, 230, 200)), 16.0),
    Palette(((70, 130, 200), (180, 206, 230)), (84, 80, 76), (176, 160, 140), (
        (196, 110, 80), (220, 150, 90), (150, 80, 70), (230, 180, 120), (170, 120, 100)), (52, 60, 72), (
            (250, 214, 70), (40, 24, 10), (90, 50, 20)), 8.0))
DUSK = (
    Palette(((40, 30, 84), (232, 120, 84)), (44, 40, 52), (84, 74, 86), (
        (70, 52, 80), (92, 60, 84), (58, 48, 72), (104, 76, 92), (80, 64, 92)), (250, 206, 110), (
            (24, 20, 34), (255, 214, 120), (255, 120, 90)), 13.0),
    Palette(((12, 16, 36), (44, 60, 96)), (28, 30, 38), (60, 64, 74), (
        (36, 44, 64), (48, 52, 70), (30, 40, 52), (56, 60, 80), (42, 50, 58)), (240, 230, 160), (
            (14, 60, 70), (180, 255, 240), (90, 230, 220)), 18.0),
    Palette(((214, 140, 100), (250, 214, 150)), (126, 100, 78), (206, 170, 124), (
        (222, 184, 130), (206, 160, 104), (236, 204, 156), (190, 140, 92), (230, 190, 120)), (96, 60, 40), (
            (120, 20, 30), (255, 236, 200), (240, 200, 140)), 6.0),
    Palette(((96, 120, 110), (190, 206, 180)), (70, 82, 74), (120, 140, 120), (
        (80, 120, 100), (110, 150, 120), (70, 100, 110), (140, 170, 140), (90, 130, 90)), (220, 236, 200), (
            (240, 240, 230), (150, 20, 110), (150, 20, 110)), 10.0))
LOOKS = {"day": DAY, "dusk": DUSK}


@dataclasses.dataclass(frozen=True)
class Sign:
  """A shopfront sign: the words of a name, and where it is seen, in degrees to the right of where one faces."""

  name: str
  angle: float


@dataclasses.dataclass(frozen=True)
class Scene:
  """What is around a point. streets: degrees to the right of where one faces; crossing: has zebra stripes

  city: its number, which decides its palette; place: any text that names the point, which decides the buildings
  signs: a view shows the first that lies in it
  """

  city: int
  place: str
  streets: tuple[float, ...]
  crossing: bool
  signs: tuple[Sign, ...] = ()


def palette(city: int, look: str) -> Palette:
  """The palette of a city in a look, a key of LOOKS: cities of neighbouring numbers have different ones."""
  return _palettes(look)[city % len(_palettes(look))]


@functools.cache
def _palettes(look: str) -> tuple[Palette, ...]:
  """Those of a look, first as they are and then with tints: few, because every one has backgrounds of its own."""
  return tuple(_tinted(kind, (14 * tint, -10 * tint, -14 * tint)) for tint in range(TINTS) for kind in LOOKS[look])


def _tinted(chosen: Palette, tint: tuple[int, int, int]) -> Palette:
  tinted = lambda colour: tuple(min(255, max(0, value + change)) for value, change in zip(colour, tint, strict=True))
  return dataclasses.replace(chosen, sky=tuple(map(tinted, chosen.sky)), facades=tuple(map(tinted, chosen.facades)))


def panel(scene: Scene, look: str, pixels: int, turns: tuple[float, ...] = (0.0, 90.0, 180.0, 270.0)) -> np.ndarray:
  """Four views of `pixels` a side as one picture, parted by a black line: uint8 [side, side, 3].

  Row by row they look `turns` degrees to the right of where one faces. The default is front and right above, back and
  left below. The side is that of `side(pixels)`.
  """
  colours = palette(scene.city, look)
  return arrange([_view(scene, colours, pixels, turn) for turn in turns])


def side(pixels: int) -> int:
  """Pixels of a panel's side: two views, and a line of 5 pixels where views have 1200, as in the released code."""
  return 2 * pixels + _line(pixels)


def arrange(views: list[np.ndarray]) -> np.ndarray:
  """Four square views as one picture, row by row."""
  pixels = len(views[0])
  picture = np.zeros((side(pixels), side(pixels), 3), np.uint8)
  for place, view in enumerate(views):
    y, x = ((pixels + _line(pixels)) * index for index in divmod(place, 2))
    picture[y : y + pixels, x : x + pixels] = view
  return picture


def _line(pixels: int) -> int:
  return max(1, round(pixels / 240)) if pixels >= COLUMNS else 0


def _view(scene: Scene, colours: Palette, pixels: int, turn: float) -> np.ndarray:
  ahead = sorted({5 * round(_bend(street - turn) / 5) for street in scene.streets})
  seen = tuple(angle for angle in ahead if abs(angle) <= 60)
  variant = zlib.crc32(f"{scene.city} {scene.place} {turn:g}".encode()) % VARIANTS
  view = _background(colours, seen, scene.crossing, variant, pixels)
  sign, angle = next(((sign, angle) for sign in scene.signs if -45 <= (angle := _bend(sign.angle - turn)) < 45),
                     (None, 0.0))
  if sign is None:
    return view
  board = _board(_lines(sign.name, pixels), colours.sign, pixels)
  height, width, _ = board.shape
  x = round(pixels / 2 * (1 + math.tan(math.radians(angle))) - width / 2)
  x, y = min(max(0, x), pixels - width), round(0.44 * pixels) - height // 2
  view = view.copy()
  view[y : y + height, x : x + width] = board
  return view


def _bend(angle: float) -> float:
  return (angle + 180) % 360 - 180


def _lines(name: str, pixels: int) -> tuple[str, ...]:
  """The lines of a sign's board. A small one has the last word of the name alone, so that few boards are drawn."""
  words = name.upper().split() or ["?"]
  return (words[-1],) if pixels < COLUMNS or len(words) == 1 else (" ".join(words[:-1]), words[-1])


@functools.lru_cache(maxsize=1024)
def _board(lines: tuple[str, ...], colours: tuple[Colour, Colour, Colour], pixels: int) -> np.ndarray:
  """The board of a sign: uint8 [Y, X, 3], no wider than a view."""
  board, ink, frame = colours
  scale, margin = 2, max(1, pixels // 40)
  font = ImageFont.load_default(_size(lines, scale * (pixels - 4 * margin), scale * pixels * 0.17))
  boxes = [font.getbbox(line, anchor="la") for line in lines]
  width = math.ceil(max(box[2] for box in boxes) / scale) + 2 * margin
  tall = math.ceil((boxes[-1][3] + 1) / scale)
  image = Image.new("RGB", (scale * width, scale * (tall * len(lines) + 2 * margin)), frame)
  draw = ImageDraw.Draw(image)
  edge = scale * max(1, margin // 3)
  draw.rectangle((edge, edge, image.width - 1 - edge, image.height - 1 - edge), fill=board)
  for place, line in enumerate(lines):
    draw.text((image.width / 2, scale * (margin + tall * (place + 0.5))), line, fill=ink, font=font, anchor="mm")
  shown = np.asarray(image.resize((image.width // scale, image.height // scale), Image.Resampling.BOX))
  return shown[: pixels // 2, :pixels]   # a name of a file may be too long for any font


def _size(lines: tuple[str, ...], width: float, height: float) -> int:
  """The largest font in which every line is at most so wide and high."""
  widest = max(ImageFont.load_default(100).getlength(line) for line in lines)
  return max(6, int(min(height, 100 * width / widest)))


@functools.lru_cache(maxsize=1024)
def _background(colours: Palette, streets: tuple[int, ...], crossing: bool, variant: int, pixels: int) -> np.ndarray:
  """A view without a sign, read-only: uint8 [pixels, pixels, 3]. streets: degrees to the right of the view's middle"""
  slope = (np.arange(pixels) + 0.5) / (pixels / 2) - 1   # of each column, and of each row downwards
  depth, along, wall = _walls(slope, streets)
  view = np.empty((pixels, pixels, 3), np.float32)
  rows, columns = slope[:, None], slope[None]
  view[:] = _sky(colours, slope)[:, None]
  height = EYE - rows * depth   # meters above the ground of what a pixel shows of the wall
  block = np.floor(along / 9).astype(int)
  number = (block * 7 + wall * 13 + variant * 29) % 97
  roof = colours.height * (0.6 + 0.8 * (number * 37 % 97) / 97)
  shade = np.where(wall == 0, 1.0, 0.8 + 0.15 * (wall % 2)) * (1 - 0.35 * np.minimum(depth / 80, 1))
  facade = np.array(colours.facades, np.float32)[number % len(colours.facades)] * shade[:, None]
  is_wall = (height >= 0) & (height < roof)
  view = np.where(is_wall[..., None], facade[None], view)
  across, up = along % 2.6, height % 3.2
  glass = is_wall & (height > 3.4) & (height < roof - 0.8) & (across > 0.7) & (across < 1.9) & (up > 0.9) & (up < 2.4)
  shop = is_wall & (height < 2.6) & (along % 4.5 > 0.5) & (along % 4.5 < 3.9)
  view[glass] = colours.window
  view[shop] = 0.6 * np.array(colours.window, np.float32)
  ground = (rows > 0) & (height < 0)
  distance = EYE / np.maximum(rows, 1e-6)
  road, line, zebra = _road(columns * distance, np.broadcast_to(distance, (pixels, pixels)), streets, crossing)
  view[ground] = colours.pavement
  view[ground & road] = colours.road
  view[ground & (line | zebra)] = (226, 226, 220)
  view = view.round().astype(np.uint8)
  view.flags.writeable = False
  return view


def _walls(slope: np.ndarray, streets: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(depth, meters along the wall, number of the wall) of each column."""
  depth = np.full(slope.shape, HALF_STREET)
  along, wall = slope * depth + 100, np.zeros(slope.shape, int)   # the facade across
  for place, street in enumerate(streets):
    sine, cosine = math.sin(math.radians(street)), math.cos(math.radians(street))
    offset = slope * cosine - sine
    reach = np.minimum(HALF_STREET / np.maximum(np.abs(offset), 1e-6), FAR)
    farther = (reach > depth) & (slope * sine + cosine > 0)
    depth = np.where(farther, reach, depth)
    along = np.where(farther, reach * (slope * sine + cosine), along)
    wall = np.where(farther, 2 * place + 1 + (offset > 0), wall)
  return depth, along, wall


def _road(x: np.ndarray, z: np.ndarray, streets: tuple[int, ...], crossing: bool
          ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Where the ground at (x, z), meters to the right and ahead, is road, a line on it, or a zebra crossing."""
  road = np.abs(z) < HALF_ROAD if 0 not in streets else np.zeros(x.shape, bool)
  line, zebra = np.zeros(x.shape, bool), np.zeros(x.shape, bool)
  for street in streets:
    sine, cosine = math.sin(math.radians(street)), math.cos(math.radians(street))
    beside, ahead = x * cosine - z * sine, x * sine + z * cosine
    inside = (np.abs(beside) < HALF_ROAD) & (ahead > -HALF_ROAD)
    road |= inside
    line |= inside & (np.abs(beside) < 0.14) & (ahead % 5 < 2.5) & (ahead > 8)
    if crossing:
      zebra |= inside & (ahead > 5) & (ahead < 7.5) & (beside % 1.2 < 0.6)
  return road, line, zebra


def _sky(colours: Palette, slope: np.ndarray) -> np.ndarray:
  """float32 [rows, 3]: from the colour above to that at the horizon."""
  high, low = (np.array(colour, np.float32) for colour in colours.sky)
  share = np.clip(slope + 1, 0, 1)[:, None]
  return high * (1 - share) + low * share
