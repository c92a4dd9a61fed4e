"""The style of GeneralPoints from pictures for small models: 60 words; what is seen is recited before the formula.

  prompt    [picture] RULE 10 10 10 TGT 17        (the rule: the values of J, Q and K)
  response  CARDS cA c10 cK NUM 1 10 10 FORM ( 10 - 1 ) * 10
  feedback  OK, WRONG_VALUE, WRONG_NUMBERS, ILLEGAL or MISREAD

The cards line is what was seen, the number line what the rule makes of it: recognition and rule are two numbers. A
wrong number line and wrong numbers in the formula have one feedback.
"""

from __future__ import annotations

from sftrl_jax.envs import arithmetic
from sftrl_jax.envs.general_points import cards, compact

LARGEST = compact.LARGEST   # the largest number that has a word
RECITED = True   # the numbers of a response are scored
ORDERED = True   # cards are recited from left to right

_FEEDBACK = {"correct": "OK", "value": "WRONG_VALUE", "numbers": "WRONG_NUMBERS", "rule": "WRONG_NUMBERS",
             "illegal": "ILLEGAL", "misread": "MISREAD"}
_CARDS = {f"c{rank}": rank for rank in cards.RANKS}
_NUMBERS = {str(number): number for number in range(LARGEST + 1)}
_FORMULA = frozenset((*_NUMBERS, *"()+-*/"))
_HEADS = ("CARDS", "NUM", "FORM")

WORDS = ("RULE", "TGT", *_HEADS, *dict.fromkeys(_FEEDBACK.values()), *_CARDS, *_NUMBERS, *"()+-*/")


def prompt(ranks: tuple[str, ...], rule: cards.Rule, target: int, vision: bool = True) -> str:
  """The prompt beside the picture: rule and target; the cards are in the picture alone."""
  del ranks, vision
  j, q, k = rule
  return f"RULE {j} {q} {k} TGT {target}"


def write(ranks: tuple[str, ...], numbers: tuple[int, ...], formula: str, target: int,
          steps: tuple[str, ...] = ()) -> str:
  """The response with these cards, numbers and formula. steps: there is no word for them, so they must be ()"""
  del target
  if steps:
    raise ValueError("the style 'recite' has no words for the steps of a formula: use reasoning=False.")
  return f"{write_cards(ranks)} NUM {' '.join(map(str, numbers))} FORM {compact.spaced(formula)}"


def write_cards(ranks: tuple[str, ...]) -> str:
  """The cards line alone, the whole response of answer='cards'."""
  return f"CARDS {' '.join(f'c{rank}' for rank in ranks)}"


def read(response: str) -> tuple[tuple[int, ...], str]:
  """The recited numbers and the formula; FormulaError when a response is not in the style."""
  if len(response) > 2 * arithmetic.LONGEST:
    raise arithmetic.FormulaError("the response is too long")
  shown, first, rest = response.partition(" NUM ")
  numbers, second, formula = rest.partition(" FORM ")
  if not first or not second:
    raise arithmetic.FormulaError("the response does not read CARDS ... NUM ... FORM ...")
  read_cards(shown)
  if not _FORMULA.issuperset(formula.split(" ")):
    raise arithmetic.FormulaError("the formula has a word that does not belong there")
  return _read_numbers(numbers), formula


def recited(response: str) -> tuple[tuple[str, ...] | None, tuple[int, ...] | None]:
  """The cards and the numbers that a response recites; None for a line that it lacks or that cannot be read."""
  lines = []
  shown, _, rest = response[: 2 * arithmetic.LONGEST].partition(" NUM ")
  for line, parse in ((shown, read_cards), (rest.partition(" FORM ")[0], _read_numbers)):
    try:
      lines.append(parse(line))
    except arithmetic.FormulaError:
      lines.append(None)
  return tuple(lines)


def read_cards(response: str) -> tuple[str, ...]:
  """The ranks of a cards line; FormulaError when the text is none."""
  opening, *words = response[: 2 * arithmetic.LONGEST].split(" ")
  if opening != "CARDS" or not words or not _CARDS.keys() >= set(words):
    raise arithmetic.FormulaError("the response does not begin with CARDS and names of cards")
  return tuple([_CARDS[word] for word in words])


def _read_numbers(line: str) -> tuple[int, ...]:
  words = line.split(" ")
  if not _NUMBERS.keys() >= set(words):
    raise arithmetic.FormulaError("the number line has a word that is no number")
  return tuple([_NUMBERS[word] for word in words])


def action_start(response: str) -> int:
  """Where the first word FORM starts; 0 where there is none."""
  return response.find(" FORM ") + 1


def feedback(code: str, reason: str, target: int) -> str:
  """The feedback on a response with verdict `code`: one word, whatever the reason."""
  del reason, target
  return _FEEDBACK[code]
