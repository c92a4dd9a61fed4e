"""The conversation with the environment: one loop for training and for evaluation."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs.env import Env, Verdict


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
  """One response, as text and as what was sampled; a scripted policy gives the text alone.

  context: ids read before it and since the last response (the prompt, a verifier's message, a missing <eos>).
  tokens, logprobs: ids that the policy sampled and their log-probabilities, equally long.
  refused: the chat did not fit; the episode ends here, truncated, and the text was never judged.
  """

  text: str
  context: tuple[int, ...] = ()
  tokens: tuple[int, ...] = ()
  logprobs: tuple[float, ...] = ()
  stopped: bool = True
  refused: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
  reply: Response
  verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Episode:
  """One episode: its seed, its turns, and the whole chat, the last feedback included."""

  seed: int
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
  """Episodes without a turn: they fill a batch, or stand for others where only shapes matter."""
  return [Episode(0, (), (), False)] * count


# (chats to answer, places of these among the last call's chats or None, memory) -> (replies, memory)
Policy = Callable[[Sequence[Chat], Sequence[int] | None, Any], tuple[list[Response], Any]]


def scripted(answer: Callable[[Chat], str]) -> Policy:
  """A policy from a function of a chat: for tests, experts and baselines."""
  return lambda chats, kept, memory: ([Response(answer(chat)) for chat in chats], memory)


@dataclasses.dataclass(frozen=True)
class Clock:
  """Seconds spent in the policy and in the environment."""

  rollout: float
  verify: float


def play(env: Env, policy: Policy, seeds: Sequence[int], anyone: Callable[[bool], bool] = bool
         ) -> tuple[list[Episode], Clock]:
  """Plays one episode a seed, all together, until each has ended. The order of the result is that of the seeds.

  anyone: of whether an episode goes on here, whether one does in any process; all are asked equally often.
  """
  started = time.perf_counter()
  begun = [env.reset(seed) for seed in seeds]
  states, chats = [state for state, _ in begun], [chat for _, chat in begun]
  turns: list[list[Turn]] = [[] for _ in seeds]
  cut = [False] * len(seeds)
  verify, rollout = time.perf_counter() - started, 0.0
  live, kept, memory = list(range(len(seeds))), None, None
  while anyone(bool(live)):
    mark = time.perf_counter()
    replies, memory = policy([chats[i] for i in live], kept, memory)
    rollout += time.perf_counter() - mark
    mark = time.perf_counter()
    on = []
    for place, (i, reply) in enumerate(zip(live, replies, strict=True)):
      if reply.refused:
        cut[i] = True
        continue
      states[i], verdict = env.step(states[i], reply.text)
      turns[i].append(Turn(reply, verdict))
      cut[i] = verdict.truncated
      chats[i] = verdict.chat or whole_chat(chats[i], reply.text, verdict.feedback)
      if verdict.chat is not None:
        on.append((i, place))
    live, kept = [i for i, _ in on], [place for _, place in on]
    verify += time.perf_counter() - mark
  episodes = [Episode(*fields) for fields in zip(seeds, map(tuple, turns), chats, cut, strict=True)]
  return episodes, Clock(rollout, verify)


def whole_chat(chat: Chat, response: str, feedback: str) -> Chat:
  """The chat with the last response and what was said to it."""
  said = (Message("user", feedback),) if feedback else ()
  return (*chat, Message("assistant", response), *said)
