"""How long a run waits for its verdicts, and whether threads get the same ones. No model, no JAX."""

import functools
import math
import time
from collections.abc import Sequence

from sftrl_jax.envs.env import Env, thread_safe
from sftrl_jax.envs.referee import CheckedEnv, EnvWrapper, EpisodeError, RewardFnEnv, location, where
from sftrl_jax.envs.verdict_pool import SLOW, VerdictPool
from sftrl_jax.programs.check.expert_episodes import CheckFailed, ExpertEpisodes, ExpertStep, short, span
from sftrl_jax.programs.experiment.environment import chosen_reward
from sftrl_jax.programs.own_reward.function import RewardFunction
from sftrl_jax.programs.own_reward.requests import request_of
from sftrl_jax.text.tokenizer import Tokenizer

SECONDS = 2.0   # in which verdicts are measured one after another


def check_seconds(variants: Sequence[ExpertEpisodes], config: dict) -> str:
  """Measures verdicts on the expert's first responses, one after another, and if they are slow in threads, where these
  must give the same ones.

  config: a resolved config as plain dicts
  """
  training, workers = variants[0], config["verdict_workers"]
  steps = [steps[0] for steps in training.episodes][: 2 * workers]
  count, whose = ((config["batch"], "an iteration") if "algorithm" in config else
                  (config["evals"]["episodes"], "an evaluation of a variant"))
  each, verdicts = _in_turn(training.env, steps)
  measured = (f"{1000 * each:.2g} ms each; {whose} waits {each * count:.2g} s for the {count} verdicts on its first "
              "responses")
  if each <= SLOW or workers == 1:
    return measured
  if not thread_safe(training.env):
    silent = "; ".join(_silent(training.env))
    return (f"{measured}, one after another. If threads may call it at one time, let it state thread_safe = True "
            f"({silent}): {workers} at once (config.verdict_workers) wait for about "
            f"{each * math.ceil(count / workers):.2g} s, as far as each waits and does not compute")
  seconds = _in_threads(training, steps[: len(verdicts)], verdicts, workers)
  return f"{measured} one after another, and {seconds / len(verdicts) * count:.2g} s in threads, {workers} at once"


def batch_function(config: dict) -> RewardFunction | None:
  """The function of config.reward, if it is called for many responses at once."""
  function = chosen_reward(config)
  return function if function is not None and function.form.batch else None


def check_batch(variant: ExpertEpisodes, function: RewardFunction, config: dict, tokenizer: Tokenizer) -> str:
  """Scores the expert's first responses, as many as one call of a run has."""
  steps = [steps[0] for steps in variant.episodes][: config["own_reward"]["batch"] or config["batch"]]
  columns = getattr(variant.env, "columns", lambda state: {})
  entries = [(step.chat, step.response, tokenizer.encode(step.response), columns(step.state)) for step in steps]
  began = time.perf_counter()
  try:
    rewards, _ = function.scores(request_of(entries, bool(getattr(variant.env, "plain_prompts", False))))
  except EpisodeError as error:
    raise CheckFailed(str(error), "let the function score the expert's responses") from error
  seconds, given = time.perf_counter() - began, [reward for reward in rewards if reward is not None]
  limit = config["own_reward"]["abstain_limit"]
  if len(given) < (1 - limit) * len(rewards):
    raise CheckFailed(f"{function.where}: it abstains from {len(rewards) - len(given)} of {len(rewards)} responses",
                      f"give more of them a number; config.own_reward.abstain_limit is {limit:g}")
  return f"{len(rewards)} responses in {seconds:.2g} s, rewards {span(given)}, {len(rewards) - len(given)} without"


def _in_turn(env: Env, steps: Sequence[ExpertStep]) -> tuple[float, list]:
  """(seconds of a verdict, the verdicts), of as many steps as SECONDS allow."""
  began, verdicts = time.perf_counter(), []
  for step in steps:
    verdicts.append(env.step(step.state, step.response)[1])
    if time.perf_counter() - began > SECONDS:
      break
  return (time.perf_counter() - began) / len(verdicts), verdicts


def _in_threads(variant: ExpertEpisodes, steps: Sequence[ExpertStep], verdicts: Sequence, workers: int) -> float:
  """The seconds that verdicts take in threads. CheckFailed where they are others."""
  env, pool = variant.env, VerdictPool(workers)
  pool.start("step", [functools.partial(env.step, steps[0].state, steps[0].response)])()   # shows that they are slow
  began = time.perf_counter()
  outcomes = pool.start("step", [functools.partial(env.step, step.state, step.response) for step in steps])()
  seconds = time.perf_counter() - began
  for step, verdict, outcome in zip(steps, verdicts, outcomes, strict=True):
    if outcome.error is not None or outcome.value[1] != verdict:
      threaded = outcome.error or outcome.value[1]
      raise CheckFailed(f"{location(env, 'step')}: in a thread, {short(step.response)} gets another verdict: "
                        f"{short(verdict)}, then {short(threaded)}",
                        "state thread_safe = False, or let step and the reward depend on their arguments alone")
  return seconds


def _silent(env: Env) -> list[str]:
  """File and line of the class and of the function that do not state thread_safe = True."""
  places = []
  while isinstance(env, EnvWrapper):
    if isinstance(env, RewardFnEnv) and not env.judge.thread_safe:
      places.append(env.judge.where)
    elif isinstance(env, CheckedEnv) and not isinstance(env.env, EnvWrapper) and not env.thread_safe:
      places.append(where(type(env.env)))
    env = env.env
  return places
