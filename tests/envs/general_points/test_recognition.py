"""What was seen is judged before what was made of it, in the documented order, and reported apart."""

import dataclasses
import json

import pytest

from sftrl_jax.envs.general_points import cards, recite, recognition
from sftrl_jax.envs.general_points.env import GeneralPoints

PAPER = GeneralPoints(vision=True, pixels=128)
RECITE = GeneralPoints(vision=True, style="recite", cards=3, target="any", rewards=(1, -0.2, -0.4, -0.6))


def hand(env, ranks, target, rule=cards.TENS):
  dealt = tuple(cards.Card(rank, "S") for rank in ranks.split())
  return dataclasses.replace(env.reset(0)[0], cards=dealt, rule=rule, values=cards.points(dealt, rule), target=target)


@pytest.mark.parametrize("response, code, reward, seen, rule", [
    ("CARDS cA c10 cK NUM 1 10 10 FORM 10 + 10 - 1", "correct", 1, True, True),
    ("CARDS cA c10 cK NUM 1 10 10 FORM 10 + 10 + 1", "value", -0.2, True, True),
    ("CARDS cA c10 cK NUM 1 10 10 FORM 1 / ( 10 - 10 )", "value", -0.2, True, True),
    ("CARDS cA c10 cK NUM 1 10 10 FORM 10 + 9", "numbers", -0.4, True, True),
    ("CARDS cA c10 cK NUM 1 10 13 FORM 13 + 10 - 1", "rule", -0.4, True, False),
    ("CARDS cA c10 cK NUM 1 10 FORM 10 + 10 - 1", "rule", -0.4, True, False),
    ("CARDS cA c10 cQ NUM 1 10 10 FORM 10 + 10 - 1", "misread", -0.3, False, True),
    ("CARDS c10 cA cK NUM 1 10 10 FORM 10 + 10 - 1", "misread", -0.3, False, False),
    ("CARDS cA c10 NUM 1 10 13 FORM 1", "misread", -0.3, False, False),
    ("CARDS cA c10 cK NUM 1 10 10 FORM 10 10", "illegal", -0.6, True, True),
    ("CARDS cA c10 cQ NUM 1 10 10 FORM 10 10", "illegal", -0.6, False, True),
    ("CARDS cA c10 cK NUM 1 10 10", "illegal", -0.6, True, True), ("", "illegal", -0.6, False, False)])
def test_the_recited_lines_are_judged_in_order(response, code, reward, seen, rule):
  _, verdict = RECITE.step(hand(RECITE, "A 10 K", 19), response)
  assert (verdict.code, verdict.reward) == (code, pytest.approx(reward))
  assert verdict.parts == {"cards": seen, "rule": rule} and verdict.feedback in RECITE.words


@pytest.mark.parametrize("block, code, reward, seen, rule", [
    ({"cards": ["K", "2", "3", "4"], "number": [10, 2, 3, 4], "formula": "(10-4)*(2+3)"}, "value", -1, True, True),
    ({"cards": ["4", "3", 2, "k"], "number": [4, 3, 2, 10], "formula": "10*2+4*(3-2)"}, "numbers", -2, True, True),
    ({"cards": ["K", "2", "3", "4"], "number": [13, 2, 3, 4], "formula": "10+2*(3+4)"}, "correct", 5, True, False),
    ({"cards": ["Q", "2", "3", "4"], "number": [10, 2, 3, 4], "formula": "10+2*(3+4)"}, "misread", -1.5, False, True),
    ({"cards": ["X", None, [], "4"], "number": {}, "formula": "10+2*(3+4)"}, "misread", -1.5, False, False),
    ({"cards": "K 2 3 4", "formula": "10+2*(3+4)"}, "illegal", -3, False, False),
    ({"cards": ["Q"], "formula": "10+"}, "illegal", -3, False, False)])
def test_the_papers_answers_are_misread_before_they_are_wrong(block, code, reward, seen, rule):
  state = hand(PAPER, "K 2 3 4", 24)
  for response in (json.dumps(block), f"Well: {json.dumps(block)[:-1]},}}"):
    _, verdict = PAPER.step(state, response)
    assert (verdict.code, verdict.reward, verdict.parts) == (code, reward, {"cards": seen, "rule": rule})


def test_the_loose_lists_of_the_paper_are_read():
  _, verdict = PAPER.step(hand(PAPER, "K 2 3 4", 24),
                          '{"cards": [\'K\', 2, "3", 4], "number": [10, 2, 3, 4], "formula": "10+2*(3+4)=24",}')
  assert verdict.correct and verdict.parts == {"cards": True, "rule": True}
  assert PAPER.part_labels.keys() == verdict.parts.keys()   # so that a report has a table of each


def test_the_fifth_reward_is_that_of_misread_cards():
  env = dataclasses.replace(RECITE, rewards=(1, -0.2, -0.4, -0.6, -0.9))
  assert env.step(hand(env, "A 10 K", 19), "CARDS cA cA cA NUM 1 1 1 FORM 1 + 1 + 1")[1].reward == -0.9
  with pytest.raises(ValueError, match="4 items"):
    GeneralPoints(rewards=(5, -1, -2, -3, -1.5))


def test_the_cards_line_can_be_the_whole_answer():
  env = dataclasses.replace(RECITE, answer="cards")
  state, _ = env.reset(3)
  assert env.expert(state) == recite.write_cards(state.ranks) and env.step(state, env.expert(state))[1].correct
  _, verdict = env.step(state, env.misread(state, 1))
  assert (verdict.code, verdict.parts) == ("misread", {"cards": False})
  assert env.step(state, RECITE.expert(state))[1].code == "illegal"


@pytest.mark.parametrize("env", [PAPER, RECITE, dataclasses.replace(PAPER, style="short")], ids=lambda env: env.style)
def test_an_expert_is_right_a_misreading_wrong_and_a_slip_reads_rightly(env):
  for variant in env.variants:
    shown = dataclasses.replace(env, variant=variant, careless_by="slip")
    for seed in range(12):
      state, _ = shown.reset(seed)
      assert shown.step(state, shown.expert(state, seed))[1].parts == {"cards": True, "rule": True}
      assert shown.step(state, shown.expert(state, seed))[1].correct
      careless, misread = (shown.step(state, response(state, seed))[1] for response in (shown.careless, shown.misread))
      assert careless.code in ("correct", "value") and careless.parts["cards"]
      assert (misread.code, misread.parts) == ("misread", {"cards": False, "rule": True})


def test_the_parts_survive_any_text():
  state = hand(RECITE, "A 10 K", 19)
  for text in ("\ud800", "CARDS " * 10**5, "[" * 10**6, '{"cards": [' + "1" * 5000 + "]}", '{"cards": [' * 10**4, "\0"):
    for env in (RECITE, PAPER):
      assert env.step(state, text)[1].code == "illegal"
      assert recognition.parts(recite, state.ranks, state.rule, text) == {"cards": False, "rule": False}
