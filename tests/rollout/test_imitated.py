"""What is imitated of an episode, on real episodes of GeneralPoints and on a task whose prompt is rewritten."""

import dataclasses
import itertools
import re

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


def demonstrated(env, episodes, most=40):
  return imitated.with_demonstrations(env, TOKENIZER, most, episodes)


def test_a_teacher_reads_the_prompt_of_a_row_and_the_experts_response_before_it():
  env, episodes = played()
  assert {len(episode.turns) for episode in episodes} >= {1, 2}   # later turns of a chat follow in its row
  for before, episode in zip(episodes, demonstrated(env, episodes), strict=True):
    state, chat = env.reset(episode.seed)
    whole = render(TOKENIZER, (*chat, Message("assistant", env.expert(state)), *chat))[0]
    (shown, skipped), = episode.prefixes
    context = episode.turns[0].response.context
    assert [*shown, *context[skipped:]] == whole and skipped == 1
    assert dataclasses.replace(episode, prefixes=()) == before
  blank = playing.blank_episodes(1)
  assert demonstrated(env, blank) == blank


def test_every_chat_of_an_episode_has_the_demonstration_of_its_own_state(walk):
  env = walk()
  env = type("Shown", (walk,), {"expert": lambda self, state: "a" if (state[0] + state[1]) % 2 else "b"})()
  tokenizer = tokenizers.words("abcdef")
  episodes = playing.play(env, playing.scripted(lambda chat: "a c" if len(chat) % 3 else "b"), range(8))[0]
  contexts = lambda row: render(tokenizer, row)[0]
  found = 0
  for episode in episodes:
    turns, state, chat = [], *env.reset(episode.seed)
    for turn in episode.turns:   # with the ids that a policy would have read
      ids = contexts(chat) if len(chat) == 1 else continued(tokenizer, chat)
      turns.append(dataclasses.replace(turn, response=dataclasses.replace(
          turn.response, context=tuple(ids), begins_row=bool(turns) and len(chat) == 1)))
      state, verdict = env.step(state, turn.response.text)
      chat = verdict.chat
    episode, = imitated.with_demonstrations(env, tokenizer, 40, [dataclasses.replace(episode, turns=tuple(turns))])
    assert len(episode.prefixes) == len(episode.rows)
    for point, (row, (shown, _)) in enumerate(zip(episode.rows, episode.prefixes, strict=True)):
      prompt = tokenizer.decode(row[0].response.context[1:])
      want = f"{prompt} {'a' if (episode.seed + point) % 2 else 'b'} <eos>"
      assert tokenizer.decode(shown[1:]) == want
      found += point
  assert found


def test_an_episode_without_a_demonstration_that_fits_is_left_out():
  env, episodes = played(SEEDS[:3])

  class Unsure(type(env)):
    def expert(self, state, choice=0):
      raise ValueError("who knows")

  for episode, message in ((demonstrated(env, episodes, 5)[0], r"tokens is 5, .*demonstration_tokens=\d+"),
                           (demonstrated(Unsure(**dataclasses.asdict(ENV)), episodes)[0], "who knows")):
    assert episode.dropped and not episode.turns and episode.trouble.kind == imitated.UNDEMONSTRATED
    assert re.search(message, episode.trouble.message)

  def refuse(chat, response, verdict):
    raise AssertionError("the rewards have been given")

  assert demonstrated(rewarded_by(env, refuse), episodes) == demonstrated(env, episodes)
