"""Exact arithmetic on formulas over + - * / and parentheses: a parser for untrusted text, and a solver.

Python evaluates nothing: text becomes tokens, tokens become pairs (numerator, denominator) of integers. Work and size
are linear in a text of at most 256 characters, and no function recurses over the text. The solver cuts ordered
sequences of numbers, so each formula arises once and without sorting or comparing.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from types import MappingProxyType

LONGEST = 256  # characters of an expression
TARGETS = range(1, 31)  # the targets every hand is solved for
KEPT = 4  # formulas of a target

# Only ASCII digits are numbers: '２' and '²' pass str.isdigit, and must be illegal characters.
_TOKENS = re.compile("[0-9]+|[^ ]")
_DIGITS = frozenset("0123456789")
_PRECEDENCE = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2}
_NUMBER = 3  # precedence of a bare number: never in parentheses
_UNDEFINED = (0, 0)  # x / 0: absorbing under all four operators, so that the parser still finds illegal tokens after it


class FormulaError(ValueError):
  """A formula without a score; the message completes the sentence 'it fails because ...'."""


class DivisionByZero(FormulaError):
  """A legal formula without a value. `numbers` are the numbers it uses, in order."""

  def __init__(self, numbers: tuple[int, ...]):
    super().__init__("the formula divides by zero")
    self.numbers = numbers


def evaluate(expression: str) -> Fraction:
  """The exact value of a bare expression such as '(1+2)/3'; FormulaError when illegal or divided by zero.

  Legal: decimal integers, binary + - * /, parentheses, spaces. Illegal: anything else, unary signs, `**`, `//`,
  adjacent operands, unbalanced parentheses, more than 256 characters.
  """
  return parse(expression)[0]


def parse(expression: str) -> tuple[Fraction, tuple[int, ...]]:
  """The exact value of an expression and the numbers it uses, in order; raises as `evaluate`."""
  if not isinstance(expression, str):
    raise TypeError(f"the expression is a {type(expression).__name__}, but it must be a str.")
  if len(expression) > LONGEST:
    raise FormulaError(f"the formula has {len(expression)} characters and at most {LONGEST} are allowed")
  return _parse(expression)


@functools.lru_cache(maxsize=1 << 14)
def _parse(expression: str) -> tuple[Fraction, tuple[int, ...]]:
  """Operator precedence with two explicit stacks: depth costs memory, never Python's stack."""
  values, operators, numbers = [], [], []
  operand = True  # whether an operand comes next
  for token in _TOKENS.findall(expression):
    number = token[0] in _DIGITS
    if not number and token not in "+-*/()":
      raise FormulaError(f"the formula has {ascii(token)}, and only integers, + - * / and ( ) are allowed")
    if (number or token == "(") != operand:
      expected = "a number or '('" if operand else "an operator or ')'"
      raise FormulaError(f"the formula has {ascii(short(token))} where {expected} must stand")
    if number:
      numbers.append(int(token))
      values.append((numbers[-1], 1))
      operand = False
    elif token == "(":
      operators.append(token)
    elif token == ")":
      _reduce(values, operators, 1)
      if not operators:
        raise FormulaError("the formula closes a parenthesis that it never opened")
      operators.pop()
    else:
      _reduce(values, operators, _PRECEDENCE[token])
      operators.append(token)
      operand = True
  if operand:
    raise FormulaError("the formula is incomplete" if numbers or operators else "the formula is empty")
  _reduce(values, operators, 1)
  if operators:
    raise FormulaError("the formula leaves a parenthesis open")
  if values[0] == _UNDEFINED:
    raise DivisionByZero(tuple(numbers))
  return Fraction(*values[0]), tuple(numbers)


def _reduce(values: list, operators: list, precedence: int):
  """Applies the operators on top of the stack that bind at least as tightly as `precedence`."""
  while operators and _PRECEDENCE[operators[-1]] >= precedence:
    c, d = values.pop()
    values[-1] = _apply(operators.pop(), *values[-1], c, d)


def _apply(operator: str, a: int, b: int, c: int, d: int) -> tuple[int, int]:
  """a/b `operator` c/d as an unreduced pair; any zero denominator is `_UNDEFINED`."""
  if operator == "+":
    return a * d + c * b, b * d
  if operator == "-":
    return a * d - c * b, b * d
  if operator == "*":
    return a * c, b * d
  return (a * d, b * c) if b * c else _UNDEFINED


def tokens(expression: str) -> list[str]:
  """Integers and single characters of an expression, without spaces."""
  return _TOKENS.findall(expression)


def steps(expression: str) -> tuple[str, ...]:
  """The operations of a legal expression, in the order of their doing: ("10-1=9", "9*2=18"); fractions as (8/3)."""
  done, values, operators = [], [], []

  def reduce(precedence: int) -> None:
    while operators and _PRECEDENCE[operators[-1]] >= precedence:
      right, left, sign = values.pop(), values.pop(), operators.pop()
      values.append(Fraction(*_apply(sign, left.numerator, left.denominator, right.numerator, right.denominator)))
      done.append(f"{_operand(left)}{sign}{_operand(right)}={values[-1]}")

  parse(expression)   # FormulaError for an illegal one
  for token in tokens(expression):
    if token[0] in _DIGITS:
      values.append(Fraction(int(token)))
    elif token == ")":
      reduce(1)
      operators.pop()
    else:
      if token != "(":
        reduce(_PRECEDENCE[token])
      operators.append(token)
  reduce(1)
  return tuple(done)


def _operand(value: Fraction) -> str:
  return str(value) if value.denominator == 1 and value >= 0 else f"({value})"


def short(token: str) -> str:
  """`token`, cut to 12 characters: feedback must not grow with the response."""
  return token if len(token) <= 12 else token[:9] + "..."


def solutions(values: Iterable[int], targets: range = TARGETS) -> Mapping[int, tuple[str, ...]]:
  """Every integer target in `targets` that `values`, each used exactly once, can reach, with up to 4 formulas.

  Formulas differ from each other, have no spaces and no redundant parentheses (never a+(b-c): that is a+b-c), and come
  in a fixed order: smaller numbers first, then the shapes with more on the right, then + - * /. Targets ascend. The
  work grows as n! 5^n until every target has its formulas: about 0.1, 3 and 30 ms for 3, 4 and 5 values; results are
  cached by multiset.
  """
  values = tuple(values)
  # Checked before the look-up: 1.0 and 1 are the same key, so a cached result would answer an illegal value.
  if not values or not all(type(value) is int and value > 0 for value in values):
    raise ValueError(f"values is {values!r}, but it must hold one or more positive integers.")
  return _solutions(tuple(sorted(values)), targets)


@functools.lru_cache(maxsize=1 << 13)
def _solutions(values: tuple[int, ...], targets: range) -> Mapping[int, tuple[str, ...]]:
  memo = {}
  formulas_of = {target: [] for target in targets if target > 0}
  unfilled = dict(formulas_of)
  # A dict keeps the first of equal permutations, in lexicographic order.
  for sequence in dict.fromkeys(itertools.permutations(values)):
    _finish(sequence, memo, unfilled)
    if not unfilled:
      break
  return MappingProxyType({target: tuple(formulas) for target, formulas in sorted(formulas_of.items()) if formulas})


def _expressions(sequence: tuple[int, ...], memo: dict) -> list:
  """All (numerator, denominator, precedence, text) whose numbers, read left to right, are `sequence`."""
  if len(sequence) == 1:
    return [(sequence[0], 1, _NUMBER, str(sequence[0]))]
  if sequence not in memo:
    memo[sequence] = [
        (*pair, _PRECEDENCE[operator], _join(left, operator, right))
        for left, operator, right in _pairings(sequence, memo)
        if (pair := _apply(operator, *left[:2], *right[:2])) != _UNDEFINED]
  return memo[sequence]


def _pairings(sequence: tuple[int, ...], memo: dict):
  """The (left, operator, right) of every cut of `sequence` that needs no redundant parentheses."""
  for cut in range(1, len(sequence)):
    rights = _expressions(sequence[cut:], memo)
    for left in _expressions(sequence[:cut], memo):
      for operator in "+-*/":
        # a+(b-c) and a*(b/c) are a+b-c and a*b/c, which another cut yields.
        redundant = {"+": 1, "*": 2}.get(operator)
        for right in rights:
          if right[2] != redundant:
            yield left, operator, right


def _finish(sequence: tuple[int, ...], memo: dict, unfilled: dict):
  """Adds the formulas over the whole `sequence` to those targets of `unfilled` that they reach, and removes the targets
  that have KEPT formulas then."""
  if len(sequence) == 1:
    if sequence[0] in unfilled:
      unfilled[sequence[0]].append(str(sequence[0]))
    return
  for left, operator, right in _pairings(sequence, memo):
    numerator, denominator = _apply(operator, left[0], left[1], right[0], right[1])
    if denominator and not numerator % denominator:
      target = numerator // denominator
      formulas = unfilled.get(target)
      if formulas is not None:
        formulas.append(_join(left, operator, right))
        if len(formulas) == KEPT:
          del unfilled[target]
          if not unfilled:
            return


def _join(left: tuple, operator: str, right: tuple) -> str:
  precedence = _PRECEDENCE[operator]
  before = f"({left[3]})" if left[2] < precedence else left[3]
  behind = f"({right[3]})" if right[2] < precedence or (right[2] == precedence and operator in "-/") else right[3]
  return before + operator + behind
