"""Episodes played by a task's own expert."""

import json

import pytest

from sftrl_jax.envs.referee import CheckedEnv, location
from sftrl_jax.programs.check import expert_episodes
from sftrl_jax.programs.config import nested


@pytest.fixture
def config(tiny):
  return json.loads(json.dumps(nested.plain(tiny("sft"))))


def test_training_and_every_variant_are_played_with_a_runs_own_seeds(config):
  played = expert_episodes.play_expert_episodes(config, count=5)
  assert [variant.name for variant in played] == ["training", "id_seen", "rule_ood"]
  assert played[0].seeds == tuple(f"0 {number}" for number in range(5)) and played[1].seeds[0] == 1_000_000_000
  for variant in played:
    assert isinstance(variant.env, CheckedEnv) and len(variant.episodes) == 5
    for seed, (step, *rest) in zip(variant.seeds, variant.episodes, strict=True):
      assert not rest and step.verdict.success and step.verdict.chat is None
      assert step.chat == variant.env.reset(seed)[1] and step.response == variant.env.expert(step.state)


def test_a_slow_task_is_played_for_fewer_seeds(config):
  played = expert_episodes.play_expert_episodes(config, count=50, seconds=0.0)
  assert [len(variant.episodes) for variant in played] == [1, 1, 1]


def test_lines_and_short_words(config):
  env = expert_episodes.play_expert_episodes(config, count=1)[0].env
  assert location(env, "step").endswith("in step") and "general_points/env.py, line " in location(env, "step")
  assert (expert_episodes.span([1, 1.0]), expert_episodes.span([2, -0.5])) == ("1", "-0.5 to 2")
  assert expert_episodes.short("a") == "'a'" and len(expert_episodes.short("a" * 10**6)) < 100
