"""The episodes of one iteration of RL: rounds of play until the batch is full of what can be learned from."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from sftrl_jax.envs.referee import LARGEST
from sftrl_jax.metrics import merge_host
from sftrl_jax.objectives.groups import GroupConfig
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop import left_out
from sftrl_jax.rollout.actor import Cost
from sftrl_jax.rollout.episodes import Clock, Episode
from sftrl_jax.rollout.exchange import PlayContext, begin_together, begun_together
from sftrl_jax.rollout.imitated import with_demonstrations
from sftrl_jax.rollout.scoring import Scored, Scorer, with_rewards


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
  scored: what a scorer said of the episodes of every round; () where rewards are the environment's own
  score_seconds: how long that took
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
  scored: tuple[Scored, ...] = ()
  score_seconds: float = 0.0

  @property
  def score_flops(self) -> float:
    """Of the scorer."""
    return sum(scored.flops for scored in self.scored)

  @property
  def score_numbers(self) -> dict[str, Any]:
    """Metrics of the scorer, over all rounds."""
    names = dict.fromkeys(name for scored in self.scored for name in scored.numbers)
    return {name: merge_host([scored.numbers[name] for scored in self.scored if name in scored.numbers])
            for name in names}


def play_batch(experiment: Experiment, params: dict, first: int,
               pause: Callable[[], None] = lambda: None, scorer: Scorer | None = None) -> RolloutBatch:
  """Episodes from number `first` on: their seeds and random numbers follow from their numbers alone.

  With one round, they are the batch. With more (dynamic sampling, Yu et al. 2025), groups whose episodes all fare alike
  are dropped, and others are played in their stead, as many at once as are decoded together; an iteration goes on
  where the last one looked last. After the last round dropped groups fill what is missing, from the first one on.
  pause: called before every turn of conversations.
  scorer: gives the rewards of every round's episodes, before any of them is dropped; None: they are the environment's
  """
  actor, section, wanted = experiment.actor, _section(experiment), experiment.batch // experiment.actor.group
  most = section.max_rounds if section else 1
  began, key = time.perf_counter(), jax.random.key(experiment.seed)
  decoding = jax.block_until_ready(actor.compiled.to_decoding(params["model"]))
  weight_sync_seconds = time.perf_counter() - began
  kept, dropped, all_episodes, rollout_costs, clock, number, played = [], [], [], [], Clock(0.0, 0.0), first, 0
  scored, score_seconds = [], 0.0
  while len(kept) < wanted and played < most:
    rows, missing = actor.rollout.rows, (wanted - len(kept)) * actor.group
    asked = -(-missing // rows) * rows if played else missing
    episodes, took = _play(experiment, decoding, key, number, asked, rollout_costs, pause)
    clock, played = Clock(clock.rollout + took.rollout, clock.verify + took.verify), played + 1
    if scorer is not None:
      began = time.perf_counter()
      scored.append(scorer(episodes))
      episodes = with_rewards(episodes, scored[-1])
      score_seconds += time.perf_counter() - began
    if experiment.prefix_tokens:
      began = time.perf_counter()
      episodes = with_demonstrations(experiment.env, experiment.tokenizer, experiment.prefix_tokens, episodes)
      clock = Clock(clock.rollout, clock.verify + time.perf_counter() - began)
    _refuse_rewards(episodes, "environment" if scorer is None else "scorer")
    all_episodes += episodes
    for group in in_groups(episodes, actor.group):
      if len(kept) < wanted:
        number += actor.group
        (dropped if most > 1 and has_equal_rewards(group, section.filter_by) else kept).append(group)
  missing = wanted - len(kept)
  chosen = [episode for group in (*kept, *dropped[:missing]) for episode in group]
  return RolloutBatch(chosen, all_episodes, number, clock, weight_sync_seconds, rollout_costs, played,
                      len(dropped), missing * actor.group, tuple(scored), score_seconds)


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


def sampler_gap(experiment: Experiment, sampled_BT: np.ndarray, trained_BT: np.ndarray, mask_BT: np.ndarray
                ) -> dict[str, float]:
  """|log pi by the training graph - by the sampler| over the tokens that are learned from. ConfigError where it is not
  0 although compute.exact promises it."""
  gaps = np.abs(trained_BT - sampled_BT)[mask_BT > 0]
  differ = np.count_nonzero(gaps > 0)   # a step that is not finite has its own metric
  if experiment.compute.exact and differ:
    raise ConfigError(f"config.compute.exact is True, but {differ} of {gaps.size} log-probabilities of the sampler "
                      f"differ from the trainer's, by at most {np.nanmax(gaps):.2g}: on this machine XLA does "
                      "not compute alike what is written alike. Please report it; use --config.compute.exact=False.")
  name = "sampling/sampling_logp_difference/"
  gaps = gaps if gaps.size else np.zeros(1)
  measured = {"mean": gaps.mean(), "p99": np.quantile(gaps, 0.99), "max": gaps.max()}
  return {name + kind: float(value) for kind, value in measured.items()}


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
  return played, Clock(sum(clock.rollout for clock in clocks), sum(clock.verify for clock in clocks))


def _refuse_rewards(episodes: Sequence[Episode], giver: str) -> None:
  """ValueError for a reward that nothing can learn from. giver: environment or scorer"""
  for episode in episodes:
    for reward in episode.rewards:
      if reward is None or not abs(reward) <= LARGEST:
        raise ValueError(f"The {giver} gave the reward {reward!r} in episode {episode.seed!r}; it must be a finite "
                         f"number, at most {LARGEST:g} from 0.")
