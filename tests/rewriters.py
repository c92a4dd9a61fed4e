"""Environments that rewrite their prompt, or say so, as a user's own file has them."""

import dataclasses

from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.virl.env import VIRL


@dataclasses.dataclass(frozen=True)
class Claims(GeneralPoints):
  """Says that it may rewrite its prompt, and never does."""

  rewrites_prompt = True


@dataclasses.dataclass(frozen=True)
class Hands(GeneralPoints):
  """Two hands, each with a chat of its own and half of the attempts. A response of an odd number of words is right."""

  rewrites_prompt = True
  most_rows = 2

  @property
  def row_attempts(self):
    return self.attempts // 2

  def _hand(self):
    return GeneralPoints(**{**dataclasses.asdict(self), "attempts": self.row_attempts})

  def reset(self, seed):
    hand, chat = self._hand().reset(f"{seed} 0")
    return (seed, False, hand), chat

  def step(self, state, response):
    seed, second, hand = state
    hand, verdict = self._hand().step(hand, self._hand().expert(hand) if len(response.split()) % 2 else response)
    if verdict.correct and not second:
      hand, chat = self._hand().reset(f"{seed} 1")
      return (seed, True, hand), dataclasses.replace(verdict, terminated=False, success=False, chat=chat)
    return (seed, second, hand), verdict

  def expert(self, state, choice=0):
    return self._hand().expert(state[2], choice)


@dataclasses.dataclass(frozen=True)
class Lenient(VIRL):
  """Two of three answers are right, so that a model that knows nothing walks on."""

  def step(self, state, response):
    return super().step(state, self.expert(state) if len(response.encode()) % 3 else response)
