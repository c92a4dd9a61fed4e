"""The environment that a config names: one of the table, or a class of the user's own file; with its own rewards or
with a function's."""

import difflib
import typing

from sftrl_jax.data import prompts
from sftrl_jax.envs import ENVS
from sftrl_jax.envs.env import Env, counting_of, thread_safe
from sftrl_jax.envs.referee import CheckedEnv, RewardFnEnv, rewarded_by
from sftrl_jax.programs.config import user_files, values
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.config.resolve import build
from sftrl_jax.programs.own_reward.config import OwnRewardConfig
from sftrl_jax.programs.own_reward.function import RewardFunction, refuse_columns, reward_function

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


def make_env(settings: dict, reward: str = "", own_reward: dict | None = None, scored: bool = False) -> Env:
  """The environment of a config.env.

  reward: path/to/file.py:function, or "" for the environment's own rewards. A function of TRL's form scores the
    episodes later (own_reward/scorer.py), so the environment keeps its own rewards, if it has some
  own_reward: the section of that name; by default the function is called inside this process
  scored: whether a reward model follows, so that a reward of None is right
  """
  kind, fields = env_section(settings), {key: value for key, value in settings.items() if key != "name"}
  if user_files.is_path(settings["name"]):
    kinds = typing.get_type_hints(kind)   # what has been JSON holds lists for tuples
    fields = {key: values.fit(value, kinds.get(key, object)) for key, value in fields.items()}
    env = user_files.instance(kind, lambda: build(kind, fields, "config.env"))
    env = CheckedEnv(env, scored=bool(reward) or scored)
  else:
    env = build(kind, fields, "config.env")
  try:
    counting_of(env)
    thread_safe(env)
  except ValueError as error:
    raise ConfigError(f"config.env of {settings['name']!r}: {error}") from error
  function = chosen_reward({"reward": reward, "own_reward": own_reward})
  if function is None:
    return env
  if function.form.batch:
    refuse_columns(function, env)
    return env
  if own_reward and own_reward["process"]:
    return RewardFnEnv(env, function.judge)
  return rewarded_by(env, user_files.reward(reward))


def variant_env(settings: dict, variant: str, reward: str = "", own_reward: dict | None = None,
                scored: bool = False) -> Env:
  """The same environment as another of its variants."""
  return make_env({**settings, "variant": variant}, reward, own_reward, scored)


def has_reward_model(config: dict) -> bool:
  """Whether a resolved config names a reward model, so that its environment may leave its own rewards out."""
  return bool(config.get("reward_model", {}).get("start"))


def chosen_reward(config: dict) -> RewardFunction | None:
  """The function of config.reward, imported, in its process if it has one; None without a function."""
  if not config["reward"]:
    return None
  section = {"process": False} if config["own_reward"] is None else config["own_reward"]
  return reward_function(config["reward"], build(OwnRewardConfig, section, "config.own_reward"))
