"""Every environment of the table keeps the interface."""

import dataclasses

import pytest

from sftrl_jax.envs import ENVS
from sftrl_jax.envs.env import Env, Verdict


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


def test_a_verdict_is_immutable():
  verdict = Verdict(1.0, True, False, True, True, "", None, "correct")
  with pytest.raises(dataclasses.FrozenInstanceError):
    verdict.reward = 2.0
