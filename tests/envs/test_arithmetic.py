"""The parser is exact and survives anything; the solver finds all there is."""

import itertools
import random
from fractions import Fraction

import pytest

from sftrl_jax.envs import arithmetic
from sftrl_jax.envs.arithmetic import DivisionByZero, FormulaError, evaluate, parse, solutions

ILLEGAL = [
    "", " ", "()", "1+", "+1", "-1", "1-", "2*-3", "(-1)", "1--1", "2**3", "2//3", "1 2", "(1)(2)", "2(3)", "(2)3",
    "(1", "1)", ")(", "((1)", "1+(2", "1.5", "1e3", "0x1", "1_000", "1,2", "[1]", "a", "x+1", "1+2=3", "1\t+2", "1\n",
    "1\u00a02", "２", "²", "١+١", "1×2", "4÷2", "1−2", "\0", "1\0", "\ud800", "__import__('os')", "(lambda:0)()",
    "9**9**9", "1" * 5000, "(" * 10**5, "(" * 10**5 + "1" + ")" * 10**5, "1+" * 10**5 + "1", "a" * 10**6, "(" * 256,
    "(" * 255 + "1"
]


def tree(source: random.Random, depth: int) -> tuple[str, int, Fraction | None]:
  """A random expression with its precedence and its value by Fraction's own operators (None: divides by zero)."""
  if depth == 0 or source.random() < 0.2:
    number = source.randrange(14)
    return f"({number})" if source.random() < 0.1 else str(number), 3, Fraction(number)
  operator = source.choice("+-*/")
  precedence = 1 if operator in "+-" else 2
  left, left_precedence, a = tree(source, depth - 1)
  right, right_precedence, b = tree(source, depth - 1)
  if left_precedence < precedence or source.random() < 0.1:
    left = f"({left})"
  if right_precedence <= precedence or source.random() < 0.1:
    right = f"({right})"
  space = " " * source.randrange(2)
  text = f"{left}{space}{operator}{space}{right}"
  if a is None or b is None or (operator == "/" and b == 0):
    return text, precedence, None
  return text, precedence, {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[operator]()


def test_random_expressions_are_exact():
  source = random.Random(0)
  compared = 0
  while compared < 10_000:
    text, _, value = tree(source, source.randrange(1, 5))
    if len(text) > arithmetic.LONGEST:
      continue
    compared += 1
    if value is None:
      with pytest.raises(DivisionByZero):
        evaluate(text)
    else:
      assert evaluate(text) == value, text


def test_operators_of_one_kind_group_from_the_left():
  assert evaluate("8-4-2") == 2
  assert evaluate("8/4/2") == 1
  assert evaluate("2-3*4+8/2") == -6
  assert evaluate("2/3*3") == 2


def test_thirds_are_exact():
  assert evaluate("8/(3-8/3)") == 24
  assert evaluate("1/3") == Fraction(1, 3)


def test_parse_lists_the_numbers_in_order():
  assert parse(" (10 - 1)*10 ") == (90, (10, 1, 10))
  assert parse("7") == (7, (7,))


@pytest.mark.parametrize("text", ILLEGAL, ids=lambda text: ascii(text[:16]))
def test_illegal_text_is_a_formula_error(text):
  with pytest.raises(FormulaError) as caught:
    evaluate(text)
  assert isinstance(caught.value, ValueError) and len(str(caught.value)) < 120
  str(caught.value).encode()  # a message can always be printed


def test_division_by_zero_knows_its_numbers_and_never_hides_an_illegal_formula():
  cases = {"1/0": (1, 0), "1/(2-2)+5": (1, 2, 2, 5), "5/(1/(3-3))": (5, 1, 3, 3), "(1/0)*0": (1, 0, 0)}
  for text, numbers in cases.items():
    with pytest.raises(DivisionByZero) as caught:
      parse(text)
    assert caught.value.numbers == numbers
  with pytest.raises(FormulaError) as caught:
    parse("1/0+")
  assert not isinstance(caught.value, DivisionByZero)


def test_the_limit_is_256_characters():
  assert evaluate("9" * 256) == 10**256 - 1
  assert evaluate("(" * 127 + "1" + ")" * 127) == 1
  assert evaluate("*".join("9" * 128)) == 9**128
  with pytest.raises(FormulaError, match="256"):
    evaluate("9" * 257)


def test_what_is_not_text_is_a_type_error():
  with pytest.raises(TypeError, match="NoneType"):
    evaluate(None)


def brute_force(values) -> set:
  """Every value that a formula over all of `values` can take: replace two numbers by their result, and so on."""
  if len(values) == 1:
    return set(values)
  found = set()
  for i, j in itertools.permutations(range(len(values)), 2):
    a, b = values[i], values[j]
    rest = tuple(value for k, value in enumerate(values) if k not in (i, j))
    for result in (a + b, a - b, a * b, *((a / b,) if b else ())):
      found |= brute_force((*rest, result))
  return found


@pytest.mark.parametrize("values", [
    (5,), (2, 6), (1, 1, 1), (1, 5, 7), (10, 10, 10), (4, 9, 13), (3, 3, 8, 8), (1, 2, 7, 11)])
def test_the_solver_reaches_what_brute_force_reaches(values):
  reachable = brute_force(tuple(map(Fraction, values)))
  assert set(solutions(values)) == {target for target in arithmetic.TARGETS if target in reachable}
  assert max(reachable) <= max(2, *values) ** len(values)
  large = range(31, 2000)
  assert set(solutions(values, large)) == {target for target in large if target in reachable}


def test_formulas_are_right_different_and_have_no_redundant_parentheses():
  pairs = 0
  for values in itertools.combinations_with_replacement(range(1, 14), 3):
    for target, formulas in solutions(values).items():
      pairs += 1
      assert 1 <= len(formulas) <= 4 and len(set(formulas)) == len(formulas)
      for formula in formulas:
        value, numbers = parse(formula)
        assert value == target and tuple(sorted(numbers)) == values
        assert len(arithmetic._TOKENS.findall(formula)) <= 7
        assert minimal(formula), formula
  assert pairs == 3740


def minimal(formula: str) -> bool:
  """Whether dropping any pair of parentheses changes the value or the grouping into operands of + and *."""
  for opening in (i for i, symbol in enumerate(formula) if symbol == "("):
    depth = 0
    for closing in range(opening, len(formula)):
      depth += {"(": 1, ")": -1}.get(formula[closing], 0)
      if depth == 0:
        break
    before = formula[opening - 1] if opening else "("
    inside = formula[opening + 1:closing]
    sums = any(symbol in "+-" for symbol in outermost(inside))
    after = formula[closing + 1] if closing + 1 < len(formula) else ")"
    if not (before in "-/" or (sums and (before == "*" or after in "*/"))):
      return False
    if before == "-" and not sums:
      return False
  return True


def outermost(text: str) -> str:
  depth, kept = 0, ""
  for symbol in text:
    depth += {"(": 1, ")": -1}.get(symbol, 0)
    kept += symbol if depth == 0 and symbol in "+-*/" else ""
  return kept


def test_the_counts_of_solvable_hands_are_the_papers():
  solvable = [values for values in itertools.combinations_with_replacement(range(1, 14), 4) if 24 in solutions(values)]
  assert len(solvable) == 1362
  assert sum(max(values) <= 10 for values in solvable) == 566
  assert solutions((3, 3, 8, 8))[24] == ("8/(3-8/3)",)
  for values in solvable[::7]:
    for formula in solutions(values)[24]:
      assert parse(formula)[0] == 24 and tuple(sorted(parse(formula)[1])) == values


def test_solutions_cannot_be_changed_and_do_not_depend_on_order():
  table = solutions((1, 2, 3))
  with pytest.raises(TypeError):
    table[6] = ()
  assert solutions([3, 1, 2]) is table
  assert list(table) == sorted(table)
  assert table[6] == ("1+2+3", "1*2*3", "1+3+2", "1*3*2")


@pytest.mark.parametrize("values", [(1, 2, 3), (2, 4, 6, 7), (2, 3, 5, 7, 8)])
def test_the_solver_ends_early_only_when_it_has_every_formula(values):
  unreachable = range(1, max(values) ** len(values) + 2)   # the last is never reached: a full search
  complete = solutions(values, unreachable)
  assert solutions(values) == {target: complete[target] for target in arithmetic.TARGETS if target in complete}
  assert max(complete) < unreachable[-1]


@pytest.mark.parametrize("values", [(), (0, 1), (-1, 2), (1.0, 2)])
def test_only_positive_integers_are_solved(values):
  solutions((1, 2))  # kept from now on, and equal to (1.0, 2) as a key
  with pytest.raises(ValueError, match="positive integers"):
    solutions(values)


@pytest.mark.parametrize("expression, steps", [
    ("1", ()), ("10-1+9*2", ("10-1=9", "9*2=18", "9+18=27")), ("8/(3-8/3)", ("8/3=8/3", "3-(8/3)=1/3", "8/(1/3)=24")),
    ("(2-5)*4", ("2-5=-3", "(-3)*4=-12")), ("( 1 + 2 ) * ( 3 + 4 )", ("1+2=3", "3+4=7", "3*7=21"))])
def test_steps_are_the_operations_in_order(expression, steps):
  assert arithmetic.steps(expression) == steps
  assert all(arithmetic.evaluate(left) == Fraction(right) for left, right in (
      step.split("=") for step in steps) if "(-" not in left)


def test_steps_of_an_illegal_formula_are_an_error():
  with pytest.raises(arithmetic.FormulaError, match="incomplete"):
    arithmetic.steps("1+")
