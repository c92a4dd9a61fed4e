"""The paper's style of GeneralPoints: a task in English, answered by a JSON block of which only "formula" is scored.

Responses are untrusted text: one that cannot be read is a FormulaError, never another exception, and the work on any
text is bounded.
"""

from __future__ import annotations

import json
import re

from sftrl_jax.envs import arithmetic
from sftrl_jax.envs.general_points import cards

LONGEST = 1 << 15  # characters of the longest response that is read
RECITED = False  # the numbers of a response are not scored

_DECODER = json.JSONDecoder()
_KEY = re.compile(r"""["']formula["'][ \t\r\n]{0,16}:""")
# The loose style: either quote, any spaces around the colon, no need for the rest to be valid.
_LOOSE = re.compile(r"""["']formula["'][ \t\r\n]{0,16}:[ \t\r\n]{0,16}(?:"([^"]{0,999})"|'([^']{0,999})')""")


def prompt(ranks: tuple[str, ...], rule: cards.Rule, target: int) -> str:
  """The prompt: role, rule of the face cards, rules of formulas, the cards, the form of the answer."""
  return (
      f"[Task]\nYou are an expert player of the {target} points card game. You see {len(ranks)} cards. {_rule(rule)} "
      f"Write one formula that equals {target}, made of the numbers of all the cards, each card exactly once, and of "
      "the operators '+', '-', '*', '/' and parentheses '(', ')'.\n\n"
      f"[Input]\nCards: {list(ranks)}\n\n"
      "[Output]\nAnswer with this block and nothing else:\n"
      f'{{"cards": [the {len(ranks)} cards], "number": [the numbers that the cards count as], '
      f'"formula": "an equation that ends in ={target}"}}')


def write(ranks: tuple[str, ...], numbers: tuple[int, ...], formula: str, target: int,
          steps: tuple[str, ...] = ()) -> str:
  """The response with these cards, numbers and formula, in strictly valid JSON; the steps stand in lines before it."""
  shown = '", "'.join(ranks)
  block = f'{{"cards": ["{shown}"], "number": {list(numbers)}, "formula": "{formula}={target}"}}'
  return "\n".join((*steps, block))


def read(response: str) -> tuple[tuple[int, ...], str]:
  """() and the formula, up to its first "="; FormulaError when there is none.

  The formula is that of the first JSON object if it is a text there; else of the first place in the response that looks
  like the key "formula" with a quoted value.
  """
  if len(response) > LONGEST:
    raise arithmetic.FormulaError(f"the response has {len(response)} characters and at most {LONGEST} are read")
  formula = _strict(response)
  if formula is None:
    loose = _LOOSE.search(response)
    if not loose:
      raise arithmetic.FormulaError('the response has no "formula" with a quoted value')
    formula = loose[1] if loose[1] is not None else loose[2]
  return (), formula.partition("=")[0]


def _strict(response: str) -> str | None:
  """The text of "formula" in the first JSON object of the response; None when there is no such object, key or text."""
  opening = response.find("{")
  if opening < 0:
    return None
  try:
    block, _ = _DECODER.raw_decode(response, opening)
  except (ValueError, RecursionError):  # not JSON, a number of thousands of digits, or nested beyond Python's stack
    return None
  formula = block.get("formula")
  return formula if isinstance(formula, str) else None


def action_start(response: str) -> int:
  """Where the last key "formula" starts, as in the paper's code; 0 where there is none."""
  return max((match.start() for match in _KEY.finditer(response)), default=0)


def feedback(code: str, reason: str, target: int) -> str:
  """The feedback on a response with verdict `code`; nothing in it comes from the solver."""
  if code == "correct":
    return f"Correct: the formula equals {target} and uses every card once."
  return f"You failed this trial because {reason}." if reason else "You failed this trial."


def _rule(rule: cards.Rule) -> str:
  j, q, k = rule
  if j == q == k:
    return f"The face cards 'J', 'Q' and 'K' all count as {j}, and 'A' counts as 1."
  return f"The face cards 'J', 'Q' and 'K' count as {j}, {q} and {k}, and 'A' counts as 1."
