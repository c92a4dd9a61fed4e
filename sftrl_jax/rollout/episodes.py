"""The conversation with the environment: one loop for training and for evaluation."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs.env import Env, Verdict


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
  """One response, as text and as sampled tokens; a scripted policy gives the text alone.

  context: ids read before it and since the last response (the prompt, a verifier's message, a missing <eos>)
  tokens, logprobs: sampled ids and their log-probabilities, equally long
  stopped: it ended by itself, and not at max_new_tokens
  refused: the chat did not fit; the episode ends here, truncated, and the text is not judged
  """

  text: str
  context: tuple[int, ...] = ()
  tokens: tuple[int, ...] = ()
  logprobs: tuple[float, ...] = ()
  stopped: bool = True
  refused: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
  """A response and the environment's verdict on it."""

  response: Response
  verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Episode:
  """One episode: its seed, its turns, and the whole chat, the last feedback included."""

  seed: int | str
  turns: tuple[Turn, ...]
  chat: Chat
  truncated: bool

  @property
  def success(self) -> bool:
    return bool(self.turns) and self.turns[-1].verdict.success

  @property
  def rewards(self) -> list[float]:
    return [turn.verdict.reward for turn in self.turns]


def blank_episodes(count: int) -> list[Episode]:
  """Episodes without a turn, that fill a batch or are used for their shapes alone."""
  return [Episode(0, (), (), False)] * count


# (chats to answer, their indices among the last call's chats or None, memory) -> (responses, memory)
Policy = Callable[[Sequence[Chat], Sequence[int] | None, Any], tuple[list[Response], Any]]


def scripted(answer: Callable[[Chat], str]) -> Policy:
  """A policy from a function of a chat: for tests, experts and baselines."""
  return lambda chats, kept, memory: ([Response(answer(chat)) for chat in chats], memory)


@dataclasses.dataclass(frozen=True)
class Clock:
  """Seconds spent in the policy and in the environment."""

  rollout: float
  verify: float


def play(env: Env, policy: Policy, seeds: Sequence[int | str], any_process: Callable[[bool], bool] = bool
         ) -> tuple[list[Episode], Clock]:
  """Plays one episode a seed, all together, until each has ended. The order of the result is that of the seeds.

  any_process: from whether an episode goes on in this process to whether one does in any; processes call it, and the
  policy, equally often.
  """
  started = time.perf_counter()
  first = [env.reset(seed) for seed in seeds]
  states, chats = [state for state, _ in first], [chat for _, chat in first]
  turns: list[list[Turn]] = [[] for _ in seeds]
  truncated = [False] * len(seeds)
  verify, rollout = time.perf_counter() - started, 0.0
  live, kept, memory = list(range(len(seeds))), None, None
  while any_process(bool(live)):
    mark = time.perf_counter()
    responses, memory = policy([chats[i] for i in live], kept, memory)
    rollout += time.perf_counter() - mark
    mark = time.perf_counter()
    going_on = []
    for place, (i, response) in enumerate(zip(live, responses, strict=True)):
      if response.refused:
        truncated[i] = True
        continue
      states[i], verdict = env.step(states[i], response.text)
      turns[i].append(Turn(response, verdict))
      truncated[i] = verdict.truncated
      chats[i] = verdict.chat or whole_chat(chats[i], response.text, verdict.feedback)
      if verdict.chat is not None:
        going_on.append((i, place))
    live, kept = [i for i, _ in going_on], [place for _, place in going_on]
    verify += time.perf_counter() - mark
  episodes = [Episode(*fields) for fields in zip(seeds, map(tuple, turns), chats, truncated, strict=True)]
  return episodes, Clock(rollout, verify)


def whole_chat(chat: Chat, response: str, feedback: str) -> Chat:
  """The chat with the last response and the feedback on it."""
  messages = (Message("user", feedback),) if feedback else ()
  return (*chat, Message("assistant", response), *messages)
