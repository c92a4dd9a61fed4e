"""Judges formulas: what a response with a formula is worth, and which formulas a hand has."""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections import Counter
from types import ModuleType

from sftrl_jax.envs import arithmetic

_OPPOSITE = {"+": "-", "-": "+", "*": "/", "/": "*"}


@functools.lru_cache(maxsize=1 << 14)
def reachable(values: tuple[int, ...]) -> tuple[int, ...]:
  """The targets from 1 to 30 that sorted values can reach."""
  return tuple(arithmetic.solutions(values))


def formulas_of(values: tuple[int, ...], target: int) -> tuple[str, ...]:
  """The formulas of the solver for sorted values and a target; () when it cannot be reached."""
  if target in arithmetic.TARGETS:
    return arithmetic.solutions(values).get(target, ())
  return arithmetic.solutions(values, range(target, target + 1)).get(target, ())


def any_formula(source: random.Random, values: tuple[int, ...], target: int) -> str:
  """A legal formula over the values of a hand for a target drawn from those it can reach."""
  values = tuple(sorted(values))
  targets = reachable(values) or (target,)  # some hands reach only targets above 30
  formulas = formulas_of(values, targets[int(source.random() * len(targets))])
  return formulas[int(source.random() * len(formulas))]


def slip(source: random.Random, values: tuple[int, ...], target: int) -> str:
  """A formula of the solver with its first operator turned into the opposite; it may divide by zero, or be right by
  chance (10 / 1 for 10 * 1)."""
  formulas = formulas_of(tuple(sorted(values)), target)
  formula = formulas[int(source.random() * len(formulas))]
  return re.sub("[-+*/]", lambda operator: _OPPOSITE[operator[0]], formula, count=1)


def steps_of(formula: str) -> tuple[str, ...]:
  """The operations of a legal formula; () for one that divides by zero."""
  try:
    return arithmetic.steps(formula)
  except arithmetic.DivisionByZero:
    return ()


def judge(style: ModuleType, values: tuple[int, ...], target: int, response: str) -> tuple[str, str]:
  """The code of a response and, for a wrong one, the clause that completes 'you failed because'.

  values: of the cards, in order
  """
  try:
    recited, formula = style.read(response)
    result, numbers = arithmetic.parse(formula)
  except arithmetic.DivisionByZero as error:
    result, numbers, undefined = None, error.numbers, str(error)
  except arithmetic.FormulaError as error:
    return "illegal", str(error)
  if style.RECITED and recited != values:
    return "misread", "the recited numbers are not those of the cards"
  if sorted(numbers) != sorted(values):
    return "numbers", _number_error(Counter(numbers), Counter(values))
  if result is None:
    return "value", undefined
  if result != target:
    return "value", f"the formula equals {result} and not {target}"
  return "correct", ""


def _number_error(used: Counter, given: Counter) -> str:
  """Which numbers are used too often or not at all; at most four of each are named."""
  clauses = []
  for surplus, clause in ((used - given, "has {} beyond those of the cards"), (given - used, "leaves {} unused")):
    if surplus:
      shown = [arithmetic.short(str(number)) for number in sorted(surplus.elements())[:4]]
      clauses.append(clause.format(", ".join(shown)))
  return "the formula " + " and ".join(clauses)


def common_beginning(values: tuple[int, ...], target: int, tokens: list[str]) -> str:
  """The longest beginning of these tokens that is also one of a formula of the hand; "" if there is none."""
  best = 0
  for formula in formulas_of(tuple(sorted(values)), target):
    pairs = zip(tokens, arithmetic.tokens(formula), strict=False)
    best = max(best, sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
  return "".join(tokens[:best])


def with_hint(style: ModuleType, values: tuple[int, ...], target: int, response: str, reason: str) -> str:
  """The reason, and the beginning of the formula that is also one of a solution."""
  beginning = common_beginning(values, target, arithmetic.tokens(style.read(response)[1]))
  return f"{reason}, but {beginning} is the beginning of a solution" if beginning else reason
