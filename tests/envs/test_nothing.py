"""The environment of runs that have only data."""

import pytest

from sftrl_jax.envs import ENVS
from sftrl_jax.envs.env import Env
from sftrl_jax.envs.nothing import NAME


def test_it_is_an_environment_without_anything_to_play():
  env = ENVS[NAME]()
  assert isinstance(env, Env) and not env.variants and not env.words and env.attempts == 1
  for play in (lambda: env.reset(0), lambda: env.step(None, ""), lambda: env.expert(None)):
    with pytest.raises(ValueError, match="nothing to play: choose an environment with --config.env.name"):
      play()
