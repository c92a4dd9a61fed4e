"""How the cards of GeneralPoints look: decks and suits of training and of the visual variants, and the picture."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np

from sftrl_jax.envs import fields
from sftrl_jax.envs.general_points.cards import Card
from sftrl_jax.pictures import cards as drawing, noise

SUITS = ("black", "red", "any")
DECKS = (*drawing.DECKS, "any")
LABELS = {"red": "OOD, red suits", "deck1": "OOD, another deck", "night": "OOD, dark deck", "black": "OOD, black suits",
          "plain": "OOD, plain deck"}
STYLES = ("paper", "short", "recite")   # those that can go without a list of the cards
CANVAS, CELL = 1200, 32   # pixels of the paper's table, and of a card in the style "recite"
_RECOLOURED = {"black": {"H": "S", "D": "C"}, "red": {"S": "H", "C": "D"}, "any": {}}
_USUAL = {"pixels": 0, "look": "plain", "suits": "black", "noise": 0.0, "contrast": 1.0, "jitter": False,
          "answer": "formula"}


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
  """How the hands of a variant look; the fields are those of GeneralPoints."""

  style: str
  pixels: int
  look: str
  suits: str
  noise: float
  contrast: float
  jitter: bool

  def recoloured(self, cards: tuple[Card, ...]) -> tuple[Card, ...]:
    """The cards with their suits as shown. As in the released code, the colour is that of all cards of a hand."""
    suits = _RECOLOURED[self.suits]
    return tuple([Card(rank, suits.get(suit, suit)) for rank, suit in cards])

  def picture(self, cards: tuple[Card, ...], source: random.Random) -> np.ndarray:
    """The picture of a hand, read-only: uint8 [pixels, pixels, 3] of a table, or a row of cells in style "recite".

    source: decides the deck of look="any", the places of the cards and the noise
    """
    deck = self.look if self.look != "any" else drawing.DECKS[int(source.random() * len(drawing.DECKS))]
    step = lambda size: int(source.random() * (2 * size + 1)) - size
    if self.style == "recite":
      shifts = [(step(1), step(1)) for _ in cards] if self.jitter else ()
      image = drawing.row(cards, deck, self.pixels or CELL, shifts)
    else:
      side = self.pixels or CANVAS
      shifts = tuple((step(side // 240), step(side // 24)) for _ in cards) if self.jitter else ()
      image = drawing.table(cards, deck, side, shifts)
    image = noise.expose(image, source, self.noise, self.contrast)
    image.flags.writeable = False   # states are immutable
    return image


def shifts(look: str, suits: str) -> tuple[str, ...]:
  """The visual variants of a training look: another colour of the suits, or another deck."""
  own = {"red": suits, "black": suits} | dict.fromkeys(drawing.DECKS, look)
  return tuple(name for name in LABELS if own[name] != name and (own[name] != "any" or name not in ("black", "plain")))


def look_of(env: Any) -> Look:
  """The look of the variant that an environment is: its training look, with what the variant's name changes."""
  variant = env.variant if env.variant in LABELS else ""
  return Look(env.style, env.pixels, variant if variant in drawing.DECKS else env.look,
              variant if variant in SUITS else env.suits, env.noise, env.contrast, env.jitter)


def checked(env: Any) -> dict:
  """The normalised fields of pictures; ValueError for the first that is wrong."""
  if not fields.flag("vision", env.vision):
    for name, usual in _USUAL.items():
      if getattr(env, name) != usual:
        raise ValueError(f"{name} is {getattr(env, name)!r}, but vision is False, so that no picture is drawn: use "
                         f"vision=True, or leave {name} out.")
    if env.style == "recite":
      raise ValueError("style is 'recite', which recites the cards of a picture, but vision is False: use vision=True, "
                       "or style='compact' for cards in words.")
    return {"vision": False}
  if env.style not in STYLES:
    raise ValueError(f"style is {env.style!r}, but its answer does not say which cards were seen: with vision=True use "
                     f"{', '.join(map(repr, STYLES))}.")
  if env.reasoning and env.style == "recite":
    raise ValueError("reasoning is True, but the style 'recite' has no words for the steps of a formula: use "
                     "reasoning=False, or style='short'.")
  low, high = (16, 256) if env.style == "recite" else (128, 4096)
  if env.pixels and not low <= fields.integer("pixels", env.pixels, 0, 1 << 20) <= high:
    raise ValueError(f"pixels is {env.pixels}, but a {'card' if env.style == 'recite' else 'table'} has from {low} to "
                     f"{high} pixels a side in style {env.style!r}: use one of these, or 0 for the style's own.")
  answer = fields.choice("answer", env.answer, ("formula", "cards"))
  if answer == "cards" and env.style != "recite":
    raise ValueError(f"answer is 'cards', but style is {env.style!r}: only the style 'recite' can recite cards alone.")
  return {"vision": True, "pixels": fields.integer("pixels", env.pixels, 0, high), "answer": answer,
          "look": fields.choice("look", env.look, DECKS), "suits": fields.choice("suits", env.suits, SUITS),
          "noise": _within("noise", env.noise, 0, 10), "jitter": fields.flag("jitter", env.jitter),
          "contrast": _within("contrast", env.contrast, 0.05, 1)}


def _within(name: str, value: Any, low: float, high: float) -> float:
  number = fields.real(name, value, f"use one from {low:g} to {high:g}")
  if not low <= number <= high:
    raise ValueError(f"{name} is {value!r}, but it must lie in [{low:g}, {high:g}].")
  return number
