"""The methods of rl: each is whole, takes what its section says, and refuses a batch that it cannot cut."""

import dataclasses
import types

import pytest

from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.objectives.groups import GroupConfig
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.rollout.config import RolloutConfig
from sftrl_jax.rollout.episodes import Episode, Response, Turn
from sftrl_jax.text import tokenizer as tokenizers
from sftrl_jax.training import algorithms
from sftrl_jax.training.algorithms import ALGORITHMS


def test_every_method_is_a_choice_of_the_config_and_says_how_many_begin_alike():
  assert KINDS["rl"].schema["algorithm"].sections == {name: method.section for name, method in ALGORITHMS.items()}
  assert list(ALGORITHMS) == ["ppo", "reinforce_plus_plus", "grpo", "rloo", "self_sft", "dagger",
                              "distill"]
  for method in ALGORITHMS.values():
    section = method.section()
    assert algorithms.group_of(section) == (section.group if isinstance(section, GroupConfig) else 1)
    assert not algorithms.needs_bootstrap(section) and method.value_head == (method is ALGORITHMS["ppo"])
  assert algorithms.group_of(None) == 1   # SFT


def test_groups_are_split_by_the_mesh(monkeypatch):
  monkeypatch.setattr("sftrl_jax.parallel.mesh.rows", lambda mesh: 4)
  section = ALGORITHMS["grpo"].section(group=4, minibatches=1)
  mesh = types.SimpleNamespace(shape={"data": 4})
  algorithms.check("grpo", section, 16, 1, RolloutConfig(rows=16), mesh)
  with pytest.raises(ValueError, match="config.rollout.rows / grpo.group is 2, but the mesh"):
    algorithms.check("grpo", section, 16, 1, RolloutConfig(rows=8), mesh)


def test_rows_of_an_episode_may_be_in_several_microbatches_unless_the_loss_reads_them_together(monkeypatch):
  monkeypatch.setattr("sftrl_jax.parallel.mesh.rows", lambda mesh: 2)
  mesh = types.SimpleNamespace(shape={"data": 2})
  check = lambda name, microbatches, **fields: algorithms.check(
      name, ALGORITHMS[name].section(minibatches=2, **fields), 8, microbatches, RolloutConfig(rows=8), mesh, 3)
  for microbatches in (1, 2, 3, 6):   # of 4 episodes of 3 rows
    check("ppo", microbatches)
  for microbatches, message in ((5, "must divide config.batch / ppo.minibatches x 3 rows = 12"), (4, "is 3, but the")):
    with pytest.raises(ValueError, match=message):
      check("ppo", microbatches)
  check("grpo", 2, group=2, ratio="sequence")
  with pytest.raises(ValueError, match="must divide config.batch / grpo.minibatches = 4"):
    check("grpo", 3, group=2, ratio="sequence")


def test_sections_are_frozen_and_hashable():
  for method in ALGORITHMS.values():
    assert hash(method.section()) == hash(method.section())
    with pytest.raises(dataclasses.FrozenInstanceError):
      method.section().minibatches = 1


def test_what_moves_a_policy_besides_advantages():
  alone = algorithms.learns_by_advantages_alone
  section = {name: method.section for name, method in ALGORITHMS.items()}
  assert all(alone(make()) for make in section.values())
  assert all(alone(section[name](kl_coef=0.1)) for name in ("ppo", "rloo", "reinforce_plus_plus"))   # in the reward
  assert alone(section["grpo"](kl_coef=0.1, kl="reward")) and not alone(section["grpo"](kl_coef=0.1))
  assert not alone(section["ppo"](entropy_coef=0.1)) and not alone(section["grpo"](entropy_coef=0.1))


def test_thought_is_weighed_where_the_environment_has_an_action():
  """A response's tokens before its action weigh what the section says; an environment without actions is refused."""
  env = GeneralPoints(style="compact", cards=3, target="any")
  tokenizer = tokenizers.words(env.words)
  response = env.expert(env.reset(0)[0])
  tokens = (*tokenizer.encode(response), tokenizer.eos)
  episode = Episode(0, (Turn(Response(response, (1,), tokens, (0.0,) * len(tokens)), None),), (), False)
  experiment = types.SimpleNamespace(env=env, tokenizer=tokenizer, algorithm=ALGORITHMS["ppo"],
                                     actor=types.SimpleNamespace(episode_rows=1), prefix_tokens=0, shared_prompts=None)
  section = ALGORITHMS["ppo"].section(level="turn", thought_weight=0.5)
  rows = algorithms.rows_of(experiment, section, [episode], 32)
  thought = response.split().index("FORMULA")
  assert rows.weights_BT[0, : len(tokens)].tolist() == [0.5] * thought + [1.0] * (len(tokens) - thought)
  assert algorithms.rows_of(experiment, ALGORITHMS["ppo"].section(), [episode], 32).weights_BT is None
  algorithms.refuse_thought("ppo", section, env)
  with pytest.raises(ValueError, match=r"config.ppo.thought_weight is 0.5.*action_start.*thought_weight=1"):
    algorithms.refuse_thought("ppo", section, object())
  algorithms.refuse_thought("ppo", ALGORITHMS["ppo"].section(), object())
