"""The paper's style: strict JSON is written, loose JSON is read."""

import json

import pytest

from sftrl_jax.envs.arithmetic import FormulaError
from sftrl_jax.envs.general_points import paper

RANKS = ("4", "3", "2", "K")


def test_the_prompt_states_cards_rule_target_and_keys():
  text = paper.prompt(RANKS, (11, 12, 13), 24)
  for part in ("Cards: ['4', '3', '2', 'K']", "count as 11, 12 and 13", "exactly once", "=24", '"cards"', '"number"',
               '"formula"', "'+', '-', '*', '/'"):
    assert part in text
  assert "all count as 10" in paper.prompt(RANKS, (10, 10, 10), 24)


def test_what_is_written_is_strict_json_with_the_papers_keys():
  block = json.loads(paper.write(RANKS, (4, 3, 2, 10), "4*3+2+10", 24))
  assert block == {"cards": ["4", "3", "2", "K"], "number": [4, 3, 2, 10], "formula": "4*3+2+10=24"}


@pytest.mark.parametrize("response", [
    '{"formula": "1+2=3"}',
    '{"formula":"1+2"}',
    '{"cards": ["A"], "number": [1], "formula": "1+2=3"}',
    "{'cards': ['A', '2'], 'number': [1, 2], 'formula': '1+2=3',}",
    "{\n  \"cards\": ['A', '2'],\n  \"number\": [1, 2],\n  \"formula\": \"1+2=3\",\n}",
    'Sure! ```json\n{"formula" : "1+2=3"}\n```',
    '{"formula": "1+2=3"} {"formula": "9"}',
    '{"formula": "1+2=3"',
    "\"formula\": '1+2'",
    '{"formula": "1\\u002b2"}'])
def test_strict_and_loose_blocks_are_read(response):
  assert paper.read(response) == ((), "1+2")


@pytest.mark.parametrize("response", [
    "", "1+2", "formula: 1+2", '{"formula": 24}', '{"formula": null}', '{"formula": ["1+2"]}', '{"formula": "1+2}',
    '{"formulas": "1+2"}', '{"formula": {"formula": 3}}', '{"formula": ' + "1" * 5000 + "}",
    '{"a":' * 10**5, '{"a":' * 5000, "[" * 10**5, "{" + "[" * 30000, '{"formula": "' + "1" * 10**6 + '"}',
    "\0", "\ud800"])
def test_what_cannot_be_read_is_a_formula_error(response):
  with pytest.raises(FormulaError):
    paper.read(response)


def test_spaces_stay_and_only_the_first_equals_sign_counts():
  assert paper.read('{"formula": "1 + 2 = 3 = 4"}') == ((), "1 + 2 ")
  assert paper.read('{"formula": "=24"}') == ((), "")


def test_a_failure_says_why():
  assert paper.feedback("value", "the sum is off", 24) == "You failed this trial because the sum is off."
  assert "24" in paper.feedback("correct", "", 24)


def test_the_action_starts_at_the_last_key():
  text = paper.write(RANKS, (4, 3, 2, 10), "4*3+2+10", 24, ("4*3=12",))
  assert text[paper.action_start(text) :] == '"formula": "4*3+2+10=24"}'
  assert paper.action_start(f"'formula' : {text}") == len("'formula' : ") + paper.action_start(text)
  assert paper.action_start('a formula: "formula"') == 0
