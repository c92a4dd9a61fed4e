"""Episodes to counts: who succeeded, by which attempt, how many responses were right, and how they failed."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from sftrl_jax.envs.env import EPISODES, Counting
from sftrl_jax.rollout.episodes import Episode, Turn


@dataclasses.dataclass(frozen=True)
class Tally:
  """Counts of a set of episodes, in the order of their seeds.

  A point is where a task of many points asks for one response until that is right; with `attempts_of="episode"` an
  episode is one point. Only points at which there was a response are counted.
  """

  episodes: int
  successes: int
  outcomes: str  # a character an episode: the most attempts that a point of it took, "0" where it is not solved
  codes: dict[str, int]  # verdicts of first responses
  reward: float  # mean of the sum of rewards, over episodes that have them all
  response_tokens: int
  responses: int
  stopped: int  # responses that ended by themselves
  points: int
  first_right: int  # points whose first response was right
  legal: int  # responses whose form is valid
  all_codes: dict[str, int]  # verdicts of all responses
  episode_right: tuple[int, ...]  # right responses of every episode
  episode_responses: tuple[int, ...]  # responses of every episode
  first_parts: dict[str, str]  # {part of the verdict: "1" an episode whose first response has it right, else "0"}
  all_parts: dict[str, tuple[int, int]]  # {part: (responses that have it right, those that have it)}
  episode_parts: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # the same of every episode

  @property
  def success(self) -> float:
    return self.successes / max(1, self.episodes)

  @property
  def first_success(self) -> float:
    return self.outcomes.count("1") / max(1, self.episodes)

  @property
  def right(self) -> int:
    return sum(self.episode_right)

  @property
  def per_step(self) -> float:
    """The share of right responses: the paper's per-step accuracy (2501.17161), where a retry is a step of its own."""
    return self.right / max(1, self.responses)


def tally(episodes: Sequence[Episode], codes: Sequence[str] = (), counting: Counting = EPISODES) -> Tally:
  """The counts of episodes. codes: verdict codes that are counted even when they do not occur."""
  points = [points_of(episode, counting.attempts_of) for episode in episodes]
  outcomes = "".join(_digit(max(map(len, tried))) if episode.success else "0"
                     for episode, tried in zip(episodes, points, strict=True))
  turns = [turn for episode in episodes for turn in episode.turns]
  rewards, unrewarded = 0.0, 0
  for episode in episodes:
    if None in episode.rewards:
      unrewarded += 1
    else:
      rewards += sum(episode.rewards)
  return Tally(
      episodes=len(episodes), successes=len(outcomes) - outcomes.count("0"), outcomes=outcomes,
      codes=_counted((episode.turns[0] for episode in episodes if episode.turns), codes),
      reward=rewards / max(1, len(episodes) - unrewarded),
      response_tokens=sum(len(turn.response.tokens) for turn in turns), responses=len(turns),
      stopped=sum(turn.response.stopped for turn in turns), points=sum(map(len, points)),
      first_right=sum(tried[0].verdict.correct for of_episode in points for tried in of_episode),
      legal=sum(turn.verdict.code not in counting.illegal_codes for turn in turns), all_codes=_counted(turns, codes),
      episode_right=tuple(sum(turn.verdict.correct for turn in episode.turns) for episode in episodes),
      episode_responses=tuple(len(episode.turns) for episode in episodes), first_parts=_first_parts(episodes),
      all_parts=count_parts(turns), episode_parts=_episode_parts(episodes))


def _first_parts(episodes: Sequence[Episode]) -> dict[str, str]:
  """{} where no verdict has parts."""
  parts = [(episode.turns[0].verdict.parts or {}) if episode.turns else {} for episode in episodes]
  names = dict.fromkeys(name for of_episode in parts for name in of_episode)
  return {name: "".join("01"[bool(of_episode.get(name))] for of_episode in parts) for name in names}


def _episode_parts(episodes: Sequence[Episode]) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
  counts = [count_parts(episode.turns) for episode in episodes]
  names = dict.fromkeys(name for of_episode in counts for name in of_episode)
  return {name: tuple(zip(*(of_episode.get(name, (0, 0)) for of_episode in counts), strict=True)) for name in names}


def count_parts(turns: Iterable[Turn]) -> dict[str, tuple[int, int]]:
  """{part of the verdict: (responses that have it right, those that have it)}; {} where no verdict has parts."""
  right, counts = Counter(), Counter()
  for turn in turns:
    for name, is_right in (turn.verdict.parts or {}).items():
      right[name] += bool(is_right)
      counts[name] += 1
  return {name: (right[name], count) for name, count in counts.items()}


def points_of(episode: Episode, attempts_of: str) -> list[list[Turn]]:
  """The turns of every point of an episode; a right response closes its point where `attempts_of` is "point"."""
  points: list[list[Turn]] = [[]]
  for turn in episode.turns:
    points[-1].append(turn)
    if turn.verdict.correct and attempts_of == "point":
      points.append([])
  return [tried for tried in points if tried]


def _counted(turns: Iterable[Turn], codes: Sequence[str]) -> dict[str, int]:
  counts = Counter(dict.fromkeys(codes, 0))
  counts.update(turn.verdict.code for turn in turns)
  return dict(counts)


def _digit(attempt: int) -> str:
  """Attempts past 9 are written a, b, ...: one character an episode."""
  return "0123456789abcdefghijklmnopqrstuvwxyz"[min(attempt, 35)]


def pass_at(samples: Sequence[Sequence[Episode]]) -> dict[str, float]:
  """{"1": pass@1, "2": pass@2, "4": ...} up to the number n of samples: the chance that one of k samples is right.

  The mean over seeds of 1 - C(n - c, k) / C(n, k), c of n samples being right: unbiased (Chen et al. 2021, eq. 1).
  samples: n lists of episodes of the same seeds.
  """
  n, right = len(samples), [sum(episode.success for episode in of_seed) for of_seed in zip(*samples, strict=True)]
  return {str(k): math.fsum(1 - math.comb(n - c, k) / math.comb(n, k) for c in right) / max(1, len(right))
          for k in sorted({n, *(2**power for power in range(n.bit_length()))})}


def distinct(samples: Sequence[Sequence[Episode]]) -> float:
  """The mean over seeds of how many different last responses solved it. samples: as for `pass_at`."""
  solutions = [len({episode.turns[-1].response.text for episode in of_seed if episode.success})
               for of_seed in zip(*samples, strict=True)]
  return sum(solutions) / max(1, len(solutions))


def read_tokens(episodes: Sequence[Episode]) -> int:
  """Tokens that one pass over the rows of these episodes reads, padding apart; the last id is only a target."""
  lengths = [sum(len(turn.response.context) + len(turn.response.tokens) for turn in episode.turns)
             for episode in episodes]
  return sum(max(0, length - 1) for length in lengths)


def buffer_tokens(episodes: Sequence[Episode]) -> float:
  """D_buffer = E d_i d_o of the paper's account of a rollout (2501.17161, appendix C.3): tokens read by decoding
  without a cache. E is the number of responses, d_i the mean length of what was read before one, d_o of a response."""
  read, written = [], []
  for episode in episodes:
    so_far = 0
    for turn in episode.turns:
      read.append(so_far + len(turn.response.context))
      written.append(len(turn.response.tokens))
      so_far = read[-1] + written[-1]
  return sum(read) * sum(written) / max(1, len(read))


def wilson(successes: int, episodes: int) -> list[float]:
  """The 95% score interval of a rate (Wilson 1927): inside [0, 1] and never empty, unlike the normal one."""
  if not episodes:
    return [0.0, 1.0]
  from scipy import stats  # a second to import: not before the first evaluation
  interval = stats.binomtest(successes, episodes).proportion_ci(confidence_level=0.95, method="wilson")
  return [float(interval.low), float(interval.high)]
