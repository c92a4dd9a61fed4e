"""Episodes to counts: who succeeded, by which attempt, and how the first attempts failed."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from sftrl_jax.rollout.episodes import Episode


@dataclasses.dataclass(frozen=True)
class Tally:
  """Counts of a set of episodes, in the order of their seeds."""

  episodes: int
  successes: int
  outcomes: str  # a character an episode: the attempt that was right, "0" for none
  codes: dict[str, int]  # verdicts of first attempts
  reward: float  # mean of the sum of rewards, over episodes that have them all
  response_tokens: int
  responses: int
  stopped: int  # responses that ended by themselves

  @property
  def success(self) -> float:
    return self.successes / max(1, self.episodes)

  @property
  def first_success(self) -> float:
    return self.outcomes.count("1") / max(1, self.episodes)


def tally(episodes: Sequence[Episode], codes: Sequence[str] = ()) -> Tally:
  """The counts of episodes. codes: verdict codes that are counted even when they do not occur."""
  outcomes, first = [], Counter(dict.fromkeys(codes, 0))
  tokens = responses = stopped = unrewarded = 0
  reward = 0.0
  for episode in episodes:
    outcomes.append(_digit(len(episode.turns)) if episode.success else "0")
    if episode.turns:
      first[episode.turns[0].verdict.code] += 1
    if None in episode.rewards:
      unrewarded += 1
    else:
      reward += sum(episode.rewards)
    for turn in episode.turns:
      tokens, responses, stopped = tokens + len(turn.response.tokens), responses + 1, stopped + turn.response.stopped
  joined = "".join(outcomes)
  return Tally(len(episodes), len(joined) - joined.count("0"), joined, dict(first),
               reward / max(1, len(episodes) - unrewarded), tokens, responses, stopped)


def _digit(attempt: int) -> str:
  """Attempts past 9 are written a, b, ...: one character an episode."""
  return "0123456789abcdefghijklmnopqrstuvwxyz"[min(attempt, 35)]


def wilson(successes: int, episodes: int) -> list[float]:
  """The 95% score interval of a rate (Wilson 1927): inside [0, 1] and never empty, unlike the normal one."""
  if not episodes:
    return [0.0, 1.0]
  from scipy import stats  # a second to import: not before the first evaluation
  interval = stats.binomtest(successes, episodes).proportion_ci(confidence_level=0.95, method="wilson")
  return [float(interval.low), float(interval.high)]
