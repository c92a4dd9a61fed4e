"""How long a run waits for verdicts is measured, and that threads get the same ones."""

import itertools
import re
import time

import pytest

from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.referee import CheckedEnv, rewarded_by
from sftrl_jax.programs.check import verdict_checks
from sftrl_jax.programs.check.expert_episodes import CheckFailed, ExpertEpisodes, play_episode

ENV = GeneralPoints(cards=3, target="any", style="compact")
RL = {"algorithm": "ppo", "batch": 64, "verdict_workers": 4, "evals": {"episodes": 1000}}
SFT = {"batch": 8, "verdict_workers": 4, "evals": {"episodes": 1000}}


def checked(reward, config, env=ENV):
  """What the check says of an environment with this reward; its episodes are played with none."""
  episodes = tuple(play_episode(rewarded_by(env, lambda *_: 0.0), seed) for seed in range(12))
  env = rewarded_by(env, reward) if reward else env
  episodes = episodes if reward else tuple(play_episode(env, seed) for seed in range(12))
  return verdict_checks.check_seconds([ExpertEpisodes("training", env, tuple(range(12)), episodes)], config)


def slow(chat, response, verdict):
  time.sleep(0.02)
  return float(len(response))


def seconds_in(text):
  return [float(number) for number in re.findall(r"([0-9.e+-]+) (?:ms|s)\b", text)]


def test_fast_verdicts_are_counted_for_an_iteration_or_an_evaluation():
  text = checked(None, RL)
  each, whole = seconds_in(text)
  assert "an iteration waits" in text and "for the 64 verdicts" in text
  assert whole == pytest.approx(0.064 * each, rel=0.15)
  assert "an evaluation of a variant waits" in checked(None, SFT) and "the 1000 verdicts" in checked(None, SFT)


def test_slow_verdicts_of_code_that_states_nothing_name_the_place_to_state_it():
  text = checked(slow, RL)
  each, whole, pooled = seconds_in(text)
  assert each >= 20 and whole == pytest.approx(0.064 * each, rel=0.15) and pooled == pytest.approx(whole / 4, rel=0.15)
  assert re.search(r"thread_safe = True \(.*test_verdict_checks\.py, line \d+, in slow\): 4 at once", text)
  assert "ENV" not in text and "thread_safe" not in checked(slow, {**RL, "verdict_workers": 1})

  class Own(GeneralPoints):
    pass

  text = checked(slow, RL, CheckedEnv(Own(cards=3, target="any", style="compact"), scored=True))
  assert "in slow; " in text and "Own)" in text


def test_slow_verdicts_that_threads_may_give_are_measured_in_threads():
  def reward(*arguments):
    return slow(*arguments)

  reward.thread_safe = True
  text = checked(reward, RL)
  assert len(seconds_in(text)) == 3 and text.endswith("s in threads, 4 at once")


def test_verdicts_that_are_others_in_threads_are_a_mistake():
  calls = itertools.count()

  def reward(*arguments):
    slow(*arguments)
    return float(next(calls))

  reward.thread_safe = True
  with pytest.raises(CheckFailed, match=r"in step: in a thread, .* gets another verdict") as error:
    checked(reward, RL)
  assert "thread_safe = False" in error.value.args[1]
