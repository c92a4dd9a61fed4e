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
ORDERED = False  # the cards of a picture may be named in any order

_DECODER = json.JSONDecoder()
_KEY = re.compile(r"""["']formula["'][ \t\r\n]{0,16}:""")
# The loose style: either quote, any spaces around the colon, no need for the rest to be valid.
_LOOSE = re.compile(r"""["']formula["'][ \t\r\n]{0,16}:[ \t\r\n]{0,16}(?:"([^"]{0,999})"|'([^']{0,999})')""")


def prompt(ranks: tuple[str, ...], rule: cards.Rule, target: int, vision: bool = False) -> str:
  """The prompt: role, rule of the face cards, rules of formulas, the cards, the form of the answer.

  vision: the cards are in a picture before the text, which does not name them
  """
  place, listed = (" in the image", "") if vision else ("", f"[Input]\nCards: {list(ranks)}\n\n")
  return (
      f"[Task]\nYou are an expert player of the {target} points card game. You see {len(ranks)} cards{place}. "
      f"{_rule(rule)} "
      f"Write one formula that equals {target}, made of the numbers of all the cards, each card exactly once, and of "
      "the operators '+', '-', '*', '/' and parentheses '(', ')'.\n\n"
      f"{listed}"
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
  formula = (_block(response) or {}).get("formula")
  return formula if isinstance(formula, str) else None


def _block(response: str) -> dict | None:
  """The first JSON object of the response, if what begins at its first brace is one."""
  opening = response.find("{")
  if opening < 0:
    return None
  try:
    block, _ = _DECODER.raw_decode(response, opening)
  except (ValueError, RecursionError):  # not JSON, a number of thousands of digits, or nested beyond Python's stack
    return None
  return block


def recited(response: str) -> tuple[tuple[str, ...] | None, tuple[int, ...] | None]:
  """The lists "cards" and "number" of a response, each None where it has none; at most 16 items of each are read.

  They are those of the first JSON object if it has a list there; else of the first place that looks like the key with a
  list in brackets. A card is a rank, in quotes or not.
  """
  if len(response) > LONGEST:
    return None, None
  block = _block(response) or {}
  shown, numbers = (block[key] if isinstance(block.get(key), list) else _loose_list(key, response)
                    for key in ("cards", "number"))
  if shown is not None:
    shown = tuple(word.upper() for word in _words(shown))
  if numbers is not None:
    numbers = tuple(int(word) if _INTEGER.fullmatch(word) else 0 for word in _words(numbers))
  return shown, numbers


def _words(items: list) -> list[str]:
  return [str(item).strip()[:16] if isinstance(item, (str, int)) else "" for item in items[:16]]


def _loose_list(key: str, response: str) -> list[str] | None:
  match = _LOOSE_LISTS[key].search(response)
  return [item.strip(" \t\r\n'\"") for item in match[1].split(",")] if match else None


_LOOSE_LISTS = {key: re.compile(rf"""["']{key}["'][ \t\r\n]{{0,16}}:[ \t\r\n]{{0,16}}\[([^\]]{{0,400}})\]""")
                for key in ("cards", "number")}
_INTEGER = re.compile("[0-9]{1,9}")


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
