"""Rewards that come after the play: the responses of many episodes scored together, by a reward model or a function.

An environment's own reward, where it gave one, stays beside as the gold reward: what the scorer stands for.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sftrl_jax.rollout.episodes import DROPPED, Episode, Trouble

UNREWARDED = f"{DROPPED}reward"


@dataclasses.dataclass(frozen=True)
class Scored:
  """What a scorer says of episodes.

  rewards: of every episode in order, of each of its turns; None where the scorer abstains
  flops: of scoring them
  numbers: metrics of the scoring, floats or metrics.Mean
  reasons: {place of an episode: why a turn of it has no reward}, for who mends it
  """

  rewards: list[list[float | None]]
  flops: float = 0.0
  numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  reasons: Mapping[int, str] = dataclasses.field(default_factory=dict)


# All processes call a scorer with the same episodes, those that are left out (without a turn) among them, and it
# returns the same in all of them.
Scorer = Callable[[Sequence[Episode]], Scored]


def with_rewards(episodes: Sequence[Episode], scored: Scored) -> list[Episode]:
  """The episodes with the scorer's rewards in their verdicts, and the environment's own as `gold` of their turns.

  An episode of which a turn has no reward is left out (dropped/reward), as one without an environment's reward is; one
  that was left out before stays so. ValueError where the numbers of episodes or turns differ.
  """
  if len(scored.rewards) != len(episodes):
    raise ValueError(f"The scorer gave rewards of {len(scored.rewards)} episodes, but {len(episodes)} were played.")
  return [_rewarded(episode, rewards, scored.reasons.get(place, ""))
          for place, (episode, rewards) in enumerate(zip(episodes, scored.rewards, strict=True))]


def _rewarded(episode: Episode, rewards: Sequence[float | None], reason: str) -> Episode:
  if len(rewards) != len(episode.turns):
    raise ValueError(f"The scorer gave {len(rewards)} rewards of episode {episode.seed!r}, which has "
                     f"{len(episode.turns)} responses.")
  if None in rewards:
    trouble = Trouble(UNREWARDED, reason or f"Response {rewards.index(None) + 1} of episode {episode.seed!r} has no "
                      "reward: its scorer abstains.")
    return dataclasses.replace(episode, turns=(), truncated=False, trouble=trouble)
  turns = tuple(dataclasses.replace(turn, verdict=dataclasses.replace(turn.verdict, reward=reward),
                                    gold=turn.verdict.reward)
                for turn, reward in zip(episode.turns, rewards, strict=True))
  return dataclasses.replace(episode, turns=turns)


def gold_of(episodes: Sequence[Episode]) -> float | None:
  """The mean over episodes of the sum of their gold rewards; None where no episode has them all."""
  sums = [sum(turn.gold for turn in episode.turns) for episode in episodes
          if episode.turns and all(turn.gold is not None for turn in episode.turns)]
  return sum(sums) / len(sums) if sums else None
