"""The verifier of the paper's released code, with its defects: the paper's style under `legacy=True`.

Each failure of a formula costs its own penalty, and they add up; spaces are illegal; values are Python floats, so that
8/(3-8/3), which is 23.999..., earns 0; an answer that only lacks its last parenthesis earns 1; the last answer of an
episode has no score. Feedback names the longest beginning that is also one of a solution. With pictures, the list of
cards is read in the loose form alone: an answer in valid JSON counts as misread.
"""

from __future__ import annotations

import json
import operator
import re
from collections import Counter
from typing import Any

from sftrl_jax.envs import arithmetic
from sftrl_jax.envs.general_points import paper, verdicts

RIGHT, PARTIAL, INEXACT, WRONG, MISREAD, NUMBER, ILLEGAL = 5.0, 1.0, 0.0, -1.0, -1.5, -2.0, -3.0   # rewards
_CARDS = re.compile(r'"cards": \[([^\]]{1,999})\]')
_FORMULA = re.compile(r'"formula": "(.{0,999}?)"')
_LEGAL = re.compile(r"[-+*/()0-9]{0,256}")
_TOKENS = re.compile(r"[0-9]+|[-+*/()]")
_OPERATORS = {"+": (1, operator.add), "-": (1, operator.sub), "*": (2, operator.mul), "/": (2, operator.truediv)}


def judge(values: tuple[int, ...], target: int, response: str, scored: bool, ranks: tuple[str, ...] = ()
          ) -> tuple[str, float, str]:
  """(code, reward, reason) of a response.

  scored: whether it is not the last of its episode; ranks: of the cards of a picture, which are looked at first
  """
  if not scored:
    return "value", WRONG, "the attempts are used up"
  if ranks and sorted(recognised(response, len(ranks))) != sorted(ranks):
    return "misread", MISREAD, "the cards were not recognised"
  formula = read(response).partition("=")[0]
  if not _LEGAL.fullmatch(formula):
    return "illegal", ILLEGAL, "the formula has an illegal character"
  tokens = _TOKENS.findall(formula)
  used, given = Counter(int(token) for token in tokens if token.isdigit()), Counter(values)
  failures = [(NUMBER, "the formula uses numbers that it does not have")] * bool(used - given)
  failures += [(NUMBER, "the formula leaves numbers unused")] * bool(given - used)
  illegal, left_open = _order_errors(tokens) if tokens else (0, 0)
  failures += [(ILLEGAL, "the formula has an illegal sequence")] * illegal
  if failures:
    code = "illegal" if illegal else "numbers"
    return code, sum(reward for reward, _ in failures), ", ".join(dict.fromkeys(reason for _, reason in failures))
  if left_open:
    if left_open == 1 and _solves(formula + ")", target):
      return "value", PARTIAL, "the formula is not finished"
    return "value", WRONG, _hint(values, target, tokens)
  if _float_value(tokens) == target:
    return "correct", RIGHT, ""
  return ("value", INEXACT, "") if _solves(formula, target) else ("value", WRONG, _hint(values, target, tokens))


def recognised(response: str, count: int) -> list[str]:
  """The cards that an answer lists; [] for another number than `count`, for valid JSON, and for numbers alone."""
  loose = _CARDS.search(response) if len(response) <= paper.LONGEST and _json(response) is None else None
  names = loose[1].split(",") if loose else []
  if len(names) != count or all(name.strip().isdecimal() for name in names):
    return []
  return [name.strip(" '") for name in names]


def write(ranks: tuple[str, ...], numbers: tuple[int, ...], formula: str, target: int) -> str:
  """The answer of `paper.write` in the loose form of the released code, whose cards it can recognise."""
  return f'{{"cards": {list(ranks)}, "number": {list(numbers)}, "formula": "{formula}={target}",}}'


def read(response: str) -> str:
  """The formula of a response: that of its JSON, else of `"formula": "..."` with this very spacing, else "None"."""
  if len(response) > paper.LONGEST:
    return "None"
  block = _json(response)
  if isinstance(block, dict):
    return str(block.get("formula"))
  loose = _FORMULA.search(response)
  return loose[1] if loose else "None"


def _json(response: str) -> Any:
  try:
    return json.loads(response)
  except (ValueError, RecursionError):
    return None


def _order_errors(tokens: list[str]) -> tuple[int, int]:
  """(tokens that stand where they must not, parentheses left open)."""
  errors, depth, operand = 0, 0, True   # operand: whether one comes next
  for token in tokens:
    begins = token == "(" or token.isdigit()
    if token == ")" and not depth:
      errors += 1
      continue
    depth += {"(": 1, ")": -1}.get(token, 0)
    if begins != operand:
      errors += 1
    elif token not in "()":
      operand = not operand
  return errors, depth


def _float_value(tokens: list[str]) -> float | None:
  """The value of a formula as Python computes it; None for a division by zero and beyond the largest float."""
  values, waiting = [], []

  def reduce(precedence: int) -> None:
    while waiting and waiting[-1] != "(" and _OPERATORS[waiting[-1]][0] >= precedence:
      right = values.pop()
      values.append(_OPERATORS[waiting.pop()][1](values.pop(), right))

  try:
    for token in tokens:
      if token.isdigit():
        values.append(int(token))
      elif token == ")":
        reduce(0)
        waiting.pop()
      else:
        if token != "(":
          reduce(_OPERATORS[token][0])
        waiting.append(token)
    reduce(0)
  except (ZeroDivisionError, OverflowError):
    return None
  return values[0] if len(values) == 1 else None   # "1)" and its like: a trailing operator leaves no value


def _solves(formula: str, target: int) -> bool:
  try:
    return arithmetic.evaluate(formula) == target
  except arithmetic.FormulaError:
    return False


def _hint(values: tuple[int, ...], target: int, tokens: list[str]) -> str:
  beginning = verdicts.common_beginning(values, target, tokens)
  reason = "the formula is that of no solution"
  return f"{reason}, but {beginning} is the beginning of one" if beginning else reason
