"""The compact style of GeneralPoints: 59 words, so that a small model can be trained from scratch in minutes.

  prompt    RULE 10 10 10 TARGET 17 CARDS cA c10 cK       (the rule: the values of J, Q and K)
  response  NUMBERS 1 10 10 FORMULA ( 10 - 1 ) * 10       (the recited numbers are scored, in the order of the cards)
  feedback  OK, WRONG_VALUE, WRONG_NUMBERS or ILLEGAL

With reasoning, `STEPS 10 - 1 = 9 ; 9 * 10 = 90` stands before FORMULA; nothing in it is scored.
"""

from __future__ import annotations

import functools
import re

from sftrl_jax.envs import arithmetic
from sftrl_jax.envs.general_points import cards

LARGEST = 30  # the largest number that has a word
RECITED = True  # the numbers of a response are scored

_FEEDBACK = {"correct": "OK", "value": "WRONG_VALUE", "numbers": "WRONG_NUMBERS", "misread": "WRONG_NUMBERS",
             "illegal": "ILLEGAL"}
_CARDS = {rank: f"c{rank}" for rank in cards.RANKS}
_NUMBERS = {str(number): number for number in range(LARGEST + 1)}
_FORMULA = frozenset((*_NUMBERS, *"()+-*/"))
_STEPS = _FORMULA | {"=", ";"}

WORDS = ("RULE", "TARGET", "CARDS", "NUMBERS", "FORMULA", *dict.fromkeys(_FEEDBACK.values()), *_CARDS.values(),
         *_NUMBERS, *"()+-*/")


STEP_WORDS = ("STEPS", "=", ";")   # further words of responses with reasoning


def prompt(ranks: tuple[str, ...], rule: cards.Rule, target: int) -> str:
  """The prompt: rule, target, cards."""
  j, q, k = rule
  return f"RULE {j} {q} {k} TARGET {target} CARDS {' '.join([_CARDS[rank] for rank in ranks])}"


def write(ranks: tuple[str, ...], numbers: tuple[int, ...], formula: str, target: int,
          steps: tuple[str, ...] = ()) -> str:
  """The response with these numbers and this formula; this style repeats neither ranks nor target.

  steps: operations; a number above 30 has no word, so its digits are written
  """
  del ranks, target
  reasoning = f"STEPS {' ; '.join(_spelled(step) for step in steps)} " if steps else ""
  return f"NUMBERS {' '.join(map(str, numbers))} {reasoning}FORMULA {spaced(formula)}"


def read(response: str) -> tuple[tuple[int, ...], str]:
  """The recited numbers and the formula of a response; FormulaError when it is not in the style.

  Words are separated by single spaces; numbers above 30 are not words.
  """
  if len(response) > 2 * arithmetic.LONGEST:
    raise arithmetic.FormulaError("the response is too long")
  recited, marker, formula = response.partition(" FORMULA ")
  recited, _, steps = recited.partition(" STEPS ")
  opening, *words = recited.split(" ")
  if opening != "NUMBERS" or not marker:
    raise arithmetic.FormulaError("the response does not read NUMBERS ... FORMULA ...")
  if (not _NUMBERS.keys() >= set(words) or not _FORMULA.issuperset(formula.split(" "))
      or not _STEPS.issuperset(steps.split(" ") if steps else ())):
    raise arithmetic.FormulaError("the response has a word that does not belong there")
  return tuple([_NUMBERS[word] for word in words]), formula


def action_start(response: str) -> int:
  """Where the first word FORMULA starts; 0 where there is none."""
  return response.find(" FORMULA ") + 1


def feedback(code: str, reason: str, target: int) -> str:
  """The feedback on a response with verdict `code`: one word, whatever the reason."""
  del reason, target
  return _FEEDBACK[code]


@functools.lru_cache(maxsize=1 << 14)
def spaced(formula: str) -> str:
  """The words of a formula with single spaces between."""
  return " ".join(re.findall("[0-9]+|[-+*/()]", formula))


@functools.lru_cache(maxsize=1 << 14)
def _spelled(step: str) -> str:
  parts = (word if word in _NUMBERS or not word.isdigit() else " ".join(word)
           for word in re.findall("[0-9]+|[-+*/()=]", step))
  return " ".join(parts)
