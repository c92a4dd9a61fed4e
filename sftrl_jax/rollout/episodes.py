"""The conversation with the environment: one loop for training and for evaluation."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sftrl_jax.chat import Chat, Message, continues, whole_chat
from sftrl_jax.envs.env import Env, Rewriting, Verdict, rewriting, thread_safe
from sftrl_jax.envs.guard import OutOfTime, describe
from sftrl_jax.envs.referee import EpisodeError, location
from sftrl_jax.envs.verdict_pool import Outcome, VerdictPool

DROPPED = "dropped/"   # begins the kinds of trouble for which an episode is left out


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
  """What spoiled an episode, or cut it.

  kind: the metric that counts it. dropped/prompt: the prompt does not fit, or has no ids; dropped/env: reset or step
    failed; dropped/reward: there is no reward; dropped/demonstration: a teacher has none to read, or it does not fit;
    cut/feedback: a message does not fit; cut/prompt: a later prompt does not fit; cut/attempts: the episode would have
    gone on beyond `attempts`; cut/rows: beyond `most_rows`, or a chat beyond `row_attempts`
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
  images: arrays, the pictures in its context as the model reads them"""

  text: str
  context: tuple[int, ...] = ()
  tokens: tuple[int, ...] = ()
  logprobs: tuple[float, ...] = ()
  stopped: bool = True
  refused: Trouble | None = None
  begins_row: bool = False
  images: tuple = dataclasses.field(default=(), compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
  """A response and the environment's verdict on it.

  gold: the environment's own reward, where a scorer's has taken its place in the verdict (rollout/scoring.py)
  """

  response: Response
  verdict: Verdict
  gold: float | None = None


@dataclasses.dataclass(frozen=True)
class Episode:
  """One episode: its seed, its turns, and the whole chat, the last feedback included.

  trouble: None for nearly all; an episode that is left out for it has no turns
  earlier: the messages of the chats before the last one, where the environment rewrites its prompt
  asked: how many messages its first chat had before the first response
  columns: what the environment's `columns` gave of the first state; {} where it has none
  prefixes: of each of its rows, what a teacher reads before it, as text.render.preceding gives it; () for nothing
  """

  seed: int | str
  turns: tuple[Turn, ...]
  chat: Chat
  truncated: bool
  trouble: Trouble | None = None
  earlier: Chat = ()
  asked: int = 0
  columns: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
  prefixes: tuple[tuple[list[int], int], ...] = ()

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


# (places of responses among the chats that are answered, the responses): they have ended, while others have not
Ended = Callable[[Sequence[int], Sequence[Response]], None]
# (chats to answer, None for one that never began; their indices among the last call's chats or None; memory; Ended,
# which a policy may call, at most once a response) -> (responses, memory)
Policy = Callable[[Sequence[Chat | None], Sequence[int] | None, Any, Ended], tuple[list[Response], Any]]


def scripted(answer: Callable[[Chat], str]) -> Policy:
  """A policy from a function of a chat: for tests, experts and baselines."""
  return lambda chats, kept, memory, ended: ([Response(answer(chat)) for chat in chats], memory)


@dataclasses.dataclass(frozen=True)
class Clock:
  """Seconds spent in the policy, and waiting for the environment."""

  rollout: float
  verify: float


@dataclasses.dataclass(frozen=True)
class Judging:
  """How `play` treats the environment.

  seconds: that one call of reset or step may take (0: any)
  keep_unrewarded: an episode without a reward goes on, its reward None, because only its success is measured
  pool: in which an environment that is thread-safe is called; by default all calls are one after another
  """

  seconds: float = 0.0
  keep_unrewarded: bool = False
  pool: VerdictPool = dataclasses.field(default_factory=VerdictPool, compare=False)


JUDGING = Judging()


@dataclasses.dataclass(slots=True)
class _Game:
  """An episode that is being played, as in Episode. rows: chats so far; row_turns: responses in the last of them."""

  seed: int | str
  state: Any = None
  chat: Chat | None = None
  turns: list[Turn] = dataclasses.field(default_factory=list)
  truncated: bool = False
  trouble: Trouble | None = None
  earlier: Chat = ()
  rows: int = 1
  row_turns: int = 0
  asked: int = 0
  columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def play(env: Env, policy: Policy, seeds: Sequence[int | str], any_process: Callable[[bool], bool] = bool,
         judging: Judging = JUDGING) -> tuple[list[Episode], Clock]:
  """Plays one episode a seed, all together, until each has ended. The order of the result is that of the seeds.

  An episode whose prompt, reset, step or reward fails is closed with its trouble, and the others go on.
  any_process: from whether an episode goes on in this process to whether one does in any; processes call it, and the
  policy, equally often.
  """
  return begin(env, policy, seeds, any_process, judging)()


def begin(env: Env, policy: Policy, seeds: Sequence[int | str], any_process: Callable[[bool], bool] = bool,
          judging: Judging = JUDGING) -> Callable[[], tuple[list[Episode], Clock]]:
  """`play` up to the last verdicts: returns the function that waits for them, and returns what `play` does.

  In a pool, verdicts on the responses that have ended come while the policy goes on with others. After `attempts`
  responses no episode goes on, whatever the verdicts on the last of them are: the policy is free, and these verdicts
  come while it answers others.
  """
  mark, rollout = time.perf_counter(), 0.0
  games = Games(env, seeds, judging)
  verify = time.perf_counter() - mark
  live, kept, memory, turn, last = list(range(len(seeds))), None, None, 0, list
  while any_process(bool(live)):
    mark, turn = time.perf_counter(), turn + 1
    responses, memory, judge = _answered(games, policy, live, kept, memory)
    rollout += time.perf_counter() - mark
    mark = time.perf_counter()
    wait, going_on = judge(responses), set()
    if turn == env.attempts:
      last = wait
    else:
      going_on = {*wait()}
    kept = [place for place, number in enumerate(live) if number in going_on]
    live = [live[place] for place in kept]
    verify += time.perf_counter() - mark

  def end() -> tuple[list[Episode], Clock]:
    mark = time.perf_counter()
    last()
    return games.closed(), Clock(rollout, verify + time.perf_counter() - mark)

  return end


def _answered(games: "Games", policy: Policy, live: Sequence[int], kept: Sequence[int] | None, memory: Any
              ) -> tuple[list[Response], Any, Callable[[list[Response]], Callable[[], list[int]]]]:
  """(responses, memory, the function that begins the verdicts on responses which have none yet, and returns that which
  waits for all of them) of one call of the policy. live: numbers of the episodes whose chats are answered."""
  waits, early = [], set()

  def ended(places: Sequence[int], responses: Sequence[Response]) -> None:
    if games.overlap:
      early.update(places)
      waits.append(games.judge([live[place] for place in places], responses))

  def judge(responses: list[Response]) -> Callable[[], list[int]]:
    rest = [(live[place], response) for place, response in enumerate(responses) if place not in early]
    waits.append(games.judge(*zip(*rest, strict=True)) if rest else list)
    return lambda: [number for wait in waits for number in wait()]

  responses, memory = policy([games.chat(number) for number in live], kept, memory, ended)
  if len(responses) != len(live):
    raise ValueError(f"A policy gave {len(responses)} responses to {len(live)} chats.")
  return responses, memory, judge


class Games:
  """Episodes that are being played, by their number: where each stands, and the verdicts on its responses.

  overlap: whether verdicts come in threads while others are awaited
  """

  def __init__(self, env: Env, seeds: Sequence[int | str], judging: Judging):
    self._env, self._judging, self._bounds, self._at_once = env, judging, rewriting(env), thread_safe(env)
    self.overlap = self._at_once and judging.pool.workers > 1
    self._games = [_Game(seed) for seed in seeds]
    for game, (begun, trouble) in zip(self._games, self._start("reset", [(seed,) for seed in seeds])(), strict=True):
      game.state, game.chat = begun or (None, None)
      game.trouble, game.asked = trouble, len(game.chat or ())
      game.columns = env.columns(game.state) if begun and hasattr(env, "columns") else {}

  def chat(self, number: int) -> Chat | None:
    """What an episode's next response answers; None where reset gave none."""
    return self._games[number].chat

  def judge(self, numbers: Sequence[int], responses: Sequence[Response]) -> Callable[[], list[int]]:
    """Begins the verdicts on responses: returns the function that waits for them, takes them into the episodes, and
    returns the numbers of those that go on. A refused response is not judged and ends its episode, truncated."""
    judged = []
    for number, response in zip(numbers, responses, strict=True):
      game = self._games[number]
      if response.refused:
        game.truncated, game.trouble = True, game.trouble or response.refused
      else:
        judged.append((number, game, response))
    wait = self._start("step", [(game.state, response.text) for _, game, response in judged])
    return lambda: [number for (number, game, response), outcome in zip(judged, wait(), strict=True)
                    if _goes_on(self._env, self._bounds, self._judging, game, response, *outcome)]

  def closed(self) -> list[Episode]:
    """All episodes, in their order."""
    return [_closed(game, self._judging) for game in self._games]

  def _start(self, method: str, arguments: Sequence[tuple]) -> Callable[[], list[tuple]]:
    calls = [functools.partial(getattr(self._env, method), *each) for each in arguments]
    wait = self._judging.pool.start(method, calls, self._judging.seconds, self._at_once)
    return lambda: [_attempted(self._env, method, outcome) for outcome in wait()]


def _goes_on(env: Env, bounds: Rewriting | None, judging: Judging, game: _Game, response: Response,
             judged: tuple[Any, Verdict] | None, trouble: Trouble | None) -> bool:
  """Takes the verdict on a response into its game, and returns whether another response follows."""
  game.trouble = game.trouble or trouble
  if judged is None or (trouble is not None and not judging.keep_unrewarded):
    return False
  game.state, verdict = judged
  game.row_turns += 1
  anew = bounds and verdict.chat is not None and not continues(game.chat, response.text, verdict.chat)
  beyond = None if verdict.chat is None else _beyond(
      env, bounds, len(game.turns) + 1, game.rows + 1 if anew else 0, game.row_turns)
  if beyond:
    verdict, game.trouble = dataclasses.replace(verdict, truncated=True, chat=None), game.trouble or beyond
  game.turns.append(Turn(response, verdict))
  game.truncated = verdict.truncated
  if anew and not beyond:
    game.earlier += (*game.chat, Message("assistant", response.text))
    game.rows, game.row_turns = game.rows + 1, 0
  game.chat = verdict.chat or whole_chat(game.chat, response.text, verdict.feedback)
  return verdict.chat is not None


def _attempted(env: Env, method: str, outcome: Outcome) -> tuple[tuple | None, Trouble | None]:
  """(what the method returned, None), or (what is known all the same or None, the trouble)."""
  try:
    return outcome.get(), None
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


def _closed(game: _Game, judging: Judging) -> Episode:
  """The episode, without its turns where it is left out."""
  episode = Episode(game.seed, tuple(game.turns), game.chat or (), game.truncated, game.trouble, game.earlier,
                    game.asked, game.columns)
  if not episode.dropped or (judging.keep_unrewarded and episode.turns):
    return episode
  return dataclasses.replace(episode, turns=(), truncated=False)
