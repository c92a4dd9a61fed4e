"""What a formula is worth, and which formulas a hand has."""

import random

import pytest

from sftrl_jax.envs import arithmetic
from sftrl_jax.envs.general_points import compact, paper, verdicts


@pytest.mark.parametrize("formula, code, words", [
    ("(1+2+3)*4", "correct", ""), ("1+2+3+4", "value", "equals 10 and not 24"), ("4/(3-2-1)", "value", "by zero"),
    ("2*3*4*5", "numbers", "has 5 beyond those of the cards and leaves 1 unused"), ("1**2*3*4", "illegal", "'*'")])
def test_a_verdict_has_a_code_and_a_reason(formula, code, words):
  found = verdicts.judge(paper, (1, 2, 3, 4), 24, f'{{"formula": "{formula}"}}')
  assert found[0] == code and words in found[1]


def test_recited_numbers_are_judged_first():
  assert verdicts.judge(compact, (1, 2), 3, "NUMBERS 2 1 FORMULA 1 + 2")[0] == "misread"


def test_formulas_of_any_target_are_legal():
  for target in (24, 48):
    for formula in verdicts.formulas_of((1, 2, 4, 6), target):
      assert arithmetic.evaluate(formula) == target
  assert 24 in verdicts.reachable((1, 2, 3, 4)) and verdicts.formulas_of((1, 1, 1, 1), 24) == ()
  assert sorted(arithmetic.parse(verdicts.any_formula(random.Random(0), (4, 2, 9), 1))[1]) == [2, 4, 9]


def test_a_hint_is_the_longest_common_beginning():
  formulas = verdicts.formulas_of((1, 2, 3, 4), 24)
  tokens = arithmetic.tokens(formulas[0])
  assert verdicts.common_beginning((3, 1, 2, 4), 24, [*tokens[:4], "9"]) == "".join(tokens[:4])
  assert verdicts.common_beginning((1, 2, 3, 4), 24, ["9"]) == ""
  response = f'{{"formula": "{"".join(tokens[:3])}"}}'
  assert verdicts.with_hint(paper, (1, 2, 3, 4), 24, response, "why") == (
      f"why, but {''.join(tokens[:3])} is the beginning of a solution")


def test_a_slip_differs_from_a_formula_of_the_solver_in_its_first_operator():
  opposite = {"+": "-", "-": "+", "*": "/", "/": "*"}
  drawn = set()
  for seed in range(60):
    slipped = arithmetic.tokens(verdicts.slip(random.Random(seed), (4, 1, 6, 2), 24))
    place = next(index for index, token in enumerate(slipped) if token in opposite)
    slipped[place] = opposite[slipped[place]]
    drawn.add("".join(slipped))
  assert drawn == set(verdicts.formulas_of((1, 2, 4, 6), 24)) and len(drawn) > 1


def test_a_formula_that_divides_by_zero_has_no_steps():
  assert verdicts.steps_of("4/(3-2-1)") == () and verdicts.steps_of("10-1") == ("10-1=9",)
