"""The environment that a config names: one of the table, or a class of the user's own file; with its own rewards or
with a function's."""

import difflib
import typing

from sftrl_jax.data import prompts
from sftrl_jax.envs import ENVS
from sftrl_jax.envs.env import Env, counting_of, thread_safe
from sftrl_jax.envs.referee import CheckedEnv, RewardFnEnv
from sftrl_jax.programs.config import user_files, values
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.config.resolve import build

# All that config.env.name may be, but for a path. The last reads files, which the room envs/ does not do.
ENVIRONMENTS = {**ENVS, prompts.NAME: prompts.Prompts}


def env_section(settings: dict) -> type:
  """The environment's own fields are the keys of config.env."""
  name = settings.get("name", "")
  if user_files.is_path(name):
    return user_files.environment(name)
  if name not in ENVIRONMENTS:
    close = difflib.get_close_matches(name, ENVIRONMENTS, n=1, cutoff=0.4)
    guess, known = f"did you mean {close[0]!r}? " if close else "", ", ".join(ENVIRONMENTS)
    raise ValueError(f"name is {name!r}; {guess}Known: {known}, or path/to/file.py:Class of your own.")
  return ENVIRONMENTS[name]


def make_env(settings: dict, reward: str = "") -> Env:
  """The environment of a config.env; reward: path/to/file.py:function, or "" for the environment's own."""
  kind, fields = env_section(settings), {key: value for key, value in settings.items() if key != "name"}
  if user_files.is_path(settings["name"]):
    kinds = typing.get_type_hints(kind)   # what has been JSON holds lists for tuples
    fields = {key: values.fit(value, kinds.get(key, object)) for key, value in fields.items()}
    env = CheckedEnv(user_files.instance(kind, lambda: build(kind, fields, "config.env")), scored=bool(reward))
  else:
    env = build(kind, fields, "config.env")
  try:
    counting_of(env)
    thread_safe(env)
  except ValueError as error:
    raise ConfigError(f"config.env of {settings['name']!r}: {error}") from error
  if not reward:
    return env
  function = user_files.reward(reward)
  try:
    thread_safe(function)
  except ValueError as error:
    raise ConfigError(f"config.reward of {reward!r}: {error}") from error
  return RewardFnEnv(env, function)


def variant_env(settings: dict, variant: str, reward: str = "") -> Env:
  """The same environment as another of its variants."""
  return make_env({**settings, "variant": variant}, reward)
