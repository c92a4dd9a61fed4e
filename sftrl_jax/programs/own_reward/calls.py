"""A call of a user's reward function: from a request to an answer, both of which JSON holds. The same code in a run and
in the function's own process.

  one response: {"chat", "response", "verdict"} -> {"reward": a finite number}
  many, TRL's form: {name of a keyword argument: a list} -> {"rewards": [a finite number or null], "metrics": {name:
    [sum, count]}}

In place of them an answer may be {"failed": message}, of which the responses of the call have no reward, or {"mistake":
message}, which ends the run: the function breaks its interface, and would do so at every call.
"""

import base64
import dataclasses
import inspect
import numbers
from collections.abc import Callable, Sequence
from typing import Any

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs import guard
from sftrl_jax.envs.env import Verdict, thread_safe
from sftrl_jax.envs.referee import EpisodeError, TaskError, blame, finite, guarded, judged, where
from sftrl_jax.programs.config.errors import ConfigError

GIVEN = ("prompts", "completions", "completion_ids")   # keyword arguments of TRL's form; any of them makes it so
LOGS = ("log_metric", "log_extra")   # functions, which TRL gives too
NOT_GIVEN = ("trainer_state", "environments")   # what TRL gives and nothing here has
MOST_METRICS = 50
FORMS = ("def reward(chat, response, verdict) -> float, called once a response, or TRL's def reward(prompts, "
         "completions, **kwargs) -> list[float], called once for many")


@dataclasses.dataclass(frozen=True)
class Form:
  """What is known of a reward function without calling it.

  where: its file, line and name
  file: that it is written in
  batch: whether it is of TRL's form
  takes: names of its parameters; needs: those without a default; any_name: whether it takes all others too
  thread_safe: whether threads may call it at one time
  """

  where: str
  file: str
  batch: bool
  takes: tuple[str, ...]
  needs: tuple[str, ...]
  any_name: bool
  thread_safe: bool


def form_of(function: Callable, name: str) -> Form:
  """The form of a function, by the names of its parameters. ConfigError for one of neither form; name: in the config"""
  parameters = inspect.signature(function).parameters.values()
  named = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
  takes = tuple(each.name for each in named)
  needs = tuple(each.name for each in named if each.default is each.empty)
  try:
    safe = thread_safe(function)
  except ValueError as error:
    raise ConfigError(f"config.reward of {name!r}: {error}") from error
  batch = any(key in takes for key in GIVEN)
  code = getattr(inspect.unwrap(function), "__code__", None)
  form = Form(where(function), code.co_filename if code else "", batch, takes, needs,
              any(each.kind is each.VAR_KEYWORD for each in parameters), safe)
  if batch and any(each.kind is each.POSITIONAL_ONLY for each in named):
    raise ConfigError(f"{form.where}: config.reward names this function, which takes {', '.join(takes)}, some of them "
                      "by place alone, but TRL's form is called by names: leave out the `/`.")
  if not batch:
    try:
      inspect.signature(function).bind(None, None, None)
    except TypeError:
      raise ConfigError(f"{form.where}: config.reward names this function, which takes ({', '.join(takes)}), but it "
                        f"should be {FORMS}.") from None
  return form


def answer(function: Callable, form: Form, request: dict) -> dict:
  """What the function says to a request. Raises signals to the process alone."""
  try:
    return _of_batch(function, form, request) if form.batch else {"reward": judged(
        function, read_chat(request["chat"]), request["response"], read_verdict(request["verdict"]))}
  except EpisodeError as error:
    return {"failed": str(error)}
  except TaskError as error:
    return {"mistake": str(error)}


def _of_batch(function: Callable, form: Form, request: dict) -> dict:
  metrics: dict[str, list[float]] = {}

  def log_metric(name: str, value: float) -> None:
    if len(metrics) >= MOST_METRICS and name not in metrics:
      raise ValueError(f"log_metric has {MOST_METRICS} names already, the most; {name!r} is one more")
    total, count = metrics.get(str(name), (0.0, 0))
    metrics[str(name)] = (total + finite(function, value, f"the value of the metric {name!r}"), count + 1)

  logs = {"log_metric": log_metric, "log_extra": lambda column, values: None}
  given = {key: value for key, value in {**request, **logs}.items() if form.any_name or key in form.takes}
  count = len(request["completions"])

  def failed(error: BaseException) -> TaskError:
    return error if isinstance(error, TaskError) else EpisodeError(
        "reward", f"{blame(error, function)}: {guard.describe(error)}\n  The call was for {count} responses, none of "
        "which has a reward now.")

  rewards = guarded(failed, _awaited, function, given)
  return {"rewards": _numbers(function, rewards, count), "metrics": metrics}


def _awaited(function: Callable, given: dict) -> Any:
  """What the function returns; of an `async def` what it gives in the end."""
  value = function(**given)
  if not inspect.isawaitable(value):
    return value
  import asyncio

  async def wait() -> Any:
    return await value

  return asyncio.run(wait())


def _numbers(function: Callable, rewards: Any, count: int) -> list[float | None]:
  """The rewards as floats, None where the function abstains. TaskError for anything else than one each."""
  place = where(function)
  if isinstance(rewards, (str, bytes, dict)) or not hasattr(rewards, "__len__") or not hasattr(rewards, "__getitem__"):
    raise TaskError(f"{place}: it returned {type(rewards).__name__}, but it must return a list of one number, or None, "
                    f"for each of the {count} responses.")
  if len(rewards) != count:
    raise TaskError(f"{place}: it returned {len(rewards)} rewards for {count} responses, but it must return one "
                    "number, or None to abstain, for each, in their order.")
  return [None if reward is None else finite(function, _scalar(reward), f"the reward of response {number + 1}")
          for number, reward in enumerate(rewards)]


def _scalar(value: Any) -> Any:
  """A number of torch or NumPy that lies in an array of one as a number."""
  if not isinstance(value, numbers.Real) and callable(getattr(value, "item", None)):
    try:
      return value.item()
    except (ValueError, RuntimeError, TypeError):
      return value
  return value


def request_of_response(chat: Chat, response: str, verdict: Verdict) -> dict:
  """The request for one response."""
  fields = {field.name: getattr(verdict, field.name) for field in dataclasses.fields(verdict)}
  return {"chat": write_chat(chat), "response": response,
          "verdict": {**fields, "chat": None if verdict.chat is None else write_chat(verdict.chat)}}


def write_chat(chat: Chat) -> list[dict]:
  """A chat as JSON."""
  return [{"role": message.role, "text": message.text, "fields": message.fields, **_written_image(message.image)}
          for message in chat]


def _written_image(image: Any) -> dict:
  return {} if image is None else {"image": base64.b64encode(image.tobytes()).decode(), "shape": image.shape}


def read_chat(chat: Sequence[dict]) -> Chat:
  """The chat of `write_chat`."""
  return tuple(Message(each["role"], each["text"], _read_image(each), each["fields"]) for each in chat)


def _read_image(message: dict) -> Any:
  if "image" not in message:
    return None
  import numpy as np
  return np.frombuffer(base64.b64decode(message["image"]), np.uint8).reshape(message["shape"])


def read_verdict(verdict: dict) -> Verdict:
  """The verdict of `request_of_response`."""
  return Verdict(**{**verdict, "chat": None if verdict["chat"] is None else read_chat(verdict["chat"])})
