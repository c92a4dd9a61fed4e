"""The states that an expert comes through, each answered once: how good a policy is from the expert's position.

A policy that fails at the first point of a route never reaches the others, whatever it could do there. Asked from every
state of the expert's own walk ("teacher-forced"), it is measured at all of them.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from sftrl_jax.chat import Chat
from sftrl_jax.envs.env import Env, Verdict, thread_safe
from sftrl_jax.envs.referee import EnvWrapper, EpisodeError


class Place(NamedTuple):
  """The state of an episode after so many responses of the expert."""

  seed: int | str
  responses: int


def walk(env: Env, seed: int | str) -> Iterator[tuple[Any, Chat]]:
  """(state, chat to answer) at every state of the expert's walk through an episode, `attempts` at most.

  Raises what reset, expert or step raises; a missing reward is none of the walk's concern.
  """
  state, chat = env.reset(seed)
  for _ in range(env.attempts):
    yield state, chat
    try:
      state, verdict = env.step(state, env.expert(state))
    except EpisodeError as error:
      if error.after is None:
        raise
      state, verdict = error.after
    if verdict.chat is None:
      return
    chat = verdict.chat


class OneResponse(EnvWrapper):
  """An environment whose episodes have one response: to the first prompt or, `anywhere`, at a random one of the states
  that the expert comes through."""

  attempts = 1
  rewrites_prompt = False   # one response is in one chat, whatever those of the environment are

  def __init__(self, env: Env, anywhere: bool = False):
    self.env, self.anywhere = env, anywhere

  @property
  def thread_safe(self) -> bool:
    return thread_safe(self.env)

  def __getattr__(self, name: str) -> Any:
    return getattr(self.__dict__["env"], name)

  def reset(self, seed: int | str) -> tuple[Any, Chat]:
    if not self.anywhere:
      return self.env.reset(seed)
    source = random.Random(f"{seed} point")
    return source.choice(list(walk(self.env, seed)))

  def step(self, state: Any, response: str) -> tuple[Any, Verdict]:
    try:
      state, verdict = self.env.step(state, response)
    except EpisodeError as error:
      if error.after is None:
        raise
      raise EpisodeError(error.kind, str(error), (error.after[0], _closed(error.after[1]))) from error
    return state, _closed(verdict)


class ExpertStates(OneResponse):
  """An environment whose episode number i begins at places[i] and has one response.

  It remembers the last walk, because the states of one episode are asked for together.
  """

  thread_safe = False   # for the walk that it remembers

  def __init__(self, env: Env, places: tuple[Place, ...]):
    super().__init__(env)
    self.places = places
    self._walked: tuple[int | str | None, Iterator, list[tuple[Any, Chat]]] = (None, iter(()), [])

  def reset(self, seed: int) -> tuple[Any, Chat]:
    place = self.places[seed]
    if self._walked[0] != place.seed:
      self._walked = (place.seed, walk(self.env, place.seed), [])
    _, states, seen = self._walked
    while len(seen) <= place.responses:
      try:
        seen.append(next(states))
      except StopIteration:
        raise EpisodeError("env", f"the expert's walk of seed {place.seed!r} had more than {place.responses} states, "
                           f"and has {len(seen)} now: reset and step must depend on their arguments alone.") from None
    return seen[place.responses]


def _closed(verdict: Verdict) -> Verdict:
  """The verdict as the last of its episode."""
  return verdict if verdict.chat is None else dataclasses.replace(verdict, truncated=True, chat=None)
