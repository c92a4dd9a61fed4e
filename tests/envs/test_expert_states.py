"""The states of an expert's walk: each is there once, is answered once, and is judged as the environment judges it."""

import dataclasses

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Verdict
from sftrl_jax.envs.expert_states import ExpertStates, OneResponse, Place, walk
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.referee import CheckedEnv, EpisodeError, location, rewarded_by
from sftrl_jax.envs.virl.env import VIRL
from sftrl_jax.rollout.episodes import play, scripted

ROUTES = VIRL(style="compact", legs=2, straight=1)
SEEDS = range(8)


def places_of(env, seeds):
  return tuple(Place(seed, number) for seed in seeds for number, _ in enumerate(walk(env, seed)))


def test_a_walk_has_a_state_for_every_point_of_a_route_and_one_for_a_hand():
  for seed in SEEDS:
    states = list(walk(ROUTES, seed))
    assert [state.place for state, _ in states] == list(range(len(ROUTES.route(seed).points)))
    assert all(chat == state.chat and chat[-1].role == "user" for state, chat in states)
    assert len(list(walk(GeneralPoints(style="compact"), seed))) == 1


def test_the_expert_is_right_at_every_state_whichever_is_asked_for_first():
  places = places_of(ROUTES, SEEDS)
  for order in (range(len(places)), reversed(range(len(places)))):
    states = ExpertStates(ROUTES, places)
    for number in order:
      state, chat = states.reset(number)
      assert state.place == places[number].responses and chat == state.chat
      _, verdict = states.step(state, ROUTES.expert(state))
      assert verdict.correct and verdict.chat is None and verdict.terminated != verdict.truncated


def test_an_episode_is_one_response_judged_as_in_the_middle_of_a_route():
  places = places_of(ROUTES, SEEDS)
  states = ExpertStates(ROUTES, places)
  assert states.attempts == 1 and states.codes == ROUTES.codes
  answer = "nothing LINE 1 STOP"
  episodes, _ = play(states, scripted(lambda chat: answer), range(len(places)))
  expected = [ROUTES.step(state, answer)[1] for seed in SEEDS for state, _ in walk(ROUTES, seed)]
  assert [len(episode.turns) for episode in episodes] == [1] * len(places)
  verdicts = [episode.turns[0].verdict for episode in episodes]
  assert [(v.code, v.correct, v.reward) for v in verdicts] == [(v.code, v.correct, v.reward) for v in expected]
  assert sum(v.correct for v in verdicts) == len(SEEDS) < len(verdicts)   # at the last point of every route
  assert all(episode.trouble is None for episode in episodes)   # none has gone on beyond its attempts


@dataclasses.dataclass(frozen=True)
class Stairs:
  """Three steps of `up`; the second one of odd seeds fails in the user's own code."""

  codes: tuple = ("right", "wrong")
  attempts: int = 6

  def reset(self, seed):
    chat = (Message("user", "a"),)
    return (seed, 0, chat), chat

  def step(self, state, response):
    seed, height, chat = state
    if seed % 2 and height == 1:
      raise KeyError("a stair is missing")
    right = response == "up"
    done, height = right and height == 2, height + right
    chat = (*chat, Message("assistant", response), Message("user", "b"))
    verdict = Verdict(1.0, done, False, right, done, "b", None if done else chat, "right" if right else "wrong")
    return (seed, height, chat), verdict

  def expert(self, state):
    return "up"


def test_a_state_that_fails_is_left_out_with_its_trouble_and_the_others_are_not():
  env = CheckedEnv(Stairs())
  with pytest.raises(EpisodeError, match="a stair is missing"):
    list(walk(env, 1))
  places = tuple(Place(seed, number) for seed in range(4) for number in range(3))
  episodes, _ = play(ExpertStates(env, places), scripted(lambda chat: "up"), range(len(places)))
  # Of odd seeds, step fails at the second state, and reset to the third.
  assert [bool(episode.turns) for episode in episodes] == ([True] * 3 + [True, False, False]) * 2
  assert {episode.trouble.kind for episode in episodes if episode.trouble} == {"dropped/env"}
  assert "in step: KeyError: 'a stair is missing'" in episodes[4].trouble.message


def test_a_reward_that_is_missing_neither_ends_a_walk_nor_a_verdict():
  env = rewarded_by(CheckedEnv(Stairs(), scored=True), lambda chat, response, verdict: None)
  assert len(list(walk(env, 0))) == 3
  states = ExpertStates(env, places_of(env, [0]))
  state, _ = states.reset(1)
  with pytest.raises(EpisodeError) as error:
    states.step(state, "up")
  assert error.value.kind == "reward" and error.value.after[1].correct and error.value.after[1].chat is None


def test_an_error_names_the_users_own_file():
  assert "test_expert_states.py" in location(ExpertStates(CheckedEnv(Stairs()), ()), "step")


def test_where_every_point_has_a_chat_of_its_own_each_is_answered_once():
  env = VIRL(legs=2, straight=1)   # the paper's style, which rewrites its prompt
  states = ExpertStates(env, places_of(env, SEEDS))
  for episode in play(states, scripted(lambda chat: "no"), range(len(states.places)))[0]:
    assert len(episode.turns) == 1 and episode.trouble is None and not episode.earlier


def test_one_response_is_asked_for_at_the_first_prompt_or_anywhere_on_the_walk():
  hand, first, anywhere = GeneralPoints(style="compact"), OneResponse(ROUTES), OneResponse(ROUTES, anywhere=True)
  assert OneResponse(hand).reset(3) == hand.reset(3) and first.reset(3) == ROUTES.reset(3) and first.attempts == 1
  states = {seed: [state for state, _ in walk(ROUTES, seed)] for seed in range(40)}
  places = [states[seed].index(anywhere.reset(seed)[0]) for seed in states]
  assert len(set(places)) > 2 and places == [states[seed].index(anywhere.reset(seed)[0]) for seed in states]
  state, _ = first.reset(3)
  _, verdict = first.step(state, ROUTES.expert(state))
  assert verdict.correct and verdict.chat is None and verdict.truncated
  assert OneResponse(hand).thread_safe and OneResponse(OneResponse(hand)).codes == hand.codes
