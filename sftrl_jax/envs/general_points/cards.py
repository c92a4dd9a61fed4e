"""Playing cards: the deck, dealing, the values of the cards, and the random streams that deal."""

from __future__ import annotations

import operator
import random
from typing import NamedTuple

RANKS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
FACES = RANKS[10:]
SUITS = ("H", "S", "D", "C")
DECKS = ("uniform", "52")

Rule = tuple[int, int, int]  # the values of J, Q and K

TENS: Rule = (10, 10, 10)
DISTINCT: Rule = (11, 12, 13)
RULES: dict[str, Rule] = {"ten": TENS, "regular": DISTINCT, **{f"all_{face}": (face,) * 3 for face in (5, 7, 12)}}
# Rules of training on diverse prompts (Lin et al. 2025, arXiv 2510.00237).
DIVERSE: tuple[Rule, ...] = (TENS, (11, 11, 11), (13, 13, 13), (9, 10, 11), (10, 11, 12), (7, 9, 11), (8, 10, 12),
                             (9, 11, 13))
LARGE = tuple(str(number) for number in range(14, 20))   # ranks of the shift "large"


class Card(NamedTuple):
  """`rank` is one of RANKS, `suit` one of SUITS."""

  rank: str
  suit: str


DECK = tuple(Card(rank, suit) for suit in SUITS for rank in RANKS)
LARGE_DECK = (*DECK, *(Card(rank, suit) for suit in SUITS for rank in LARGE))


def stream(seed: int | str, purpose: int) -> random.Random:
  """A random stream for (seed, purpose), with `purpose` 0 to 3; the same numbers in any version.

  Purposes keep the hand of an episode and the mistakes of a careless response independent although they share a seed.
  Raises ValueError for a negative seed (Python seeds n and -n alike) and TypeError for neither int nor str.
  """
  if isinstance(seed, str):
    return random.Random(f"{purpose} {seed}")
  number = operator.index(seed)
  if number < 0:
    raise ValueError(f"seed is {number}, but seeds are integers from 0 on, or strings: use for example {-number}.")
  return random.Random(4 * number + purpose)


def deal(source: random.Random, count: int, deck: str, large: bool = False) -> tuple[Card, ...]:
  """`count` cards: from "uniform" with replacement (ranks and suits independent), from "52" without.

  large: the deck has the ranks of LARGE too
  """
  pack = LARGE_DECK if large else DECK
  draw, size = source.random, len(pack)
  if deck == "uniform":
    return tuple([pack[int(draw() * size)] for _ in range(count)])
  chosen = {}  # a dict keeps the order of drawing
  while len(chosen) < count:
    chosen[int(draw() * size)] = True
  return tuple([pack[index] for index in chosen])


def points(cards: tuple[Card, ...], rule: Rule) -> tuple[int, ...]:
  """The values of the cards, in order: A is 1, numbers are themselves, J, Q, K follow `rule`."""
  return tuple([_PIPS[card[0]] or rule[_FACE[card[0]]] for card in cards])


def any_face(cards: tuple[Card, ...]) -> bool:
  """Whether a J, Q or K is among the cards."""
  return any(card[0] in _FACE for card in cards)


def shares_face_value(cards: tuple[Card, ...], rule: Rule, other_rule: Rule) -> bool:
  """Whether a J, Q or K among the cards counts the same under both rules."""
  faces = [_FACE[card[0]] for card in cards if card[0] in _FACE]
  return any(rule[face] == other_rule[face] for face in faces)


def any_large(cards: tuple[Card, ...]) -> bool:
  """Whether a card of LARGE is among the cards."""
  return any(card[0] in LARGE for card in cards)


_FACE = {rank: index for index, rank in enumerate(FACES)}
_PIPS = {rank: 0 if rank in _FACE else index + 1 for index, rank in enumerate(RANKS)}
_PIPS |= {rank: int(rank) for rank in LARGE}
