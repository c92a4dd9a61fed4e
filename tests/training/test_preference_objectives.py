"""The objectives of preference: each is whole, and says what it reads and trains besides the model."""

import dataclasses

import pytest

from sftrl_jax.training.preference_objectives import OBJECTIVES


def test_an_objective_has_a_section_of_its_own():
  assert list(OBJECTIVES) == ["dpo", "reward"]
  keys = [objective.key for objective in OBJECTIVES.values()]
  assert len(set(keys)) == len(keys) and "reward" not in keys   # config.reward is a function of the user's
  for objective in OBJECTIVES.values():
    section = objective.section()
    assert hash(section) == hash(objective.section())
    with pytest.raises(dataclasses.FrozenInstanceError):
      section.beta = 1.0


def test_what_is_read_and_trained_follows_from_the_section():
  dpo, reward = OBJECTIVES["dpo"], OBJECTIVES["reward"]
  assert dpo.reads_start(dpo.section()) and not dpo.reads_start(dpo.section(reference_free=True))
  assert dpo.head_layers(dpo.section()) is None and not reward.reads_start(reward.section())
  assert reward.head_layers(reward.section()) == () and reward.head_layers(reward.section(layers=(8,))) == (8,)
