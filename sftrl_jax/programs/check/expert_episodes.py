"""A task played by its own expert: the episodes that `sftrl check` looks at. No model, no JAX."""

import dataclasses
import time
from collections.abc import Collection

from sftrl_jax.chat import Chat
from sftrl_jax.envs.env import Env, Verdict
from sftrl_jax.envs.referee import CheckedEnv, RewardFnEnv, where
from sftrl_jax.programs.experiment.environment import make_env, variant_env

SEEDS = 300  # episodes of every variant
SECONDS = 5.0  # for a variant; after that fewer episodes have to do


class CheckFailed(Exception):
  """A check that failed: CheckFailed(what is wrong, the way out)."""


class FatalCheckFailed(CheckFailed):
  """A check that must be mended before a model plays the task."""


@dataclasses.dataclass(frozen=True)
class Step:
  """One response of the expert: to which state and chat, and how it was judged."""

  state: object
  chat: Chat
  response: str
  after: object
  verdict: Verdict


@dataclasses.dataclass(frozen=True)
class ExpertEpisodes:
  """Episodes of one variant, answered by the expert."""

  name: str
  env: Env
  seeds: tuple
  episodes: tuple[tuple[Step, ...], ...]


def play_expert_episodes(config: dict, count: int = SEEDS, seconds: float = SECONDS) -> list[ExpertEpisodes]:
  """The training task and then every variant that is evaluated, with the seeds that a run begins with.

  config: a resolved config as plain dicts. TaskError names the line of whatever cannot be played.
  """
  evals, reward = config["evals"], config["reward"]
  seeds = [f"{config['seed']} {number}" for number in range(count)]
  played = [_play("training", make_env(config["env"], reward), seeds, seconds)]
  for variant in evals["variants"]:
    env = variant_env({**config["env"], **evals["env"]}, variant, reward)
    played.append(_play(variant, env, range(evals["seed"], evals["seed"] + count), seconds))
  return played


def _play(name: str, env, seeds, seconds: float) -> ExpertEpisodes:
  env = env if isinstance(env, CheckedEnv) or isinstance(getattr(env, "env", env), CheckedEnv) else CheckedEnv(env)
  began, episodes = time.perf_counter(), []
  for seed in seeds:
    episodes.append(episode(env, seed))
    if time.perf_counter() - began > seconds:
      break
  return ExpertEpisodes(name, env, tuple(seeds)[: len(episodes)], tuple(episodes))


def episode(env: Env, seed: int | str) -> tuple[Step, ...]:
  """One episode by the expert, `attempts` responses at most."""
  state, chat = env.reset(seed)
  steps = []
  while chat is not None and len(steps) < env.attempts:
    response = env.expert(state)
    after, verdict = env.step(state, response)
    steps.append(Step(state, chat, response, after, verdict))
    state, chat = after, verdict.chat
  return tuple(steps)


def line(env: Env, method: str) -> str:
  """Where a method of the user's class is written, below the wrappers."""
  while isinstance(env, (CheckedEnv, RewardFnEnv)):
    env = env.env
  return where(getattr(type(env), method))


def span(values: Collection[float]) -> str:
  """`1`, or `0.5 to 1`."""
  low, high = min(values), max(values)
  return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def short(value: object) -> str:
  """A value in at most a hundred characters."""
  shown = repr(value)
  return shown if len(shown) <= 100 else f"{shown[:60]} ... ({len(shown)} characters)"
