"""Responses scored by a reward model whose parameters are random: what it reads, and what it refuses."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from sftrl_jax.envs.env import Verdict
from sftrl_jax.inputs import right_pad
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import memory
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.loop.reward_scorers import RECORD, make_scorer
from sftrl_jax.programs.plan import jitted_functions
from sftrl_jax.rollout.episodes import Episode, Response, Turn


@pytest.fixture(scope="module")
def experiment(tiny, reward_home, tmp_path_factory):
  home = reward_home(tmp_path_factory.mktemp("reward") / "run", bias=0.1)
  return build_experiment(tiny("rl", reward="", reward_model__start=home, reward_model__missing_eos=-1.5), "rl")


@pytest.fixture(scope="module")
def scorer(experiment, tmp_path_factory):
  return make_scorer(experiment, tmp_path_factory.mktemp("scored"))


def played(seed, count):
  """Episodes of 0 to 2 turns of random ids, some of whose responses were cut."""
  random, episodes = np.random.default_rng(seed), []
  ids = lambda most: tuple(random.integers(3, 30, random.integers(1, most + 1)).tolist())
  for number in range(count):
    turns = [Turn(Response("", ids(11 if not turn else 2), tokens := ids(13), (-1.0,) * len(tokens),
                           bool(random.random() < 0.7)),
                  Verdict(None, False, True, False, False, "", None, "value")) for turn in range(number % 3)]
    episodes.append(Episode(number, tuple(turns), (), True))
  return episodes


def test_rewards_are_those_of_each_chat_alone_in_float64(experiment, scorer):
  episodes = played(0, 20)   # in three calls of 8
  scored = scorer(episodes)
  reward = experiment.reward_model
  params, _ = reward.load(experiment.mesh)
  hidden = jax.jit(lambda tokens: reward.model.hidden(params["model"], tokens))
  kernel, bias = (np.asarray(params["value"][name], np.float64) for name in ("kernel", "bias"))
  outside, count = 0, 0
  for episode, rewards in zip(episodes, scored.rewards, strict=True):
    assert len(rewards) == len(episode.turns)
    ids = []
    for turn, got in zip(episode.turns, rewards, strict=True):
      ids += [*turn.response.context, *turn.response.tokens]
      state = np.asarray(hidden(right_pad([ids], 40))[0, len(ids) - 1], np.float64)
      want = (state @ kernel + bias - 0.2) / 2.0
      outside, count = outside + (not -0.5 <= want <= 9.0), count + 1
      assert got == pytest.approx(want if turn.response.stopped else -1.5, abs=1e-5)
  numbers = scored.numbers["reward_model/outside"]
  assert (numbers.total, numbers.weight) == (outside, count) and 0 < outside < count
  longer = scorer(played(0, 24)).flops
  assert longer == scored.flops > scorer(played(0, 8)).flops > 0   # what is computed is charged


def test_a_score_that_is_no_number_abstains(experiment, reward_home, tmp_path):
  home = reward_home(tmp_path / "run", bias=math.nan)
  reward = dataclasses.replace(experiment.reward_model, home=home)
  scored = make_scorer(dataclasses.replace(experiment, reward_model=reward), tmp_path)(played(1, 6))
  stopped = [turn.response.stopped for episode in played(1, 6) for turn in episode.turns]
  rewards = [reward for rewards in scored.rewards for reward in rewards]
  assert [reward is None for reward in rewards] == stopped and any(stopped)


def test_another_reward_model_is_refused(experiment, tmp_path):
  make_scorer(experiment, tmp_path)
  record = json.loads((tmp_path / RECORD).read_text())
  assert record["start"].endswith("@60") and record["scale"]["sd"] == 2.0
  make_scorer(experiment, tmp_path)
  other = dataclasses.replace(experiment.reward_model.scale, sd=3.0)
  changed = dataclasses.replace(experiment, reward_model=dataclasses.replace(experiment.reward_model, scale=other))
  with pytest.raises(ConfigError, match="began with the rewards of .*@60, whose scale differ"):
    make_scorer(changed, tmp_path)
  (tmp_path / RECORD).write_text(json.dumps({**record, "fingerprint": "another"}))
  with pytest.raises(ConfigError, match="whose fingerprint differ"):
    make_scorer(experiment, tmp_path)


def test_without_a_reward_model_there_is_no_scorer(tiny, tmp_path):
  assert make_scorer(build_experiment(tiny("rl"), "rl"), tmp_path) is None


def test_plan_and_the_memory_check_count_the_reward_model(experiment):
  held = memory.held(experiment, KINDS["rl"].make_learner(experiment))
  assert held["reward model"] == held["reference"] + 4 * (16 + 1)   # a model of the policy's size, and its score head
  seen = []

  def handle(function):
    seen.append(function)
    return function.name, jitted_functions.guess_results(function, experiment.mesh)

  for name in jitted_functions.for_each(experiment, handle):
    if name == "score":
      break
  assert [function.name for function in seen] == ["state", "reward model", "score"]
  assert "reward model" in dict(seen[1].arguments) and "reward model" in dict(seen[2].resident)
