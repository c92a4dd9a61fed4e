"""Every environment of the table keeps the interface."""

import dataclasses

import pytest

from sftrl_jax.envs import ENVS
from sftrl_jax.envs.env import Env, Verdict, labels_of


@pytest.mark.parametrize("name", ENVS)
def test_environments_offer_the_whole_interface(name):
  env = ENVS[name]()
  assert isinstance(env, Env)
  for variant in env.variants:
    state, chat = ENVS[name](variant=variant).reset(0)
    after, verdict = ENVS[name](variant=variant).step(state, env.expert(state))
    assert verdict.correct and verdict.success and verdict.terminated and not verdict.truncated
    assert verdict.chat is None and verdict.code in env.codes and chat[-1].role == "user"
    with pytest.raises(ValueError, match="ended"):
      env.step(after, "again")


@pytest.mark.parametrize("name", ENVS)
def test_labels_are_for_what_the_environment_names(name):
  env = ENVS[name]()
  labels = labels_of(env)
  for key, names in (("codes", env.codes), ("variants", env.variants)):
    assert set(labels[key]) <= set(names) and all(isinstance(label, str) and label for label in labels[key].values())


def test_an_environment_needs_no_labels():
  assert labels_of(object()) == {"codes": {}, "variants": {}}


def test_a_verdict_is_immutable():
  verdict = Verdict(1.0, True, False, True, True, "", None, "correct")
  with pytest.raises(dataclasses.FrozenInstanceError):
    verdict.reward = 2.0
