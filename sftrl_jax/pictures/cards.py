"""Playing cards drawn with Pillow: three decks, four suits, any rank, from 16 pixels a card to a table of 1200.

  deck    card    ink               face
  plain   white   black, red        rank above suit
  deck1   cream   navy, brick red   suit above a thin, slanted rank
  night   dark    light, orange     rank above suit

Faces are drawn at three times their size and shrunk by averaging. Every face is drawn once a process and then copied.
The font is the one inside Pillow: pixels are equal for equal versions of Pillow.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DECKS = ("plain", "deck1", "night")
SUITS = {"S": 0, "C": 0, "H": 1, "D": 1}   # the index of its ink: black or red
TABLE = (0x35, 0x65, 0x4D)   # the green of the paper's canvas
PIPS_FROM = 100   # pixels of width from which a card has corners and pips, rather than one large rank

Card = tuple[str, str]   # rank, suit


class _Deck(NamedTuple):
  paper: tuple[int, int, int]
  inks: tuple[tuple[int, int, int], tuple[int, int, int]]   # black, red
  slant: float   # of the rank: shift to the right a line up
  weight: float   # of the rank's strokes, in shares of its size
  suit_first: bool   # the suit stands above the rank


_DECKS = {
    "plain": _Deck((255, 255, 255), ((0, 0, 0), (200, 16, 16)), 0.0, 0.05, False),
    "deck1": _Deck((250, 240, 205), ((20, 20, 60), (170, 30, 10)), 0.3, 0.0, True),
    "night": _Deck((38, 38, 48), ((225, 225, 235), (255, 150, 90)), 0.0, 0.05, False)}
_SCALE = 3   # drawn pixels a pixel
# Where the pips of the ranks 2 to 10 stand: shares of width and height of the field of pips.
_LEFT, _MIDDLE, _RIGHT = 0.0, 0.5, 1.0
_SIDES = {2: (), 3: (), 4: (0, 1), 5: (0, 1), 6: (0, .5, 1), 7: (0, .5, 1), 8: (0, .5, 1), 9: (0, 1 / 3, 2 / 3, 1),
          10: (0, 1 / 3, 2 / 3, 1)}
_CENTRES = {2: (0, 1), 3: (0, .5, 1), 5: (.5,), 7: (.25,), 8: (.25, .75), 9: (.5,), 10: (1 / 6, 5 / 6)}


def row(cards: Sequence[Card], deck: str, pixels: int, shifts: Sequence[tuple[int, int]] = ()) -> np.ndarray:
  """Cards side by side, each in the middle of a square cell: uint8 [pixels, len(cards) * pixels, 3].

  shifts: of each card, (right, down) in sixteenths of a cell; () for none
  """
  moves = shifts or [(0, 0)] * len(cards)
  return np.concatenate([_cell(deck, rank, suit, pixels, *move)
                         for (rank, suit), move in zip(cards, moves, strict=True)], axis=1)


@functools.lru_cache(maxsize=8)
def table(cards: tuple[Card, ...], deck: str, pixels: int, shifts: tuple[tuple[int, int], ...] = ()) -> np.ndarray:
  """Cards on a square table, read-only: uint8 [pixels, pixels, 3]. The last ones are kept: a group of GRPO shares one.

  The layout is that of the paper's released code, whose canvas has 1200 pixels: cards of 9/10 of pixels / len(cards),
  7/5 as high, in one row from 5 pixels on (of 1200), a tenth of a width apart.

  shifts: of each card, (right, down) in pixels; () for none
  """
  width = max(1, int(pixels / len(cards) * 0.9))
  height = width * 7 // 5
  canvas = _empty_table(pixels).copy()
  for place, (rank, suit) in enumerate(cards):
    right, down = shifts[place] if shifts else (0, 0)
    x = min(max(0, 5 * pixels // 1200 + int(place * width * 1.1) + right), pixels - width)
    y = min(max(0, (pixels - height) // 2 + down), pixels - height)
    canvas[y : y + height, x : x + width] = face(deck, rank, suit, width, height)
  canvas.flags.writeable = False
  return canvas


@functools.lru_cache(maxsize=4)
def _empty_table(pixels: int) -> np.ndarray:
  return np.full((pixels, pixels, 3), TABLE, np.uint8)


@functools.lru_cache(maxsize=1 << 14)
def _cell(deck: str, rank: str, suit: str, pixels: int, right: int, down: int) -> np.ndarray:
  """A card of 31/48 by 43/48 of its square cell, moved by so many sixteenths of it."""
  side = _SCALE * pixels
  width, height = side * 62 // 96, side * 86 // 96
  cell = Image.new("RGB", (side, side), TABLE)
  corner = ((side - width) // 2 + right * side // 16, (side - height) // 2 + down * side // 16)
  cell.paste(_draw_index(_DECKS[deck], rank, suit, width, height), corner)
  return _shrunk(cell)


@functools.lru_cache(maxsize=1 << 9)
def face(deck: str, rank: str, suit: str, width: int, height: int) -> np.ndarray:
  """One card: uint8 [height, width, 3]. Beyond its round corners is the table."""
  draw = _draw_pips if width >= PIPS_FROM else _draw_index
  return _shrunk(draw(_DECKS[deck], rank, suit, _SCALE * width, _SCALE * height))


def _shrunk(image: Image.Image) -> np.ndarray:
  pixels = np.asarray(image.resize((image.width // _SCALE, image.height // _SCALE), Image.Resampling.BOX))
  pixels.flags.writeable = False   # one array serves every picture
  return pixels


def _blank(deck: _Deck, width: int, height: int) -> Image.Image:
  image = Image.new("RGB", (width, height), TABLE)
  ImageDraw.Draw(image).rounded_rectangle((0, 0, width - 1, height - 1), width // 9, fill=deck.paper)
  return image


def _draw_index(deck: _Deck, rank: str, suit: str, width: int, height: int) -> Image.Image:
  """The face of a small card: its rank and its suit, as large as they fit."""
  image = _blank(deck, width, height)
  ink = deck.inks[SUITS[suit]]
  if deck.suit_first:
    _draw_suit(image, suit, (0.31 * width, 0.24 * height), 0.21 * width, ink)
    _draw_rank(image, deck, rank, (0.56 * width, 0.68 * height), 0.58 * width, ink)
  else:
    _draw_rank(image, deck, rank, (0.5 * width, 0.29 * height), 0.64 * width, ink)
    _draw_suit(image, suit, (0.5 * width, 0.78 * height), 0.21 * width, ink)
  return image


def _draw_pips(deck: _Deck, rank: str, suit: str, width: int, height: int) -> Image.Image:
  """The face of a large card: rank and suit in two corners; pips, or one large letter or number, between."""
  image = _blank(deck, width, height)
  ink = deck.inks[SUITS[suit]]
  corner_rank, corner_suit = (0.25, 0.09) if deck.suit_first else (0.1, 0.22)
  size = 0.17 if len(rank) == 1 else 0.13
  for _ in range(2):   # the second corner is the first one turned round
    _draw_rank(image, deck, rank, (0.12 * width, corner_rank * height), size * width, ink)
    _draw_suit(image, suit, (0.12 * width, corner_suit * height), 0.055 * width, ink)
    image = image.rotate(180)
  count = int(rank) if rank.isdigit() else 1 if rank == "A" else 0
  if count == 1:
    _draw_suit(image, suit, (0.5 * width, 0.5 * height), 0.26 * width, ink)
  elif count in _SIDES:
    places = [(side, y) for y in _SIDES[count] for side in (_LEFT, _RIGHT)]
    for x, y in (*places, *((_MIDDLE, y) for y in _CENTRES.get(count, ()))):
      _draw_suit(image, suit, ((0.31 + 0.38 * x) * width, (0.16 + 0.68 * y) * height), 0.09 * width, ink)
  else:
    box = (0.24 * width, 0.12 * height, 0.76 * width, 0.88 * height)
    ImageDraw.Draw(image).rectangle(box, outline=ink, width=max(1, width // 90))
    _draw_rank(image, deck, rank, (0.5 * width, 0.4 * height), 0.5 * width, ink)
    _draw_suit(image, suit, (0.5 * width, 0.74 * height), 0.12 * width, ink)
  return image


def _draw_rank(image: Image.Image, deck: _Deck, rank: str, centre: tuple[float, float], size: float, ink) -> None:
  """A rank around a point. size: of the font, in pixels of this image"""
  width, height = round(2.2 * size), round(1.4 * size)
  glyph = Image.new("L", (width, height))
  ImageDraw.Draw(glyph).text((width / 2, height / 2), rank, fill=255, anchor="mm", font=_font(round(size)),
                             stroke_width=round(deck.weight * size))
  if deck.slant:
    lean = (1, deck.slant, -deck.slant * height / 2, 0, 1, 0)
    glyph = glyph.transform(glyph.size, Image.Transform.AFFINE, lean, Image.Resampling.BILINEAR)
  image.paste(ink, (round(centre[0] - width / 2), round(centre[1] - height / 2)), glyph)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
  return ImageFont.load_default(size)


def _draw_suit(image: Image.Image, suit: str, centre: tuple[float, float], radius: float, ink) -> None:
  """A suit made of polygons and discs, `radius` high above and below a point."""
  draw, (x, y) = ImageDraw.Draw(image), centre

  def polygon(*points: tuple[float, float]) -> None:
    draw.polygon([(x + a * radius, y + b * radius) for a, b in points], fill=ink)

  def disc(a: float, b: float, size: float) -> None:
    draw.ellipse((x + (a - size) * radius, y + (b - size) * radius, x + (a + size) * radius, y + (b + size) * radius),
                 fill=ink)

  if suit == "D":
    polygon((0, -1), (.75, 0), (0, 1), (-.75, 0))
  elif suit == "H":
    disc(-.45, -.35, .5)
    disc(.45, -.35, .5)
    polygon((-.93, -.15), (.93, -.15), (0, 1))
  elif suit == "S":
    disc(-.45, .2, .5)
    disc(.45, .2, .5)
    polygon((-.93, .1), (.93, .1), (0, -1))
    polygon((0, 0), (-.4, 1), (.4, 1))
  else:
    disc(0, -.5, .45)
    disc(-.5, .15, .45)
    disc(.5, .15, .45)
    disc(0, 0, .25)
    polygon((0, 0), (-.4, 1), (.4, 1))
