"""The conversation loop with policies that are plain functions."""

import dataclasses
import random
import re
import threading
import time

import pytest

from sftrl_jax.envs import verdict_pool
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.referee import CheckedEnv, EnvWrapper, EpisodeError, rewarded_by
from sftrl_jax.envs.verdict_pool import VerdictPool
from sftrl_jax.envs.virl.env import VIRL
from sftrl_jax.rollout.episodes import Judging, Response, Trouble, begin, play, scripted

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

  def answer(chats, kept, memory, ended):
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
  def answer(chats, kept, memory, ended):
    refused = lambda place: Trouble("cut/feedback", "") if kept is not None and place % 2 == 0 else None
    return [Response("NUMBERS", refused=refused(place)) for place in range(len(chats))], None

  for number, episode in enumerate(play(ENV, answer, SEEDS)[0]):
    assert episode.truncated and not episode.success
    if number % 2 == 0:
      assert len(episode.turns) == 1 and episode.chat[-1].role == "user"
    else:
      assert len(episode.turns) > 1


def test_a_policy_that_answers_too_few_chats_is_an_error():
  with pytest.raises(ValueError):
    play(ENV, lambda chats, kept, memory, ended: ([Response("x")], None), (1, 2))


@dataclasses.dataclass(frozen=True)
class Server(GeneralPoints):
  """Fails, for one seed, in `where`."""

  where: str = "step"
  seed: int = 8

  def reset(self, seed):
    if self.where == "reset" and seed == self.seed:
      raise ConnectionError("the server is down")
    state, chat = super().reset(seed)
    if self.where == "step" and seed == self.seed:
      return None, chat
    return state, chat

  def step(self, state, response):
    return super().step(state, response)   # of None: an AttributeError


SERVED = {"target": "any", "cards": 3, "attempts": 3, "style": "compact"}


@pytest.mark.parametrize("where", ["reset", "step"])
def test_an_environment_that_fails_spoils_one_episode_and_the_others_never_notice(where):
  seen = []

  def answer(chats, kept, memory, ended):
    seen.append([chat is None for chat in chats])
    return [Response("NUMBERS") for _ in chats], None

  played = play(CheckedEnv(Server(**SERVED, where=where)), answer, SEEDS)[0]
  usual = play(ENV, answer, SEEDS)[0]
  assert [episode.dropped for episode in played] == [seed == 8 for seed in SEEDS]
  spoiled = played[SEEDS.index(8)]
  assert spoiled.trouble.kind == "dropped/env" and "test_episodes.py, line" in spoiled.trouble.message
  assert (spoiled.turns, spoiled.truncated, spoiled.success) == ((), False, False)
  assert [one for one in played if one.seed != 8] == [one for one in usual if one.seed != 8]
  assert sum(seen[0]) == (where == "reset")   # its place stays, so that the others keep theirs


def test_a_reward_that_does_not_come_closes_the_episode_or_goes_on_without():
  def reward(chat, response, verdict):
    return None if len(chat) > 1 else -1.0

  env = rewarded_by(CheckedEnv(Server(**SERVED, seed=-1)), reward)
  policy = scripted(lambda chat: "NUMBERS")
  for episode in play(env, policy, SEEDS)[0]:
    assert episode.dropped and episode.trouble.kind == "dropped/reward" and not episode.turns
  for episode in play(env, policy, SEEDS, judging=Judging(keep_unrewarded=True))[0]:
    assert episode.dropped and episode.rewards == [-1.0, None, None] and episode.truncated


def test_a_verdict_that_never_comes_is_given_up():
  def reward(chat, response, verdict):
    while True:
      time.sleep(0.001)

  env = rewarded_by(CheckedEnv(Server(**SERVED, seed=-1)), reward)
  episode = play(env, scripted(lambda chat: "NUMBERS"), SEEDS[:1], judging=Judging(seconds=0.05))[0][0]
  assert "in reward: TimeoutError: no verdict within 0.05 s" in episode.trouble.message


def test_an_episode_is_held_to_its_attempts():
  class Long(Server):
    def step(self, state, response):
      return super().step(dataclasses.replace(state, attempt=0), response)

  for episode in play(CheckedEnv(Long(**SERVED, seed=-1)), scripted(lambda chat: "NUMBERS"), SEEDS)[0]:
    assert len(episode.turns) == 3 and episode.truncated and episode.turns[-1].verdict.truncated
    assert not episode.dropped and episode.trouble.kind == "cut/attempts"
    assert "`attempts`" in episode.trouble.message and "test_episodes.py, line" in episode.trouble.message
    assert episode.chat[-1].role == "user"


@pytest.mark.parametrize("points, row_attempts, most_rows, member", [
    (3, 3, 2, "most_rows"), (3, 1, 6, "row_attempts"), (3, 2, 3, "")])
def test_an_episode_is_held_to_the_chats_that_its_environment_states(walk, points, row_attempts, most_rows, member):
  env = walk(points, row_attempts, most_rows)
  played = play(env, scripted(lambda chat: "b" if len(chat) > 1 else "a"), range(20))[0]   # right by the second try
  cut = [episode for episode in played if episode.trouble and episode.trouble.kind == "cut/rows"]
  assert bool(cut) == bool(member)
  for episode in cut:
    assert episode.truncated and episode.turns[-1].verdict.truncated and not episode.dropped
    assert f"`{member}`" in episode.trouble.message and "conftest.py, line" in episode.trouble.message


def test_the_chats_before_the_last_one_are_kept_in_their_order(walk):
  for episode in play(walk(), scripted(lambda chat: "a"), range(20))[0]:
    answers = [message for message in (*episode.earlier, *episode.chat) if message.role == "assistant"]
    assert len(answers) == len(episode.turns)
    assert not episode.earlier or episode.earlier[-1].role == "assistant"
  assert any(episode.earlier for episode in play(walk(), scripted(lambda chat: "a"), range(20))[0])


def test_a_mistake_of_the_interface_ends_the_play():
  class Wrong(Server):
    def step(self, state, response):
      return state

  with pytest.raises(ValueError, match="must return") as error:
    play(CheckedEnv(Wrong(**SERVED)), scripted(lambda chat: "NUMBERS"), SEEDS)
  assert not isinstance(error.value, EpisodeError)


@pytest.fixture
def pooled(monkeypatch):
  """pooled(workers, ...): a Judging whose pool takes every call but the first one to threads, however fast it is."""
  for name in ("SLOW", "PATIENCE"):
    monkeypatch.setattr(verdict_pool, name, -1.0)
  return lambda workers=4, **options: Judging(pool=VerdictPool(workers), **options)


def in_threads(env, seen):
  """The environment, noting in which threads it is called."""
  class Noted(EnvWrapper):
    thread_safe = True

    def __getattr__(self, name):
      return getattr(env, name)

    def reset(self, seed):
      seen.add(threading.get_ident())
      return env.reset(seed)

    def step(self, state, response):
      seen.add(threading.get_ident())
      return env.step(state, response)

  return Noted()


@pytest.mark.parametrize("env", [
    ENV, VIRL(style="compact"), VIRL(style="paper", legs=(2, 2)),
    rewarded_by(ENV, lambda chat, response, verdict: None if len(response) % 3 else float(len(chat)))],
    ids=["general_points", "virl", "virl_paper", "abstains"])
@pytest.mark.parametrize("keep_unrewarded", [False, True])
def test_a_pool_plays_what_one_verdict_after_another_does(env, keep_unrewarded, pooled):
  """Right, wrong and senseless responses, which depend on the chat alone."""
  def answer(chat):
    draw = random.Random(repr(chat))
    return draw.choice([chat[-1].text, "NUMBERS", " ".join(draw.choices(env.words or ("forward()", "x"), k=4))])

  seen, judging = set(), Judging(keep_unrewarded=keep_unrewarded)
  usual = play(env, scripted(answer), range(24), judging=judging)[0]
  for workers in (2, 5):
    played = play(in_threads(env, seen), scripted(answer), range(24),
                  judging=pooled(workers, keep_unrewarded=keep_unrewarded))[0]
    assert played == usual
  assert len(seen) > 3


def test_a_reward_with_a_state_is_called_in_order_by_one_thread(pooled):
  """It states nothing, or that it is not thread-safe: then it is called as by a pool of one."""
  def make():
    calls = []

    def reward(chat, response, verdict):
      assert threading.current_thread() is threading.main_thread()
      calls.append(chat)
      return float(len(calls))

    return reward

  policy = scripted(lambda chat: "NUMBERS")
  usual = play(rewarded_by(ENV, make()), policy, SEEDS)[0]
  assert [episode.rewards[0] for episode in usual] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
  silent, unsafe = make(), make()
  unsafe.thread_safe = False
  for reward in (silent, unsafe):
    assert play(rewarded_by(ENV, reward), policy, SEEDS, judging=pooled())[0] == usual


def safe(reward):
  reward.thread_safe = True
  return reward


def test_verdicts_that_end_in_reverse_order_change_nothing(pooled):
  """Each waits for that of the next episode, so that all must run at one time."""
  place = {ENV.reset(seed)[1]: number for number, seed in enumerate(SEEDS[:3])}
  ended = [threading.Event() for _ in range(len(place) + 1)]
  ended[-1].set()
  order = []

  @safe
  def reward(chat, response, verdict):
    number = place[chat]
    if number:   # the first verdict of a pool is given in the calling thread
      assert ended[number + 1].wait(20.0)
    order.append(number)
    ended[number].set()
    return float(number)

  env = rewarded_by(GeneralPoints(target="any", cards=3, attempts=1, style="compact"), reward)
  episodes = play(env, scripted(lambda chat: "NUMBERS"), SEEDS[:3], judging=pooled(3))[0]
  assert [episode.rewards for episode in episodes] == [[0.0], [1.0], [2.0]] and order == [0, 2, 1]


@pytest.mark.parametrize("where", ["reset", "step"])
def test_a_failure_in_a_pool_spoils_its_own_episode(where, pooled):
  @dataclasses.dataclass(frozen=True)
  class Safe(Server):
    thread_safe = True

  policy = scripted(lambda chat: "NUMBERS")
  env = CheckedEnv(Safe(**SERVED, where=where))
  played = play(env, policy, SEEDS, judging=pooled())[0]
  assert played == play(env, policy, SEEDS)[0] and [one.dropped for one in played] == [seed == 8 for seed in SEEDS]


@pytest.mark.parametrize("keep_unrewarded", [False, True])
def test_a_reward_that_hangs_in_a_pool_spoils_its_own_episode_at_its_limit(keep_unrewarded, pooled):
  """The message is that of one verdict after another; an episode that is measured without its reward goes on."""
  released, hung = threading.Event(), ENV.reset(8)[1][0]

  @safe
  def reward(chat, response, verdict):
    if chat[0] == hung:
      released.wait(20.0)
    return -1.0

  env, policy, options = rewarded_by(ENV, reward), scripted(lambda _: "NUMBERS"), dict(
      seconds=0.1, keep_unrewarded=keep_unrewarded)
  try:
    played = play(env, policy, SEEDS, judging=pooled(**options))[0]
    usual = play(env, policy, SEEDS, judging=Judging(**options))[0]
  finally:
    released.set()
  for got in (played, usual):
    spoiled = got[SEEDS.index(8)]
    assert spoiled.trouble.kind == "dropped/reward"
    assert re.search(r"test_episodes\.py, line \d+, in reward: TimeoutError: no verdict within 0\.1 s",
                     spoiled.trouble.message)
    assert spoiled.rewards == ([None] * 3 if keep_unrewarded else [])
  assert [one.turns for one in played] == [one.turns for one in usual]


def test_the_last_verdicts_come_while_the_policy_is_free(pooled):
  released = threading.Event()

  @safe
  def reward(chat, response, verdict):
    assert threading.current_thread() is threading.main_thread() or released.wait(20.0)
    return float(verdict.reward)

  env = GeneralPoints(target="any", cards=3, attempts=1, style="compact")
  policy = scripted(lambda chat: "NUMBERS")
  end = begin(rewarded_by(env, reward), policy, SEEDS, judging=pooled())
  released.set()   # were `begin` to wait, this would come too late
  assert end()[0] == play(env, policy, SEEDS)[0]


def test_processes_ask_equally_often_whether_any_goes_on():
  asked = []
  play(ENV, scripted(lambda _: "NUMBERS"), SEEDS, lambda live: asked.append(live) or live)
  assert asked == [True, True, True, False]
