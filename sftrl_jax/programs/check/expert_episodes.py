"""Plays a task with its own expert: the episodes that `sftrl check` examines. No model, no JAX."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from sftrl_jax.chat import Chat
from sftrl_jax.envs.env import Env, Verdict, verifies
from sftrl_jax.envs.referee import CheckedEnv
from sftrl_jax.programs.experiment.environment import has_reward_model, make_env, variant_env

SEEDS = 300  # episodes of every variant
SECONDS = 5.0  # for a variant; a slower one has fewer episodes
UNKNOWN = "I do not know."  # where nobody knows a right response


class CheckFailed(Exception):
  """A check failed: CheckFailed(message, way_out)."""


class FatalCheckFailed(CheckFailed):
  """A check failed so badly that a model cannot play the task before it is mended."""


@dataclasses.dataclass(frozen=True)
class ExpertStep:
  """One response of the expert: the state and chat before it, the state and verdict after it."""

  state: Any
  chat: Chat
  response: str
  after: Any
  verdict: Verdict


@dataclasses.dataclass(frozen=True)
class ExpertEpisodes:
  """Episodes of one variant, answered by the expert; episodes[i] is of seeds[i]."""

  name: str
  env: Env
  seeds: tuple[int | str, ...]
  episodes: tuple[tuple[ExpertStep, ...], ...]


def play_expert_episodes(config: dict, count: int = SEEDS, seconds: float = SECONDS) -> list[ExpertEpisodes]:
  """Plays the training task and then every evaluated variant, with the seeds that a run begins with.

  config: a resolved config as plain dicts

  Raises TaskError with the line of whatever cannot be played.
  """
  evals, reward = config["evals"], (config["reward"], config["own_reward"], has_reward_model(config))
  seeds = [f"{config['seed']} {number}" for number in range(count)]
  played = [_play("training", make_env(config["env"], *reward), seeds, seconds)]
  for variant in evals["variants"]:
    env = variant_env({**config["env"], **evals["env"]}, variant, *reward)
    played.append(_play(variant, env, range(evals["seed"], evals["seed"] + count), seconds))
  return played


def _play(name: str, env: Env, seeds: Sequence[int | str], seconds: float) -> ExpertEpisodes:
  if not isinstance(env, CheckedEnv) and not isinstance(getattr(env, "env", env), CheckedEnv):
    env = CheckedEnv(env, scored=not verifies(env))
  start_time, episodes = time.perf_counter(), []
  for seed in seeds:
    episodes.append(play_episode(env, seed))
    if time.perf_counter() - start_time > seconds:
      break
  return ExpertEpisodes(name, env, tuple(seeds)[: len(episodes)], tuple(episodes))


def play_episode(env: Env, seed: int | str) -> tuple[ExpertStep, ...]:
  """Plays one episode by the expert, of at most `attempts` responses."""
  state, chat = env.reset(seed)
  steps = []
  while chat is not None and len(steps) < env.attempts:
    response = respond(env, state)
    after, verdict = env.step(state, response)
    steps.append(ExpertStep(state, chat, response, after, verdict))
    state, chat = after, verdict.chat
  return tuple(steps)


def respond(env: Env, state: Any) -> str:
  """The expert's response; where no response is right or wrong, there may be no expert, and any text will do."""
  try:
    return env.expert(state)
  except ValueError:
    if verifies(env):
      raise
    return UNKNOWN


def span(values: Sequence[float]) -> str:
  """Formats the range of values: `1`, or `0.5 to 1`."""
  low, high = min(values), max(values)
  return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def short(value: Any) -> str:
  """Formats a value in about a hundred characters at most."""
  shown = repr(value)
  return shown if len(shown) <= 100 else f"{shown[:60]} ... ({len(shown)} characters)"
