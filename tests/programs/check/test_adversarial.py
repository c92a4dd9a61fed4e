"""Strings, rewards and ends that a verifier has to stand."""

import dataclasses
import time

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Verdict
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.referee import CheckedEnv, TaskError
from sftrl_jax.programs.check import adversarial
from sftrl_jax.programs.check.expert_episodes import CheckFailed, ExpertEpisodes, play_episode


@dataclasses.dataclass(frozen=True)
class Echo:
  """Say the number back; several attempts, and ways to be wrong. slow: seconds for a long response."""

  fault: str = ""
  attempts: int = 2
  variants, codes, words = (), ("right", "wrong"), ("1", "2")

  def reset(self, seed):
    chat = (Message("user", str(seed)),)
    return (str(seed), chat, 0), chat

  def step(self, state, response):
    number, chat, attempt = state
    if number is None:
      raise ValueError("ended")
    if self.fault == "hang" and len(response) > 1000:
      while True:
        time.sleep(0.001)
    right, last = response == number, attempt + 1 == self.attempts and self.fault != "endless"
    chat = (*chat, Message("assistant", "" if self.fault == "forgets" else response), Message("user", "no"))
    ended = right or last
    return (None if ended else number, chat, attempt + 1), Verdict(
        1.0, right, ended and not right, right, right, "", None if ended else chat, "right" if right else "wrong")

  def expert(self, state):
    return state[0]


def expert_episodes(env):
  env = CheckedEnv(env)
  return ExpertEpisodes("echo", env, (1, 2, 3), tuple(play_episode(env, seed) for seed in (1, 2, 3)))


def test_a_sound_verifier_passes():
  points = GeneralPoints(style="compact", cards=3, target="any", attempts=3)
  variants = [expert_episodes(points), expert_episodes(Echo())]
  assert "strings, 2 variants" in adversarial.check_hostile_strings(variants)
  assert adversarial.check_rewards(variants).startswith("expert 1 to 5, wrong answers -3 to 1")
  assert adversarial.check_episode_ends(variants).startswith("after 3 responses at most")


def test_a_verdict_that_does_not_come_is_stopped_where_it_hangs(monkeypatch):
  monkeypatch.setattr(adversarial, "MAX_SECONDS", 0.05)
  message = r"test_adversarial\.py, line 3\d, in step: TimeoutError: no verdict within 0\.1 s"
  with pytest.raises(TaskError, match=message):
    adversarial.check_hostile_strings([expert_episodes(Echo("hang"))])


@pytest.mark.parametrize("fault, message", [
    ("endless", "goes on after 2 responses"), ("forgets", "the next chat is not the one that was answered")])
def test_an_episode_that_does_not_end_or_forgets_is_seen(fault, message):
  with pytest.raises(CheckFailed, match=rf"test_adversarial\.py, line \d+, in step: .*{message}"):
    adversarial.check_episode_ends([expert_episodes(Echo(fault))])


@dataclasses.dataclass(frozen=True)
class Tries:
  """Three questions, two tries each, and `attempts` counts the questions alone."""

  attempts: int = 3
  variants, codes, words = (), ("right", "wrong"), ("1", "2", "3")

  def reset(self, seed):
    chat = (Message("user", "1"),)
    return (1, 0, chat), chat

  def step(self, state, response):
    place, tries, chat = state
    if place > 3 or tries > 1:
      raise ValueError("ended")
    right = response == str(place)
    place, tries = (place + 1, 0) if right else (place, tries + 1)
    chat = (*chat, Message("assistant", response), Message("user", str(min(place, 3))))
    ended = place > 3 or tries > 1
    verdict = Verdict(float(right), place > 3, tries > 1, right, place > 3, "", None if ended else chat, "right")
    return (place, tries, chat), verdict

  def expert(self, state):
    return str(state[0])


def test_right_and_wrong_answers_in_turns_go_beyond_the_attempts():
  """Neither right answers alone nor wrong ones do."""
  assert len(play_episode(CheckedEnv(Tries()), 1)) == 3
  message = r"test_adversarial\.py, line \d+, in step: .* goes on after 3 responses .right and wrong ones., which"
  with pytest.raises(CheckFailed, match=message):
    adversarial.check_episode_ends([expert_episodes(Tries())])
  assert "after 5 responses" in adversarial.check_episode_ends([expert_episodes(Tries(attempts=6))])


@dataclasses.dataclass(frozen=True)
class Points(Tries):
  """Tries whose questions each have a chat of their own."""

  attempts: int = 6
  row_attempts: int = 2
  most_rows: int = 3
  rewrites_prompt = True

  def step(self, state, response):
    after, verdict = super().step(state, response)
    if verdict.chat and verdict.reward:
      chat = (Message("user", str(after[0])),)
      return (*after[:2], chat), dataclasses.replace(verdict, chat=chat)
    return after, verdict


def test_a_chat_may_begin_anew_within_the_bounds_that_are_stated():
  assert "after 5 responses" in adversarial.check_episode_ends([expert_episodes(Points())])
  for bounds, message in ((dict(row_attempts=3, most_rows=2), "goes on beyond most_rows = 2"),
                          (dict(row_attempts=1, most_rows=6), "goes on beyond row_attempts = 1"),
                          (dict(row_attempts=1, most_rows=3), "does not fit into so many chats")):
    with pytest.raises(CheckFailed, match=rf"test_adversarial\.py, line \d+, in step: .*{message}"):
      adversarial.check_episode_ends([expert_episodes(Points(**bounds))])
