"""The conversation with the environment: one loop for training and for evaluation."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from sftrl_jax.chat import Chat, Message, continues
from sftrl_jax.envs.env import Env, Rewriting, Verdict, rewriting
from sftrl_jax.envs.guard import OutOfTime, describe, time_limit
from sftrl_jax.envs.referee import EpisodeError, location

DROPPED = "dropped/"   # begins the kinds of trouble for which an episode is left out


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
  """What spoiled an episode, or cut it.

  kind: the metric that counts it. dropped/prompt: the prompt does not fit, or has no ids; dropped/env: reset or step
    failed; dropped/reward: there is no reward; cut/feedback: a message does not fit; cut/prompt: a later prompt does
    not fit; cut/attempts: the episode would have gone on beyond `attempts`; cut/rows: beyond `most_rows`, or a chat
    beyond `row_attempts`
  message: with the file and line, or the key, to mend
  """

  kind: str
  message: str

  @property
  def dropped(self) -> bool:
    return self.kind.startswith(DROPPED)


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
  """One response, as text and as sampled tokens; a scripted policy gives the text alone.

  context: ids read before it and since the last response (the prompt, a verifier's message, a missing <eos>)
  tokens, logprobs: sampled ids and their log-probabilities, equally long
  stopped: it ended by itself, and not at max_new_tokens
  begins_row: its context is the whole of another chat than the one answered before, which the environment wrote anew;
    the first response of an episode begins a row without it
  refused: why the chat was not answered; the episode ends here, truncated or left out, and the text is not judged
  """

  text: str
  context: tuple[int, ...] = ()
  tokens: tuple[int, ...] = ()
  logprobs: tuple[float, ...] = ()
  stopped: bool = True
  refused: Trouble | None = None
  begins_row: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
  """A response and the environment's verdict on it."""

  response: Response
  verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Episode:
  """One episode: its seed, its turns, and the whole chat, the last feedback included.

  trouble: None for nearly all; an episode that is left out for it has no turns
  earlier: the messages of the chats before the last one, where the environment rewrites its prompt
  """

  seed: int | str
  turns: tuple[Turn, ...]
  chat: Chat
  truncated: bool
  trouble: Trouble | None = None
  earlier: Chat = ()

  @property
  def rows(self) -> list[tuple[Turn, ...]]:
    """The turns of each of its chats, every one of which is a row; [()] without a turn."""
    first = [0, *(turn for turn in range(1, len(self.turns)) if self.turns[turn].response.begins_row)]
    return [self.turns[start:end] for start, end in zip(first, [*first[1:], len(self.turns)], strict=True)]

  @property
  def dropped(self) -> bool:
    """Whether training leaves it out: there is nothing to learn from, and nothing to compare others with."""
    return self.trouble is not None and self.trouble.dropped

  @property
  def success(self) -> bool:
    return bool(self.turns) and self.turns[-1].verdict.success

  @property
  def rewards(self) -> list[float]:
    return [turn.verdict.reward for turn in self.turns]


def blank_episodes(count: int) -> list[Episode]:
  """Episodes without a turn, that fill a batch or are used for their shapes alone."""
  return [Episode(0, (), (), False)] * count


def by_row(episodes: Sequence[Episode]) -> list[Episode]:
  """Every row of the episodes as an episode of its own, in their order."""
  return [dataclasses.replace(episode, turns=turns) for episode in episodes for turns in episode.rows]


# (chats to answer, None for one that never began; their indices among the last call's chats or None; memory)
# -> (responses, memory)
Policy = Callable[[Sequence[Chat | None], Sequence[int] | None, Any], tuple[list[Response], Any]]


def scripted(answer: Callable[[Chat], str]) -> Policy:
  """A policy from a function of a chat: for tests, experts and baselines."""
  return lambda chats, kept, memory: ([Response(answer(chat)) for chat in chats], memory)


@dataclasses.dataclass(frozen=True)
class Clock:
  """Seconds spent in the policy and in the environment."""

  rollout: float
  verify: float


@dataclasses.dataclass(frozen=True)
class Judging:
  """How `play` treats the environment.

  seconds: that one call of reset or step may take (0: any)
  keep_unrewarded: an episode without a reward goes on, its reward None, because only its success is measured
  """

  seconds: float = 0.0
  keep_unrewarded: bool = False


JUDGING = Judging()


def play(env: Env, policy: Policy, seeds: Sequence[int | str], any_process: Callable[[bool], bool] = bool,
         judging: Judging = JUDGING) -> tuple[list[Episode], Clock]:
  """Plays one episode a seed, all together, until each has ended. The order of the result is that of the seeds.

  An episode whose prompt, reset, step or reward fails is closed with its trouble, and the others go on.
  any_process: from whether an episode goes on in this process to whether one does in any; processes call it, and the
  policy, equally often.
  """
  started = time.perf_counter()
  count = len(seeds)
  states, chats = [None] * count, [None] * count
  turns: list[list[Turn]] = [[] for _ in seeds]
  earlier, rows, row_turns, bounds = [()] * count, [1] * count, [0] * count, rewriting(env)
  truncated, troubles = [False] * count, [None] * count
  for i, seed in enumerate(seeds):
    begun, troubles[i] = _attempt(env, "reset", judging.seconds, seed)
    states[i], chats[i] = begun or (None, None)
  verify, rollout = time.perf_counter() - started, 0.0
  live, kept, memory = list(range(count)), None, None
  while any_process(bool(live)):
    mark = time.perf_counter()
    responses, memory = policy([chats[i] for i in live], kept, memory)
    rollout += time.perf_counter() - mark
    mark = time.perf_counter()
    going_on = []
    for place, (i, response) in enumerate(zip(live, responses, strict=True)):
      if response.refused:
        truncated[i], troubles[i] = True, troubles[i] or response.refused
        continue
      judged, trouble = _attempt(env, "step", judging.seconds, states[i], response.text)
      troubles[i] = troubles[i] or trouble
      if judged is None or (trouble is not None and not judging.keep_unrewarded):
        continue
      states[i], verdict = judged
      row_turns[i] += 1
      anew = bounds and verdict.chat is not None and not continues(chats[i], response.text, verdict.chat)
      beyond = None if verdict.chat is None else _beyond(
          env, bounds, len(turns[i]) + 1, rows[i] + 1 if anew else 0, row_turns[i])
      if beyond:
        verdict, troubles[i] = dataclasses.replace(verdict, truncated=True, chat=None), troubles[i] or beyond
      turns[i].append(Turn(response, verdict))
      truncated[i] = verdict.truncated
      if anew and not beyond:
        earlier[i] += (*chats[i], Message("assistant", response.text))
        rows[i], row_turns[i] = rows[i] + 1, 0
      chats[i] = verdict.chat or whole_chat(chats[i], response.text, verdict.feedback)
      if verdict.chat is not None:
        going_on.append((i, place))
    live, kept = [i for i, _ in going_on], [place for _, place in going_on]
    verify += time.perf_counter() - mark
  episodes = [_closed(Episode(seed, tuple(turns[i]), chats[i] or (), truncated[i], troubles[i], earlier[i]), judging)
              for i, seed in enumerate(seeds)]
  return episodes, Clock(rollout, verify)


def _attempt(env: Env, method: str, seconds: float, *arguments) -> tuple[tuple | None, Trouble | None]:
  """(what the method returns, None), or (what is known all the same or None, the trouble)."""
  try:
    with time_limit(seconds):
      return getattr(env, method)(*arguments), None
  except EpisodeError as error:
    return error.after, Trouble(f"{DROPPED}{error.kind}", str(error))
  except OutOfTime as error:   # between two lines of the user's own
    return None, Trouble(f"{DROPPED}env", f"{location(env, method)}: {describe(error)}")


def _beyond(env: Env, bounds: Rewriting | None, responses: int, begun: int, row_turns: int) -> Trouble | None:
  """Why an episode that would go on ends here, or None.

  responses, row_turns: given so far, in the episode and in its last chat
  begun: the number of the chat that would begin; 0 where the last one goes on
  """
  if responses >= env.attempts:
    kind, text = "cut/attempts", (
        f"an episode goes on after {env.attempts} responses, which is `attempts`. Let step end it there, or let "
        "`attempts` be larger.")
  elif bounds and begun > bounds.rows:
    kind, text = "cut/rows", (
        f"an episode begins another chat after {bounds.rows}, which is `most_rows`. Let step end it there, or let "
        "`most_rows` be larger.")
  elif bounds and not begun and row_turns >= bounds.row_attempts:
    kind, text = "cut/rows", (
        f"a chat goes on after {bounds.row_attempts} responses, which is `row_attempts`. Let step begin another one "
        "there, or let `row_attempts` be larger.")
  else:
    return None
  return Trouble(kind, f"{location(env, 'step')}: {text}")


def _closed(episode: Episode, judging: Judging) -> Episode:
  """The episode without its turns where it is left out."""
  if not episode.dropped or (judging.keep_unrewarded and episode.turns):
    return episode
  return dataclasses.replace(episode, turns=(), truncated=False)


def whole_chat(chat: Chat, response: str, feedback: str) -> Chat:
  """The chat with the last response and the feedback on it."""
  messages = (Message("user", feedback),) if feedback else ()
  return (*chat, Message("assistant", response), *messages)
