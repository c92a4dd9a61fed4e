"""V-IRL: scripted policies score what the rules predict, and nothing that a policy says raises."""

import dataclasses
import json
import random

import pytest

from sftrl_jax.chat import continues
from sftrl_jax.envs import ENVS
from sftrl_jax.envs.env import rewriting
from sftrl_jax.envs.virl.env import STYLES, VIRL, WORDS

VARIANTS = ("train", "id", "rule_ood", "city_ood")


def play(env, seed, policy):
  """(verdicts, success) of an episode that a policy, (state, env) -> response, plays."""
  state, chat = env.reset(seed)
  verdicts = []
  while chat is not None:
    state, verdict = env.step(state, policy(state, env))
    verdicts.append(verdict)
    chat = verdict.chat
  return verdicts, verdicts[-1].success


def by_the_rule(state, env):
  return env.expert(state)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_policy_that_follows_the_rule_scores_one_at_every_point(style, variant):
  env = VIRL(style=style, variant=variant)
  for seed in range(100):
    verdicts, success = play(env, f"{seed}", by_the_rule)
    assert success and all(verdict.correct and verdict.reward == 1 for verdict in verdicts)
    assert verdicts[-1].terminated and len(verdicts) <= env.attempts // env.tries


@pytest.mark.parametrize("style", STYLES)
def test_a_policy_of_the_training_rule_fails_at_the_first_turn_of_the_shift(style):
  trained, env = VIRL(style=style, variant="id"), VIRL(style=style, variant="rule_ood")
  absolute = lambda state, env: trained.expert(dataclasses.replace(state, space="absolute"))
  for seed in range(100):
    verdicts, success = play(env, seed, absolute)
    assert [verdict.code for verdict in verdicts] == ["space"] * env.tries and not success
    assert verdicts[-1].truncated and not verdicts[-1].terminated
    assert play(trained, seed, absolute)[1]


def test_the_shift_is_the_action_space_alone():
  for seed in range(50):
    assert VIRL(variant="id").route(seed) == VIRL(variant="rule_ood").route(seed)
    seen, shifted = (VIRL(variant=variant).reset(seed)[1][0].text for variant in ("id", "rule_ood"))
    parts = [text.partition("[Action space]") for text in (seen, shifted)]
    assert parts[0][0] == parts[1][0] and parts[0][2] != parts[1][2]


def test_cities_of_training_and_of_the_shift_have_other_landmarks():
  names = {variant: {mark.name for seed in range(200) for mark in VIRL(variant=variant).route(seed).landmarks if mark}
           for variant in ("train", "id", "city_ood")}
  assert names["id"] & names["train"] and not names["city_ood"] & (names["id"] | names["train"])


def test_a_wrong_answer_stays_and_a_second_one_ends_the_route():
  env = VIRL(style="compact")
  state, _ = env.reset(0)
  after, verdict = env.step(state, "nothing LINE 1 STOP")
  assert (after.place, verdict.code, verdict.reward, verdict.feedback) == (0, "action", -1.0, "WRONG")
  right, verdict = env.step(after, env.expert(after))
  assert verdict.correct and right.place == 1 and right.tries == 0
  again, verdict = env.step(after, "bank LINE 1 STOP")
  assert (verdict.code, verdict.reward, verdict.truncated, verdict.chat) == ("misread", -1.5, True, None)
  with pytest.raises(ValueError, match="has ended"):
    env.step(again, "x")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("space", ["absolute", "relative", "mixed"])
def test_careless_and_misread_answers_are_well_formed_and_wrong(style, space):
  env = VIRL(style=style, space=space)
  for seed in range(60):
    state, chat = env.reset(seed)
    while chat is not None:
      for response, code in ((env.careless(state, seed), "action"), (env.misread(state, seed), "misread")):
        assert env.step(state, response)[1].code == code
      state, verdict = env.step(state, env.expert(state))
      chat = verdict.chat


def test_the_chat_of_the_compact_style_grows_and_the_papers_is_written_anew():
  for style, grows in (("compact", True), ("paper", False)):
    env = VIRL(style=style)
    state, chat = env.reset(1)
    wrong, verdict = env.step(state, "nonsense")
    assert verdict.chat[:len(chat)] == chat and len(verdict.chat) == 3
    _, verdict = env.step(wrong, env.expert(wrong))
    assert (verdict.chat[:3] == wrong.chat) is grows and len(verdict.chat) == (5 if grows else 1)
  first, second = chat[0].text, verdict.chat[0].text
  assert "\nA_1:\n\n[Output]" in first and f"\nA_1: {json.loads(env.expert(state))['action']}\nO_2: " in second


def test_nothing_that_a_policy_says_raises():
  draw = random.Random(0)
  fragments = ["{", "}", '"action": "', "forward()", "turn_direction(", "north", '"', "'", "\\", "\ud800", "\x00",
               "LINE", " ", "TURN", "9" * 5000, "[" * 3000, "current observation", ":", "\n", "intersection", "STOP",
               "é"]
  for style in STYLES:
    env = VIRL(style=style)
    state, _ = env.reset(0)
    for _ in range(10_000):
      response = "".join(draw.choices(fragments, k=draw.randrange(12)))
      assert env.step(state, response)[1].code in env.codes and 0 <= env.action_start(response) <= len(response)


@pytest.mark.parametrize("style", STYLES)
def test_the_action_of_an_answer_is_what_moves(style):
  env = VIRL(style=style)
  state, _ = env.reset(0)
  moved = STYLES[style].action(state.point.move, state.point.word(state.space))
  response = env.expert(state)
  assert response[env.action_start(response) :] in (moved, f'"action": "{moved}"}}')
  assert env.action_start("no answer") == 0


def test_a_mixed_training_has_both_spaces_and_its_evaluation_one():
  env = VIRL(space="mixed", style="compact")
  assert {env.reset(seed)[0].space for seed in range(20)} == set(WORDS)
  assert {VIRL(space="mixed", variant="id").reset(seed)[0].space for seed in range(20)} == {"absolute"}


@pytest.mark.parametrize("wrong, words", [
    (dict(legs=0), "legs is 0"), (dict(legs=(5, 2)), r"use \(2, 5\)"), (dict(style="compact", legs=9), "at most 6"),
    (dict(drop=1.5), "drop is 1.5"), (dict(landmarks=float("nan")), "landmarks is nan"), (dict(tries=0), "tries is 0"),
    (dict(rewards=(1, 2)), "list or tuple of 3"), (dict(space="up"), "space is 'up'"), (dict(legacy=1), "legacy is 1"),
    (dict(variant="visual_ood"), "variant is 'visual_ood'"), (dict(style="compact", legacy=True), "style='paper' only"),
    (dict(routes="/none/x.json"), "cannot be read"), (dict(routes=3), "routes is 3")])
def test_a_wrong_field_is_named(wrong, words):
  with pytest.raises(ValueError, match=words):
    ENVS["virl"](**wrong)


@pytest.mark.parametrize("legacy", [False, True])
def test_no_episode_goes_beyond_the_chats_and_the_tries_that_are_stated(legacy):
  env = VIRL(legs=2, straight=3, drop=0.0, legacy=legacy)
  bounds, draw, most = rewriting(env), random.Random(0), 0
  for seed in range(40):
    state, chat = env.reset(seed)
    rows, tries, total = 1, 0, 0
    while chat is not None:
      response = env.expert(state) if draw.random() < 0.9 else "no"
      before, (state, verdict) = chat, env.step(state, response)
      chat, tries, total = verdict.chat, tries + 1, total + 1
      assert tries <= bounds.row_attempts
      if chat is not None and not continues(before, response, chat):
        rows, tries = rows + 1, 0
    assert rows <= bounds.rows and total <= env.attempts
    most = max(most, rows)
  assert most == bounds.rows   # reached without a drop of points
