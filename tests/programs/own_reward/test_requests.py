"""The arguments of a call for many responses: what was answered, in every shape of an episode."""

import itertools

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Verdict
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.referee import TaskError
from sftrl_jax.envs.virl.env import VIRL
from sftrl_jax.programs.own_reward.requests import answered, request_of
from sftrl_jax.rollout.episodes import play, scripted
from sftrl_jax.rollout.exchange import packed, unpacked


class Few:
  """Few shots, some of which are equal to the response; the column tells of the seed."""

  attempts, thread_safe = 3, False

  def reset(self, seed):
    shots = (Message("user", "a"), Message("assistant", "same"), Message("user", "b"))
    return (seed, 0), shots if seed else shots[:1]

  def step(self, state, response):
    return (state[0], 1), Verdict(None, True, False, False, False, "Thanks.", None, "answered")

  def columns(self, state):
    return {"level": state[0], "prompt": "not this one", "completion_ids": "nor this"} if state[0] != 2 else {}


def watched(policy):
  """The policy, and a list of what it was asked and what it said."""
  asked = []

  def answer(chat):
    asked.append((chat, policy(chat)))
    return asked[-1][1]

  return answer, asked


@pytest.mark.parametrize("env, words", [
    (GeneralPoints(style="compact", attempts=3), ("1 + 1", "x", "x")), (Few(), ("same",)),
    (VIRL(style="compact", legs=2), ("x", "x", "forward")), (VIRL(legs=2), ("x", "forward()", "x"))])
def test_what_was_answered_is_what_the_policy_was_asked(env, words):
  said = itertools.cycle(words)
  answer, asked = watched(lambda chat: next(said))
  episodes, _ = play(env, scripted(answer), range(4))
  episodes = [unpacked(packed(episode), episode.seed) for episode in episodes]   # as from another process
  got = [(chat, turn.response.text) for episode in episodes for chat, turn in answered(episode)]
  assert sorted(got, key=repr) == sorted(asked, key=repr) and len(got) == len(asked) >= 4


def test_columns_are_lists_in_the_order_of_responses_and_null_where_there_are_none():
  episodes, _ = play(Few(), scripted(lambda chat: "same"), range(3))
  entries = [(chat, turn.response.text, (7, 8), episode.columns)
             for episode in episodes for chat, turn in answered(episode)]
  shots = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "same"}, {"role": "user", "content": "b"}]
  assert request_of(entries, plain=False) == {
      "prompts": [shots[:1], shots, shots], "completions": [[{"role": "assistant", "content": "same"}]] * 3,
      "completion_ids": [[7, 8]] * 3, "level": [0, 1, None]}
  assert request_of(entries[:1], plain=True) == {
      "prompts": ["a"], "completions": ["same"], "completion_ids": [[7, 8]], "level": [0]}
  with pytest.raises(TaskError, match="The column 'level' of the environment has a value that JSON does not hold"):
    request_of([(*entries[0][:3], {"level": {1}})], plain=True)
