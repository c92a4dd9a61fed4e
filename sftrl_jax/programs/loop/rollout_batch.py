"""The episodes of one iteration of RL: rounds of play until the batch is full of what can be learned from."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from sftrl_jax.envs.referee import LARGEST
from sftrl_jax.objectives.groups import GroupConfig
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop import left_out
from sftrl_jax.rollout.actor import Cost
from sftrl_jax.rollout.episodes import Clock, Episode
from sftrl_jax.rollout.exchange import PlayContext, begin_together, begun_together


@dataclasses.dataclass(frozen=True)
class RolloutBatch:
  """What an iteration learns from, and what it cost to get.

  episodes: as many as config.batch, groups standing together; the last `padding_episodes` of them only fill the batch,
    and those that are left out have no turns
  all_episodes: all that were played, learned from or not
  cursor: the number of the next iteration's first episode
  clock: seconds of the rollouts and of their verification
  weight_sync_seconds: how long the weights took to where decoding reads them
  rollout_costs: the Cost of every turn
  rounds, dropped: how often episodes were played, and how many groups were dropped
  """

  episodes: list[Episode]
  all_episodes: list[Episode]
  cursor: int
  clock: Clock
  weight_sync_seconds: float
  rollout_costs: list[Cost]
  rounds: int
  dropped: int
  padding_episodes: int


def play_batch(experiment: Experiment, params: dict, first: int,
               pause: Callable[[], None] = lambda: None) -> RolloutBatch:
  """Episodes from number `first` on: their seeds and random numbers follow from their numbers alone.

  With one round, they are the batch. With more (dynamic sampling, Yu et al. 2025), groups whose episodes all fare alike
  are dropped, and others are played in their stead, as many at once as are decoded together; an iteration goes on
  where the last one looked last. After the last round dropped groups fill what is missing, from the first one on.
  pause: called before every turn of conversations.
  """
  actor, section, wanted = experiment.actor, _section(experiment), experiment.batch // experiment.actor.group
  most = section.max_rounds if section else 1
  began, key = time.perf_counter(), jax.random.key(experiment.seed)
  decoding = jax.block_until_ready(actor.compiled.to_decoding(params["model"]))
  weight_sync_seconds = time.perf_counter() - began
  kept, dropped, all_episodes, rollout_costs, clock, number, played = [], [], [], [], Clock(0.0, 0.0), first, 0
  while len(kept) < wanted and played < most:
    rows, missing = actor.rollout.rows, (wanted - len(kept)) * actor.group
    asked = -(-missing // rows) * rows if played else missing
    episodes, took = _play(experiment, decoding, key, number, asked, rollout_costs, pause)
    clock, played = Clock(clock.rollout + took.rollout, clock.verify + took.verify), played + 1
    all_episodes += episodes
    for group in in_groups(episodes, actor.group):
      if len(kept) < wanted:
        number += actor.group
        (dropped if most > 1 and has_equal_rewards(group, section.filter_by) else kept).append(group)
  missing = wanted - len(kept)
  chosen = [episode for group in (*kept, *dropped[:missing]) for episode in group]
  return RolloutBatch(chosen, all_episodes, number, clock, weight_sync_seconds, rollout_costs, played,
                      len(dropped), missing * actor.group)


def in_groups(episodes: Sequence, group: int) -> list:
  return [episodes[start : start + group] for start in range(0, len(episodes), group)]


def has_equal_rewards(group: Sequence[Episode], by: str) -> bool:
  """Whether nothing tells the episodes of a group apart, those that are left out aside: not their success, or not the
  environment's own reward.

  Rewards with a method's own penalties in them would let groups pass that are all wrong, and teach them length alone.
  """
  outcomes = {episode.success if by == "success" else round(float(sum(episode.rewards)), 6) for episode in group
              if not episode.dropped}
  return len(outcomes) <= 1


def group_metrics(experiment: Experiment, played: RolloutBatch, outcomes: Any) -> dict[str, float]:
  """Of groups, under TRL's names: the mean of their standard deviations, and the share of them without an advantage.

  outcomes: rollout.collect.Outcomes of a method that has groups; {} for one that has none.
  """
  group, section = experiment.actor.group, _section(experiment)
  if section is None:
    return {}
  rewards_QG = np.asarray(outcomes.rewards_E, np.float64).reshape(-1, group)
  present_QG = np.asarray([not episode.dropped for episode in played.episodes]).reshape(-1, group)
  there = [rewards_G[present_G] for rewards_G, present_G in zip(rewards_QG, present_QG, strict=True)]
  alike_Q = np.asarray([rewards.size < 2 or rewards.max() == rewards.min() for rewards in there])
  alike_Q |= outcomes.has_advantage_E.reshape(-1, group).max(axis=1) == 0
  spreads = [rewards.std(ddof=1) for rewards in there if rewards.size > 1]
  metrics = {"reward_std": float(np.mean(spreads or [0.0])), "frac_reward_zero_std": float(alike_Q.mean())}
  if section.max_rounds > 1:
    metrics |= {"groups/rounds": float(played.rounds), "groups/dropped": float(played.dropped),
                "groups/filled": float(played.padding_episodes // group)}
  return metrics


def env_seed(experiment: Experiment, number: int) -> str:
  """The environment's seed of an episode: that of its group."""
  return f"{experiment.seed} {number // experiment.actor.group}"


def _section(experiment: Experiment) -> GroupConfig | None:
  section = experiment.algorithm_config
  return section if isinstance(section, GroupConfig) else None


def _play(experiment: Experiment, decoding: Any, key: jax.Array, first: int, count: int, rollout_costs: list[Cost],
          pause: Callable[[], None]) -> tuple[list[Episode], Clock]:
  """(episodes, Clock) of so many numbers from `first` on, `rollout.rows` together or, with refill, all.

  In a pool, the last verdicts of those that were decoded together come while the next ones are decoded.
  """
  actor, played, clocks, begun = experiment.actor, [], [], []

  def collect() -> None:
    episodes, clock = begun.pop(0)()
    played.extend(episodes)
    clocks.append(clock)

  context = PlayContext(experiment.env, actor, decoding, key, actor.rollout.temperature, actor.group, rollout_costs,
                        pause, left_out.judging(experiment))
  for places in begun_together(actor, count):
    numbers = range(first + places.start, first + places.stop)
    begun.append(begin_together(context, numbers, [env_seed(experiment, number) for number in numbers]))
    if len(begun) > 1:
      collect()
  collect()
  for episode in played:
    for reward in episode.rewards:
      if reward is None or not abs(reward) <= LARGEST:
        raise ValueError(f"The environment gave the reward {reward!r} in episode {episode.seed!r}; it must be a finite "
                         f"number, at most {LARGEST:g} from 0.")
  return played, Clock(sum(clock.rollout for clock in clocks), sum(clock.verify for clock in clocks))
