"""An environment from a user's own file, checked against the interface while it plays: errors name file and line."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs import guard
from sftrl_jax.envs.env import Verdict, thread_safe

# Of a reward. Advantages, returns and gradients are sums of squares in float32, which ends at 3.4e38.
LARGEST = 1e15
FLAGS = ("terminated", "truncated", "correct", "success")
LABELS = ("code_labels", "variant_labels", "part_labels")


class TaskError(ValueError):
  """A mistake in a user's own task; the message names file and line, the mistake and the rule."""


class EpisodeError(TaskError):
  """What spoils one episode, which a run may leave out.

  kind: "env" where reset or step failed, "reward" where no reward came
  after: (state, verdict) with a reward of None, where the environment judged and only the reward is missing; else None
  """

  def __init__(self, kind: str, message: str, after: tuple[Any, Verdict] | None = None):
    super().__init__(message)
    self.kind, self.after = kind, after


def where(function: Callable) -> str:
  """`path/to/task.py, line 12, in step`: the place of a function or a class in its file."""
  code = getattr(inspect.unwrap(function), "__code__", None)
  if code is not None:
    return f"{code.co_filename}, line {code.co_firstlineno}, in {function.__name__}"
  try:
    return f"{inspect.getsourcefile(function)}, line {inspect.getsourcelines(function)[1]}, in {function.__name__}"
  except (OSError, TypeError):
    return f"{getattr(function, '__name__', function)}"


def location(env: Any, method: str) -> str:
  """File and line of a method of the user's class, below the wrappers of this file."""
  while isinstance(env, EnvWrapper):
    env = env.env
  return where(getattr(type(env), method))


def blame(error: BaseException, function: Callable) -> str:
  """The last line in the file of `function` that led to the error; the place of the function if none did."""
  code = getattr(inspect.unwrap(function), "__code__", None)
  return last_line(error, code.co_filename if code else "") or where(function)


def last_line(error: BaseException, file: str) -> str:
  """`file, line 12, in step`: the last line of the file that led to the error; "" if none did."""
  frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
  return f"{file}, line {frames[-1].lineno}, in {frames[-1].name}" if frames else ""


class EnvWrapper:
  """What stands before an environment, which it has as `env`."""


@dataclasses.dataclass(frozen=True)
class CheckedEnv(EnvWrapper):
  """`env`, with everything it returns checked against envs/env.py; TaskError names the line to mend.

  scored: a reward function follows, so a reward of None is right.
  """

  env: Any
  scored: bool = False

  @property
  def thread_safe(self) -> bool:
    """What the class itself states: one derived from an environment that is safe may be not."""
    env = self.env
    return env.thread_safe if "thread_safe" in vars(type(env)) else False

  def __getattr__(self, name):  # fields, variants, codes, attempts, words; labels, careless and misread if it has them
    env = object.__getattribute__(self, "env")
    value = getattr(env, name)
    if name in LABELS and not _is_labels(value):
      raise TaskError(f"{where(type(env))}: {name} is {short(value)}, but it must be a dict of str to str.")
    if name == "columns":
      return functools.partial(self._columns, type(env).columns)
    if name in ("careless_bias", "action_start"):
      return functools.partial(self._bias if name == "careless_bias" else self._start, getattr(type(env), name))
    return functools.partial(self._text, getattr(type(env), name)) if name in ("careless", "misread") else value

  def reset(self, seed: int | str) -> tuple[Any, Chat]:
    reset = type(self.env).reset
    state, chat = self._pair(reset, "(state, chat)", seed)
    if not _is_chat(chat) or chat[-1].role != "user":
      raise TaskError(f"{where(reset)}: the chat is {short(chat)}, but it must be a tuple of Messages of which the "
                      "last is the user's: return state, (Message('user', prompt),).")
    return state, chat

  def step(self, state: Any, response: str) -> tuple[Any, Verdict]:
    step = type(self.env).step
    state, verdict = self._pair(step, "(state, verdict)", state, response)
    if not isinstance(verdict, Verdict):
      raise TaskError(f"{where(step)}: the verdict is {short(verdict)}, but it must be a Verdict of "
                      "sftrl_jax.envs.env: return state, Verdict(reward=..., ...).")
    problem = _problem(verdict)
    if problem:
      raise TaskError(f"{where(step)}: {problem}\n  The response was {short(response)}.")
    if verdict.reward is None and self.scored:
      return state, verdict
    if verdict.reward is None:
      raise EpisodeError("reward", _abstains(step, response) + ", or let a function in config.reward give it.",
                         (state, verdict))
    return state, dataclasses.replace(verdict, reward=_finite(step, verdict.reward, response))

  def expert(self, state: Any, *choice: int) -> str:
    return self._text(type(self.env).expert, state, *choice)

  def _text(self, method: Callable, *arguments) -> str:
    response = self._ask(method, *arguments)
    if not isinstance(response, str):
      raise TaskError(f"{where(method)}: the response is {short(response)}, but it must be a str.")
    return response

  def _bias(self, method: Callable, state: Any) -> float:
    bias = self._ask(method, state)
    if isinstance(bias, bool) or not isinstance(bias, numbers.Real) or not -1 <= bias <= 1:
      raise TaskError(f"{where(method)}: the bias is {short(bias)}, but it must be a number from -1 to 1.")
    return float(bias)

  def _columns(self, method: Callable, state: Any) -> dict[str, Any]:
    columns = self._ask(method, state)
    if not isinstance(columns, dict) or not all(isinstance(name, str) for name in columns):
      raise TaskError(f"{where(method)}: the columns are {short(columns)}, but they must be a dict of {{name: value}}.")
    return columns

  def _start(self, method: Callable, response: str) -> int:
    start = self._ask(method, response)
    if isinstance(start, bool) or not isinstance(start, numbers.Integral) or not 0 <= start <= len(response):
      raise TaskError(f"{where(method)}: the start is {short(start)}, but it must be an index into the response, from "
                      f"0 to {len(response)}.\n  The response was {short(response)}.")
    return int(start)

  def _ask(self, method: Callable, *arguments):
    def failed(error: BaseException) -> TaskError:
      shown = ", ".join(map(short, arguments))
      message = (f"{blame(error, method)}: {guard.describe(error)}\n  Asked for was {method.__name__}({shown}). "
                 f"{RULES[method.__name__]}")
      return EpisodeError("env", message) if method.__name__ in ("reset", "step") else TaskError(message)

    return guarded(failed, method, self.env, *arguments)

  def _pair(self, method: Callable, names: str, *arguments) -> tuple:
    answer = self._ask(method, *arguments)
    if not isinstance(answer, tuple) or len(answer) != 2:
      raise TaskError(f"{where(method)}: it returned {short(answer)}, but it must return {names}.")
    return answer


RULES = {"reset": "Every seed, an int or a str, gives an episode.",
         "step": "Every str gets a verdict: a response that makes no sense is wrong, and raises no error.",
         "expert": "Every state that is not the end of its episode has a right response.",
         "columns": "Every state that reset gives has a dict of columns, {} if there are none.",
         "careless": "Every state has a response that does not aim at the task.",
         "careless_bias": "Every state has a number from -1 to 1.",
         "action_start": "Every str has a start, which is 0 where there is no action.",
         "misread": "Every state has a response that misreads it."}


@dataclasses.dataclass(frozen=True)
class Judge:
  """How a reward function is called: in this process, or in one of its own.

  judged: (chat, response, verdict, after) -> reward, and its errors, as the function `judged` below
  where: the function's place, for messages
  thread_safe: whether threads may call it at one time
  """

  judged: Callable[..., float]
  where: str
  thread_safe: bool


def judged(function: Callable, chat: Chat, response: str, verdict: Verdict,
           after: tuple[Any, Verdict] | None = None) -> float:
  """The reward that a function gives a response.

  Raises EpisodeError, which has `after`, where there is none: the function raises, exits, hangs or abstains; TaskError
  for one that is no finite number.
  """

  def failed(error: BaseException) -> EpisodeError:
    return EpisodeError("reward", f"{blame(error, function)}: {guard.describe(error)}\n  The response was "
                        f"{short(response)}. A reward function gives every response a finite number.", after)

  reward = guarded(failed, function, chat, response, verdict)
  if reward is None:
    raise EpisodeError("reward", _abstains(function, response) + ".", after)
  return _finite(function, reward, response)


class RewardedState(NamedTuple):
  """A state, and the chat to answer in it."""

  state: Any
  chat: Chat


@dataclasses.dataclass(frozen=True)
class RewardFnEnv(EnvWrapper):
  """`env`, with rewards by a function, whose `chat` is the one before the response.

  The environment still decides whether a response is right and when an episode ends.
  """

  env: Any
  judge: Judge

  @property
  def thread_safe(self) -> bool:
    return thread_safe(self.env) and self.judge.thread_safe

  def __getattr__(self, name):
    value = getattr(object.__getattribute__(self, "env"), name)
    takes_state = name in ("careless", "careless_bias", "misread", "columns")
    return (lambda state, *rest: value(state.state, *rest)) if takes_state else value

  def reset(self, seed: int | str) -> tuple[RewardedState, Chat]:
    state, chat = self.env.reset(seed)
    return RewardedState(state, chat), chat

  def step(self, state: RewardedState, response: str) -> tuple[RewardedState, Verdict]:
    after, verdict = self.env.step(state.state, response)
    after = RewardedState(after, verdict.chat or ())
    unrewarded = after, dataclasses.replace(verdict, reward=None)
    reward = self.judge.judged(state.chat, response, verdict, after=unrewarded)
    return after, dataclasses.replace(verdict, reward=reward)

  def expert(self, state: RewardedState, *choice: int) -> str:
    return self.env.expert(state.state, *choice)


def rewarded_by(env: Any, function: Callable[[Chat, str, Verdict], float]) -> RewardFnEnv:
  """`env` with the rewards of a function that is called in this process."""
  return RewardFnEnv(env, Judge(functools.partial(judged, function), where(function), thread_safe(function)))


def guarded(failed: Callable[[BaseException], TaskError], function: Callable, *arguments) -> Any:
  """function(*arguments); raises failed(error) for its error, unless that is a signal to the process."""
  try:
    return guard.call(function, *arguments, failed=failed)
  except BaseException as error:
    if guard.is_signal(error):
      raise
    raise failed(error) from error


def _abstains(function: Callable, response: str) -> str:
  return (f"{where(function)}: the reward is None, so its episode abstains.\n  The response was {short(response)}. "
          "Give a finite number for every response")


def _finite(function: Callable, reward: Any, response: str) -> float:
  try:
    return finite(function, reward, "the reward")
  except TaskError as error:
    raise TaskError(f"{error}\n  The response was {short(response)}.") from error


def finite(function: Callable, value: Any, subject: str) -> float:
  """The value as a float; TaskError, which names the subject and the function's place, unless it is a number that
  float32 can square."""
  try:
    number = float(value) if isinstance(value, numbers.Real) else math.nan
  except OverflowError:   # an int or a Fraction beyond float64
    number = math.inf
  if abs(number) <= LARGEST:
    return number
  way_out = ("scale or clip it, because float32 has to hold its square" if not math.isnan(number) else
             "give float(...)" if hasattr(value, "__float__") and not isinstance(value, numbers.Real) else "give one")
  raise TaskError(f"{where(function)}: {subject} is {short(value)}, but it must be a finite number, at most "
                  f"{LARGEST:g} from 0: {way_out}.")


def _problem(verdict: Verdict) -> str:
  """The mistake in a verdict, its reward apart; "" if there is none."""
  for name in FLAGS:
    if type(getattr(verdict, name)) is not bool:
      return f"{name} is {short(getattr(verdict, name))}, but it must be True or False: write bool(...)."
  for name in ("feedback", "code"):
    if not isinstance(getattr(verdict, name), str):
      return f"{name} is {short(getattr(verdict, name))}, but it must be a str."
  parts = verdict.parts
  if parts is not None and (not isinstance(parts, dict) or not all(
      isinstance(name, str) and type(right) is bool for name, right in parts.items())):
    return f"parts is {short(parts)}, but it must be a dict of {{name: True or False}}, or None: write bool(...)."
  ended = verdict.terminated or verdict.truncated
  if verdict.terminated and verdict.truncated:
    return ("terminated and truncated are both True, but an episode ends one way: terminated when the task is over, "
            "truncated when the attempts are used up.")
  if ended and verdict.chat is not None:
    return f"chat is {short(verdict.chat)} at the end of the episode, but it must be None there."
  if not ended and verdict.chat is None:
    return ("chat is None, but neither terminated nor truncated is True: give the chat to answer next, or end the "
            "episode.")
  if not ended and (not _is_chat(verdict.chat) or verdict.chat[-1].role != "user"):
    return (f"chat is {short(verdict.chat)}, but it must be a tuple of Messages of which the last is the user's: "
            "(*chat, Message('assistant', response), Message('user', feedback)).")
  return ""


def _is_labels(labels) -> bool:
  return isinstance(labels, dict) and all(isinstance(text, str) for pair in labels.items() for text in pair)


def _is_chat(chat) -> bool:
  return isinstance(chat, tuple) and bool(chat) and all(isinstance(message, Message) for message in chat)


def short(value) -> str:
  try:
    shown = repr(value)
  except Exception:   # an int of more than 4300 digits, or the user's own __repr__
    shown = f"<{type(value).__name__} without a repr>"
  return shown if len(shown) <= 120 else f"{shown[:80]} ... ({len(shown)} characters)"
