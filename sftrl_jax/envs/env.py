"""The interface of environments: immutable states, and a verdict on every response."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from sftrl_jax.chat import Chat


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
  """The environment's judgement of one response.

  `reward`: of this response; None when a reward model or function scores it later.
  `terminated`: the task is over; `truncated`: the attempts are used up. At most one of them is true.
  `correct`: this response is right; `success`: the episode is solved so far.
  `feedback`: the next message to the policy. `chat`: the chat to answer next, None at the end.
  `code`: one of the environment's `codes`. `parts`: {name: right} of what is judged apart from the code, such as what
  was seen in a picture and the rule that was applied to it; None where nothing is.
  """

  reward: float | None
  terminated: bool
  truncated: bool
  correct: bool
  success: bool
  feedback: str
  chat: Chat | None
  code: str
  parts: dict[str, bool] | None = None


@runtime_checkable
class Env(Protocol):
  """A pure state machine over text: no globals, no tokenizer, no JAX.

  `variants` names the evaluation variants, each an instance with the field `variant=`; `codes` names the verdicts;
  `attempts` is the most responses of one episode; `words` is the whole vocabulary of a compact style, () otherwise.

  Seventeen more members are optional. `thread_safe`: threads may call reset and step at one time (default: False).
  `attempts_of`: "episode" (an attempt is a response of the episode, the default) or "point" (a right response that does
  not end the episode leads to the next point of a task of many points, where tries begin anew); `tries`: then the most
  tries at a point; `illegal_codes`: codes of responses whose form is not valid, by default ("illegal",) where that code
  exists. `verifies`: False where no response is right or wrong, no success is ever stated and every reward is None, so
  that a reward function or a reward model has to give it (default: True). `notes`: sentences for a person, printed
  when a run begins. `columns(state)`: {name: value} of what a reward function gets besides the response, as JSON has
  it; asked for at the state that reset gives. `rewrites_prompt`: a response may be followed by a new chat in place of a
  longer one; every chat is then a row of its own. Of such an environment `row_attempts` is the most responses of one
  chat and `most_rows` the most chats of one episode; each is `attempts` if left out.

  Dicts of str `code_labels` {code: label} and `variant_labels` {variant: label} are what a report prints instead of
  the names, in this order; codes with one label are added up. A third dict, `part_labels` {part of a verdict: label},
  names the parts that a report measures beside success, such as the reading of a picture.

  The methods careless(state, seed), a well-formed response that ignores the task of this state and may happen to be
  right, and misread(state, seed), a response that misreads the task and is always wrong, are used by data.careless and
  data.misread; careless_bias(state), from -1 to 1, says where text of mixed quality is careless less or more often than
  on average, for data.careless_spread.
  action_start(response), for ppo.thought_weight, is the index of the character with which a response's action starts:
  what stands before it is thought. It is 0 where a response has no action, or nothing before it.
  """

  variants: tuple[str, ...]
  codes: tuple[str, ...]
  attempts: int
  words: tuple[str, ...]

  def reset(self, seed: int | str) -> tuple[Any, Chat]:
    """The first state of an episode and the chat to answer. The same seed gives the same episode."""

  def step(self, state: Any, response: str) -> tuple[Any, Verdict]:
    """Judges a response. Every str gets a verdict; ValueError for a state whose episode has ended."""

  def expert(self, state: Any, choice: int = 0) -> str:
    """A correct response; `choice` selects one of the known ones, modulo their number."""


@dataclasses.dataclass(frozen=True, slots=True)
class Counting:
  """How the responses of an environment are counted.

  attempts_of: "episode" or "point", see Env
  attempts: the most attempts: responses of an episode, or tries at a point
  illegal_codes: of responses whose form is not valid
  """

  attempts_of: str = "episode"
  attempts: int = 1
  illegal_codes: tuple[str, ...] = ()


EPISODES = Counting()


def counting_of(env: Env) -> Counting:
  """How the responses of `env` are counted. ValueError for an optional member whose value means nothing."""
  attempts_of = getattr(env, "attempts_of", "episode")
  if attempts_of not in ("episode", "point"):
    raise ValueError(f"attempts_of is {attempts_of!r}, but it must be 'episode' (an attempt is a response of the "
                     "episode) or 'point' (tries begin anew after a right response).")
  attempts = getattr(env, "tries", env.attempts) if attempts_of == "point" else env.attempts
  if attempts_of == "point" and (type(attempts) is not int or attempts < 1):
    raise ValueError(f"tries is {attempts!r}, but with attempts_of='point' it must be the most tries at a point, an "
                     "int of at least 1: leave it out for `attempts`.")
  illegal = getattr(env, "illegal_codes", tuple(code for code in env.codes if code == "illegal"))
  if not isinstance(illegal, tuple) or any(code not in env.codes for code in illegal):
    raise ValueError(f"illegal_codes is {illegal!r}, but it must be a tuple of names among codes={env.codes!r}.")
  return Counting(attempts_of, attempts, illegal)


@dataclasses.dataclass(frozen=True, slots=True)
class Rewriting:
  """The bounds of an environment whose episodes have several chats.

  row_attempts: most responses of one chat. rows: most chats of one episode
  """

  row_attempts: int
  rows: int


def rewriting(env: Env) -> Rewriting | None:
  """The bounds of an environment that may rewrite its prompt; None where a chat only grows.

  Raises ValueError, naming the member, for bounds that hold no episode of `attempts` responses.
  """
  if not getattr(env, "rewrites_prompt", False):
    return None
  bounds = {name: getattr(env, name, env.attempts) for name in ("row_attempts", "most_rows")}
  for name, value in bounds.items():
    if not isinstance(value, int) or not 1 <= value <= env.attempts:
      raise ValueError(f"{name} of the environment is {value!r}, but it must be an integer from 1 to `attempts`, which "
                       f"is {env.attempts}: correct it, or leave it out.")
  row_attempts, rows = bounds.values()
  if row_attempts * rows < env.attempts:
    raise ValueError(f"row_attempts of the environment is {row_attempts} and most_rows {rows}, but an episode of "
                     f"`attempts` = {env.attempts} responses does not fit into so many chats: raise one of them.")
  return Rewriting(row_attempts, rows)


def thread_safe(judge: Env | Callable) -> bool:
  """Whether threads may call an environment, or a reward function, at one time: its `thread_safe`, False if left out.

  Raises ValueError for one that is no bool.
  """
  stated = getattr(judge, "thread_safe", False)
  if not isinstance(stated, bool):
    raise ValueError(f"thread_safe is {stated!r}, but it must be True (threads may call it at one time) or False: "
                     "correct it, or leave it out for False.")
  return stated


def verifies(env: Env) -> bool:
  """Whether the environment tells right responses from wrong ones: its `verifies`, True if left out."""
  return getattr(env, "verifies", True)


def labels_of(env: Env) -> dict[str, dict[str, str]]:
  """{"codes": {code: label}, "variants": {variant: label}, "parts": {part of a verdict: label}} of an environment; {}
  where it has no labels."""
  return {table: dict(getattr(env, name, {})) for table, name in (
      ("codes", "code_labels"), ("variants", "variant_labels"), ("parts", "part_labels"))}
