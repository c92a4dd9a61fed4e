"""The conversation loop with policies that are plain functions."""

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.rollout.episodes import Response, play, scripted, whole_chat

ENV = GeneralPoints(target="any", cards=3, attempts=3, style="compact")
SEEDS = (5, 3, 8, 3, 100, 0)


def expert_on(seeds):
  known = {}
  for seed in seeds:
    state, chat = ENV.reset(seed)
    known[chat[0].text] = ENV.expert(state)
  return lambda chat: known[chat[0].text]


def test_the_expert_always_succeeds_at_once():
  episodes, _ = play(ENV, scripted(expert_on(SEEDS)), SEEDS)
  for episode in episodes:
    assert episode.success and not episode.truncated and len(episode.turns) == 1
    assert episode.rewards == [ENV.rewards[0]]


def test_results_come_in_the_order_of_the_seeds():
  episodes, _ = play(ENV, scripted(expert_on(SEEDS)), SEEDS)
  assert tuple(episode.seed for episode in episodes) == SEEDS
  assert [episode.chat[0] for episode in episodes] == [ENV.reset(seed)[1][0] for seed in SEEDS]


def test_a_wrong_policy_uses_all_its_attempts():
  episodes, _ = play(ENV, scripted(lambda chat: "NUMBERS"), SEEDS)
  for episode in episodes:
    assert len(episode.turns) == 3 and episode.truncated and not episode.success
    assert [message.role for message in episode.chat] == ["user", "assistant", "user"] * 1 + ["assistant", "user"] * 2
    assert episode.chat[-1].text == episode.turns[-1].verdict.feedback


def test_episodes_end_at_their_own_turns_and_the_policy_is_told_who_is_left():
  right, seen = expert_on(SEEDS), []
  patience = dict(zip(SEEDS, (1, 2, 3, 2, 9, 1), strict=True))
  prompts = {ENV.reset(seed)[1][0].text: seed for seed in SEEDS}

  def answer(chats, kept, memory):
    names = [chat[0].text for chat in chats]
    if kept is not None:
      assert [memory[place] for place in kept] == names   # `kept` are places among the last call's chats
    seen.append(len(chats))
    late = lambda chat: 1 + (len(chat) - 1) // 2 >= patience[prompts[chat[0].text]]
    return [Response(right(chat) if late(chat) else "NUMBERS") for chat in chats], names

  episodes, _ = play(ENV, answer, SEEDS)
  assert [len(episode.turns) for episode in episodes] == [1, 2, 3, 2, 3, 1]
  assert [episode.success for episode in episodes] == [True, True, True, True, False, True]
  assert seen == [6, 4, 2]


def test_a_refused_reply_is_never_judged():
  def answer(chats, kept, memory):
    return [Response("NUMBERS", refused=kept is not None and place % 2 == 0) for place in range(len(chats))], None

  for number, episode in enumerate(play(ENV, answer, SEEDS)[0]):
    assert episode.truncated and not episode.success
    if number % 2 == 0:
      assert len(episode.turns) == 1 and episode.chat[-1].role == "user"
    else:
      assert len(episode.turns) > 1


def test_a_policy_that_answers_too_few_chats_is_an_error():
  with pytest.raises(ValueError):
    play(ENV, lambda chats, kept, memory: ([Response("x")], None), (1, 2))


def test_the_whole_chat_ends_with_what_was_said_last():
  chat = (Message("user", "q"),)
  assert whole_chat(chat, "r", "f") == (*chat, Message("assistant", "r"), Message("user", "f"))
  assert whole_chat(chat, "r", "") == (*chat, Message("assistant", "r"))
