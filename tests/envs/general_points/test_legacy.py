"""The reward table of the paper's released verifier, row by row."""

import dataclasses
import json

import pytest

from sftrl_jax.envs.general_points import cards, legacy
from sftrl_jax.envs.general_points.env import GeneralPoints

ENV = GeneralPoints(legacy=True, attempts=6)


def hand(ranks):
  dealt = tuple(cards.Card(rank, "H") for rank in ranks.split())
  state, _ = ENV.reset(0)
  return dataclasses.replace(state, cards=dealt, values=cards.points(dealt, cards.TENS), target=24)


@pytest.mark.parametrize("ranks, formula, reward", [
    ("A 2 3 4", "(1+2+3)*4", 5), ("A 2 3 4", "(1+2+3)*4=24", 5), ("A 2 3 4", "1*2*3*4=7", 5),
    ("A 2 3 4", "((1+2+3)*4", 1), ("A 2 3 4", "(1+2+3*4", -1), ("A 2 3 4", "1+2+3+4", -1), ("A 2 3 4", "4/(3-2-1)", -1),
    ("A 2 3 4", "2*3*4*5", -4), ("A 2 3 4", "2*3*4", -2), ("A 2 3 4", "1*2*3*4*4", -2), ("A 2 3 4", "", -2),
    ("A 2 3 4", "( 1+2+3 )*4", -3), ("A 2 3 4", "None", -3), ("A 2 3 4", "(1*2)(3*4)", -6),
    ("A 2 3 4", "(1+2+3)*4)", -3), ("A 2 3 4", "-1*2*3*4", -3), ("A 2 3 4", "1**2*3*4", -3),
    ("A 2 3 4", "2*3*4**5", -7), ("3 3 8 8", "8/(3-8/3)", 0), ("3 3 8 8", "8/(3-8/3", 1)])
def test_the_reward_table(ranks, formula, reward):
  _, verdict = ENV.step(hand(ranks), f'{{"cards": [], "number": [], "formula": "{formula}",}}')
  assert verdict.reward == reward and verdict.correct == (reward == 5)
  assert ENV.step(hand(ranks), json.dumps({"formula": formula}))[1].reward == reward


@pytest.mark.parametrize("response, formula", [
    ('{"formula": "1+2"}', "1+2"), ('x "formula": "1+2", y', "1+2"), ('"formula":"1+2"', "None"), ("1+2", "None"),
    ("'formula': '1+2'", "None"), ('{"formula": null}', "None"), ('{"formula": 24}', "24"), ("[" * 9000, "None")])
def test_a_formula_is_read_with_one_spacing(response, formula):
  assert legacy.read(response) == formula


def test_the_sixth_answer_has_no_score():
  state, _ = ENV.reset(0)
  for _ in range(5):
    state, verdict = ENV.step(state, '{"formula": "99"}')
    assert verdict.reward == -4 and not verdict.truncated
  _, verdict = ENV.step(state, ENV.expert(state))
  assert (verdict.reward, verdict.truncated, verdict.success) == (-1, True, False)


def test_feedback_names_the_beginning_of_a_solution():
  state = hand("A 2 3 4")
  solution = json.loads(ENV.expert(state))["formula"].partition("=")[0]
  wrong = solution[:-2] + ("-" if solution[-2] != "-" else "+") + solution[-1]
  feedback = ENV.step(state, json.dumps({"formula": wrong}))[1].feedback
  assert f"but {solution[:-2]} is the beginning of one" in feedback


@pytest.mark.parametrize("formula", [
    "9" * 200 + "/" + "8", "*".join(["99999999999999"] * 17), "1)", ")" * 256, "(" * 256, "+" * 256, "1" * 257, "1/0",
    "\ud800", "２"])
def test_hostile_formulas_get_a_reward(formula):
  assert ENV.step(hand("A 2 3 4"), json.dumps({"formula": formula}))[1].reward < 0


SEEN = GeneralPoints(legacy=True, attempts=6, vision=True, pixels=128)


@pytest.mark.parametrize("cards_line, reward", [
    ("['A', '2', '3', '4']", 5), ("['4', A, '3', '2']", 5), ('["A", "2", "3", "4"]', -1.5), ("['A', '2', '3']", -1.5),
    ("['A', '2', '3', '5']", -1.5), ("A 2 3 4", -1.5)])
def test_the_released_code_recognises_loose_lists_alone(cards_line, reward):
  state = dataclasses.replace(hand("A 2 3 4"), chat=SEEN.reset(0)[1])
  block = f'{{"cards": {cards_line}, "number": [1, 2, 3, 4], "formula": "(1+2+3)*4=24",}}'
  _, verdict = SEEN.step(state, block)
  assert verdict.reward == reward and (verdict.code == "misread") == (reward < 0)
  valid = '{"cards": ["A", "2", "3", "4"], "number": [1, 2, 3, 4], "formula": "(1+2+3)*4=24"}'
  assert SEEN.step(state, valid)[1].reward == -1.5   # valid JSON counts as misread
  assert SEEN.step(state, valid)[1].parts == {"cards": True, "rule": True}


def test_four_numbers_without_quotes_are_not_recognised_and_the_expert_is():
  state = hand("2 3 4 6")
  assert SEEN.step(state, '{"cards": [2, 3, 4, 6], "formula": "2*(3+4)+6",}')[1].code == "misread"
  assert SEEN.step(state, SEEN.expert(state))[1].correct and SEEN.step(state, SEEN.misread(state, 0))[1].reward == -1.5
  assert SEEN.step(state, "x" * 10**6)[1].code == "misread"
