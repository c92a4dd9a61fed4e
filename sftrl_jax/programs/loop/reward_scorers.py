"""What scores the responses of RL in the environment's stead, one entry a kind: rollout/scoring.py is what they share.

To add one: a function that returns a Scorer, and an entry here. At most one of them is chosen.

A run with a reward model records which one it learns from in WORKDIR/reward_model.json, with a checksum of what is
stored: rewards by another one would be another run's.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from sftrl_jax.metrics import Mean
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.environment import chosen_reward, has_reward_model
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.experiment.network.reward_model import KEY, NONE, RewardModel
from sftrl_jax.programs.own_reward import scorer as own_reward
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import Episode, blank_episodes
from sftrl_jax.rollout.scoring import Scored, Scorer
from sftrl_jax.training.log import write_json
from sftrl_jax.training.updates.lengths import lengths_of

RECORD = "reward_model.json"
OUTSIDE = "reward_model/outside"   # share of responses whose score no training answer of the reward model had


@dataclasses.dataclass(frozen=True)
class ScorerKind:
  """One kind of scorer.

  chosen: a resolved config -> whether it asks for this kind
  make: (experiment, workdir of the run, None for what is only timed) -> Scorer; called once a process, by all of them,
    under the mesh and after the workdir is claimed
  """

  chosen: Callable[[dict], bool]
  make: Callable[[Experiment, Path | None], Scorer]


def make_scorer(experiment: Experiment, workdir: Path | None) -> Scorer | None:
  """The scorer that the config asks for, loaded; None where the environment's own rewards are learned from."""
  kinds = [kind for kind in SCORERS.values() if kind.chosen(experiment.config)]
  return kinds[0].make(experiment, workdir) if kinds else None


def _by_reward_model(experiment: Experiment, workdir: Path | None) -> Scorer:
  """The scorer of config.reward_model, with its parameters on the mesh and its one program compiled."""
  reward, scoring = experiment.reward_model, KINDS[experiment.verb].make_learner(experiment).responses
  params, fingerprint = reward.load(experiment.mesh)
  if workdir is not None:
    _refuse_another(reward, fingerprint, workdir)
  slots = experiment.actor.episode_rows
  together = scoring.rows // slots

  def arguments(episodes: Sequence[Episode]) -> tuple:
    rows = collect.response_rows(episodes, scoring.length, scoring.turns, slots, experiment.tokenizer.reader)
    return params, shard_rows(experiment.mesh, rows), *scoring.order(lengths_of(rows.inputs))

  compiled = jax.jit(scoring.score).lower(*arguments(blank_episodes(together))).compile()

  def score(episodes: Sequence[Episode]) -> Scored:
    raw, flops = [], 0.0
    for first in range(0, len(episodes), together):
      some = [*episodes[first : first + together]]
      blank = blank_episodes(together - len(some))
      scores_BU, counts = hosts.whole_arrays(compiled(*arguments([*some, *blank])))
      raw += collect.by_turn(scores_BU, [*some, *blank])[: len(some)]
      flops += scoring.flops(counts)
    rewards = [_rewards(reward, episode, scores) for episode, scores in zip(episodes, raw, strict=True)]
    return Scored(rewards, flops, _numbers(reward, episodes, raw, rewards))

  return score


def _rewards(reward: RewardModel, episode: Episode, raw: Sequence[float]) -> list[float | None]:
  """The rewards of an episode's turns from their raw scores; None for a score that is no number."""
  penalty, rewards = reward.config.missing_eos, []
  for turn, score in zip(episode.turns, raw, strict=True):
    if penalty != NONE and not turn.response.stopped:
      rewards.append(float(penalty))
    else:
      rewards.append(_scaled(reward, score) if np.isfinite(score) else None)
  return rewards


def _scaled(reward: RewardModel, score: float) -> float:
  scale = reward.scale
  return (score - scale.mean) / scale.sd if reward.config.scale else score


def _numbers(reward: RewardModel, episodes: Sequence[Episode], raw: Sequence[Sequence[float]],
             rewards: Sequence[Sequence[float | None]]) -> dict[str, Mean]:
  """Metrics of responses: their mean raw score, the share without an end, and that outside of the training answers'
  scores where these are known."""
  turns = [(turn, score) for episode, scores in zip(episodes, raw, strict=True)
           for turn, score in zip(episode.turns, scores, strict=True) if np.isfinite(score)]
  mean = lambda values: Mean(np.float64(sum(values)), np.float64(len(turns)))
  numbers = {"reward_model/score": mean([score for _, score in turns]),
             "reward_model/missing_eos": mean([float(not turn.response.stopped) for turn, _ in turns])}
  if reward.scale is not None:
    scale = reward.scale
    scaled = [(score - scale.mean) / scale.sd for _, score in turns]
    numbers[OUTSIDE] = mean([float(not scale.lowest <= score <= scale.highest) for score in scaled])
  return numbers


def _refuse_another(reward: RewardModel, fingerprint: str, workdir: Path) -> None:
  """Records the reward model in the workdir; ConfigError where the run began with another one, or another scale."""
  path = workdir / RECORD
  scale = dataclasses.asdict(reward.scale) if reward.scale else {}
  record = {"start": reward.source, "fingerprint": fingerprint, "scale": scale}
  begun = hosts.led_by_first(lambda: json.loads(path.read_text()) if path.is_file() else {})
  if not begun and hosts.is_first_process():
    write_json(path, record)
  changed = [name for name in ("fingerprint", "scale") if begun and begun.get(name) != record[name]]
  if changed:
    raise ConfigError(f"{KEY} is {reward.config.start!r}, but this run began with the rewards of {begun.get('start')}, "
                      f"whose {' and '.join(changed)} differ ({path}): put that one back, or use another --workdir.")


def _by_own_function(experiment: Experiment, workdir: Path | None) -> Scorer:
  """The scorer of config.reward, a function of TRL's form."""
  plain = bool(getattr(experiment.env, "plain_prompts", False))
  return own_reward.make(chosen_reward(experiment.config), plain, experiment.config["own_reward"]["batch"])


def _has_batch_function(config: dict) -> bool:
  function = chosen_reward(config)
  return function is not None and function.form.batch


SCORERS: dict[str, ScorerKind] = {
    "own function": ScorerKind(_has_batch_function, _by_own_function),
    "reward model": ScorerKind(has_reward_model, _by_reward_model),
}
