"""What every environment offers: states that never change, and a verdict on every response."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

from sftrl_jax.chat import Chat


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
  """What an environment says about one response.

  `reward`: of this response; None when a reward model or function scores the batch later.
  `terminated`: the task is over; `truncated`: the attempts are used up. At most one of them is true.
  `correct`: this response is right; `success`: the episode is solved so far.
  `feedback`: what the policy is told. `chat`: the chat to answer next, None at the end.
  `code`: one of the environment's `codes`.
  """

  reward: float | None
  terminated: bool
  truncated: bool
  correct: bool
  success: bool
  feedback: str
  chat: Chat | None
  code: str


@runtime_checkable
class Env(Protocol):
  """A pure state machine over text: no globals, no tokenizer, no JAX.

  `variants` names the evaluation variants, each made by the constructor's `variant=`; `codes` names the verdicts;
  `attempts` is the most responses of one episode; `words` is the whole vocabulary of a compact style, () otherwise.

  Two more methods are asked for by data.careless and data.misread alone: careless(state, seed), a well-formed response
  that does not aim at the task of this state and may happen to be right, and misread(state, seed), one that misreads
  what is shown and is always wrong.
  """

  variants: tuple[str, ...]
  codes: tuple[str, ...]
  attempts: int
  words: tuple[str, ...]

  def reset(self, seed: int | str) -> tuple[Any, Chat]:
    """The first state of an episode and the chat to answer; the same seed gives the same episode."""

  def step(self, state: Any, response: str) -> tuple[Any, Verdict]:
    """Judges a response. Every str gets a verdict; ValueError for a state whose episode has ended."""

  def expert(self, state: Any, choice: int = 0) -> str:
    """A correct response; `choice` picks among the known ones, modulo their number."""
