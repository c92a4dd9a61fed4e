"""A user's reward function as a run calls it: in a process of its own, or in this one."""

import contextlib
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sftrl_jax.chat import Chat
from sftrl_jax.envs import guard
from sftrl_jax.envs.env import Env, Verdict
from sftrl_jax.envs.referee import LARGEST, EpisodeError, Judge, TaskError, guarded, short
from sftrl_jax.programs.config import user_files
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.own_reward.calls import (
  GIVEN,
  LOGS,
  NOT_GIVEN,
  Form,
  answer,
  form_of,
  request_of_response,
)
from sftrl_jax.programs.own_reward.config import OwnRewardConfig
from sftrl_jax.programs.own_reward.process import FunctionProcess, NoAnswer

PROBED = 8   # episodes of which one has columns


class RewardFunction:
  """A reward function and its form.

  ask: a request -> its answer, see calls.py. Raises NoAnswer.
  """

  def __init__(self, form: Form, ask: Callable[[dict], dict]):
    self.form, self._ask = form, ask
    self.where = form.where

  @property
  def judge(self) -> Judge:
    """How an environment calls a function of the first form."""
    return Judge(self.judged, self.where, self.form.thread_safe)

  def judged(self, chat: Chat, response: str, verdict: Verdict, after: tuple[Any, Verdict] | None = None) -> float:
    """The reward of a response, by a function of the first form."""

    def failed(error: BaseException) -> TaskError:
      if isinstance(error, TaskError):
        return error
      why = str(error) if isinstance(error, NoAnswer) else f"{self.where}: {guard.describe(error)}"
      return EpisodeError("reward", f"{why}\n  The response was {short(response)}. A reward function gives every "
                          "response a finite number.", after)

    answered = guarded(failed, self._ask, request_of_response(chat, response, verdict))
    if "failed" in answered:
      raise EpisodeError("reward", str(answered["failed"]), after)
    return self._checked(answered, [answered.get("reward", "")], 1)[0]

  def scores(self, request: dict) -> tuple[list[float | None], dict]:
    """(rewards, metrics {name: (sum, count)}) of a batch, by a function of TRL's form. EpisodeError where the whole
    batch has none; TaskError for what is no list of as many numbers."""
    try:
      answered = self._ask(request)
    except NoAnswer as error:
      raise EpisodeError("reward", f"{error}\n  The call was for {len(request['completions'])} responses, none of "
                         "which has a reward now.") from error
    if "failed" in answered:
      raise EpisodeError("reward", str(answered["failed"]))
    rewards = self._checked(answered, answered.get("rewards"), len(request["completions"]))
    return rewards, {str(name): (float(total), int(count)) for name, (total, count) in answered["metrics"].items()}

  def _checked(self, answered: dict, rewards: Any, count: int) -> list:
    """What the process says are numbers, which are. TaskError for a mistake that it names."""
    if "mistake" in answered:
      raise TaskError(str(answered["mistake"]))
    if not isinstance(rewards, list) or len(rewards) != count or not all(
        reward is None or (type(reward) is float and abs(reward) <= LARGEST) for reward in rewards):
      raise TaskError(f"{self.where}: its process answered {short(answered)}, which is not what it was asked for: let "
                      "the file leave sockets alone that it has not opened.")
    return rewards


def reward_function(name: str, own: OwnRewardConfig) -> RewardFunction:
  """The function that config.reward names, the same one as long as its file stays. ConfigError names file and line."""
  if not user_files.is_path(name):
    user_files.reward(name)   # raises
  path = Path(user_files.absolute(name).rpartition(":")[0]) if ".py:" in name else Path(user_files.absolute(name))
  return _function(user_files.absolute(name), own, path.stat().st_mtime_ns if path.is_file() else 0)


@functools.lru_cache(maxsize=8)
def _function(name: str, own: OwnRewardConfig, modified_ns: int) -> RewardFunction:
  """One a file, version and settings: evaluation and training share its process."""
  del modified_ns
  if own.process:
    process = FunctionProcess(name, own)
    return RewardFunction(process.form, process.ask)
  function = user_files.reward(name)
  form = form_of(function, name)

  def ask(request: dict) -> dict:
    request = json.loads(json.dumps(request))   # the function's own copy, as it has in a process
    try:
      with guard.time_limit(own.seconds):
        return answer(function, form, request)
    except guard.OutOfTime as error:   # between two lines of the user's own
      raise NoAnswer(f"{form.where}: {guard.describe(error)}") from error

  return RewardFunction(form, ask)


def refuse_columns(function: RewardFunction, env: Env) -> None:
  """ConfigError where a function of TRL's form asks for an argument that nothing gives, or a column has the name of
  another argument. env: whose columns it gets"""
  columns = columns_of(env)
  if columns is None:   # nobody can play yet, which others say
    return
  clash = [column for column in columns if column in (*GIVEN, *LOGS)]
  if clash:
    raise ConfigError(f"config.env has the column {clash[0]!r}, which is the name of another argument of the reward "
                      f"function ({', '.join((*GIVEN, *LOGS))}): rename the column.")
  missing = [key for key in function.form.needs if key not in (*GIVEN, *LOGS, *columns)]
  if missing:
    why = f", which is TRL's own ({', '.join(NOT_GIVEN)} are not given here)" if missing[0] in NOT_GIVEN else ""
    raise ConfigError(f"{function.where}: config.reward names this function, which takes {missing[0]}{why}, but the "
                      f"arguments are {', '.join((*GIVEN, *LOGS, *columns))}: give it a default, or the prompts such a "
                      "column (config.env.name=prompts).")


def columns_of(env: Env) -> Mapping[str, Any] | None:
  """The columns of an environment's first episode; {} where it has none, None where no episode begins."""
  if not hasattr(env, "columns"):
    return {}
  for number in range(PROBED):
    with contextlib.suppress(EpisodeError):
      return env.columns(env.reset(f"0 {number}")[0])
  return None

