"""What is imitated of an episode, on real episodes of GeneralPoints and on a task whose prompt is rewritten."""

import dataclasses
import itertools

import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Verdict
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.referee import EpisodeError, rewarded_by
from sftrl_jax.rollout import collect, episodes as playing, imitated
from sftrl_jax.rollout.episodes import Episode, Response, Turn
from sftrl_jax.text import tokenizer as tokenizers
from sftrl_jax.text.render import continued, render

ENV = GeneralPoints(style="compact", cards=3, target="any", attempts=3)
TOKENIZER = tokenizers.words(ENV.words)
SEEDS = [f"0 {number}" for number in range(12)]
LENGTH = 64


def played(seeds=SEEDS, env=ENV):
  """(the task, episodes with ids as a policy would have sampled them): one of three responses is right."""
  calls = itertools.count()

  def answer(chat):
    number = next(calls)
    return " ".join(ENV.words[number % 7 : number % 7 + 3]) if number % 3 else "RIGHT"

  class Right(GeneralPoints):
    """RIGHT stands for the expert's response."""

    def step(self, state, response):
      return super().step(state, self.expert(state) if response == "RIGHT" else response)

  right = Right(**dataclasses.asdict(env))
  return right, [with_ids(episode) for episode in playing.play(right, playing.scripted(answer), seeds)[0]]


def with_ids(episode):
  """The same episode with the ids of its texts."""
  turns, chat = [], episode.chat[: episode.asked]
  for number, turn in enumerate(episode.turns):
    context = continued(TOKENIZER, chat) if number else render(TOKENIZER, chat)[0]
    tokens = (*TOKENIZER.encode(turn.response.text.replace("RIGHT", "FORMULA")), TOKENIZER.eos)
    response = dataclasses.replace(turn.response, context=tuple(context), tokens=tokens, logprobs=(-1.0,) * len(tokens))
    turns.append(dataclasses.replace(turn, response=response))
    chat = (*chat, Message("assistant", turn.response.text), *([Message("user", turn.verdict.feedback)]
                                                              if turn.verdict.chat else []))
  return dataclasses.replace(episode, turns=tuple(turns))


def ids_of(episode):
  return [token for turn in episode.turns for token in (*turn.response.context, *turn.response.tokens)]


def test_correct_responses_alone_are_learned_and_the_rest_is_read():
  _, episodes = played()
  assert {turn.verdict.correct for episode in episodes for turn in episode.turns} == {True, False}
  kept = [imitated.correct_responses(episode) for episode in episodes]
  rows, own = (collect.rows(group, LENGTH, [()] * len(group)) for group in (episodes, kept))
  for row, (episode, mine) in enumerate(zip(episodes, kept, strict=True)):
    learned = [turn.response.tokens for turn in episode.turns if turn.verdict.correct]
    assert [turn.response.tokens for turn in mine.turns] == learned
    assert ids_of(mine) == ids_of(episode)[: len(ids_of(mine))]
    want = np.zeros(LENGTH)
    for turn in range(len(episode.turns)):
      if episode.turns[turn].verdict.correct:
        want += rows.mask_BT[row] * (rows.turns_BT[row] == turn)
    np.testing.assert_array_equal(own.mask_BT[row], want)
  nothing = [row for row, episode in enumerate(kept) if not episode.turns]
  assert nothing and not own.inputs.segments_BT[nothing].any()   # a row without a right answer is blank


def chats(*rows):
  """An episode of several chats: for each a list of whether its responses are right."""
  turns, token = [], 10
  for number, row in enumerate(rows):
    for place, right in enumerate(row):
      response = Response("", (token,), (token + 1, token + 2), (-1.0, -2.0), begins_row=number > 0 and place == 0)
      turns.append(Turn(response, Verdict(0.0, False, False, right, False, "", None, "value")))
      token += 10
  return Episode(0, tuple(turns), (), False)


def test_chats_stay_rows_of_their_own():
  episode = chats([False, True], [False], [True, False, True])
  mine = imitated.correct_responses(episode)
  assert [[(turn.response.context, turn.response.tokens) for turn in row] for row in mine.rows] == [
      [((10, 11, 12, 20), (21, 22))], [((40,), (41, 42)), ((50, 51, 52, 60), (61, 62))]]
  assert imitated.correct_responses(chats([False], [False])).rows == [()]


def test_the_expert_answers_at_a_state_that_the_policy_came_to():
  env, episodes = played()
  places = []
  for episode in episodes:
    mine = imitated.expert_response(env, TOKENIZER, 20, episode)
    turn, = mine.turns
    read = len(turn.response.context)
    assert list(turn.response.context) == ids_of(episode)[:read]
    upto = [len(ids_of(dataclasses.replace(episode, turns=episode.turns[: number + 1]))) - len(each.response.tokens)
            for number, each in enumerate(episode.turns)]
    place = upto.index(read)   # whose response is replaced
    state, _ = imitated.replay(env, episode, place)
    assert turn.response.tokens == (*TOKENIZER.encode(env.expert(state)), TOKENIZER.eos)
    _, verdict = env.step(state, TOKENIZER.decode(turn.response.tokens[:-1]))
    assert verdict.correct
    assert mine == imitated.expert_response(env, TOKENIZER, 20, episode)   # by the seed
    places.append(place)
  assert len(set(places)) > 1


def test_a_response_that_would_be_cut_is_an_error_and_an_episode_that_fails_has_none():
  env, episodes = played(SEEDS[:1])
  with pytest.raises(ValueError, match=r"config.rollout.max_new_tokens is 4, .*max_new_tokens=\d+ or more"):
    imitated.expert_response(env, TOKENIZER, 4, episodes[0])

  class Gone(GeneralPoints):
    def reset(self, seed):
      raise EpisodeError("env", "gone")

  assert imitated.expert_response(Gone(**dataclasses.asdict(ENV)), TOKENIZER, 20, episodes[0]).turns == ()
  blank = playing.blank_episodes(1)[0]
  assert imitated.expert_response(env, TOKENIZER, 20, blank) is blank


def test_a_reward_function_is_not_asked_again():
  env, episodes = played(SEEDS[:4])

  def refuse(chat, response, verdict):
    raise AssertionError("the rewards have been given")

  for episode in episodes:
    assert imitated.expert_response(rewarded_by(env, refuse), TOKENIZER, 20, episode) == imitated.expert_response(
        env, TOKENIZER, 20, episode)
