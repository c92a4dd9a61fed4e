"""What scores the responses of RL in the environment's stead, one entry a kind: rollout/scoring.py is what they share.

To add one: a function that returns a Scorer, and an entry here. At most one of them is chosen.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from sftrl_jax.programs.experiment.environment import chosen_reward
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.own_reward import scorer as own_reward
from sftrl_jax.rollout.scoring import Scorer


@dataclasses.dataclass(frozen=True)
class ScorerKind:
  """One kind of scorer.

  chosen: a resolved config -> whether it asks for this kind
  make: (experiment, workdir of the run) -> Scorer; called once a process, by all of them, under the mesh and after the
    workdir is claimed
  """

  chosen: Callable[[dict], bool]
  make: Callable[[Experiment, Path], Scorer]


def _by_own_function(experiment: Experiment, workdir: Path) -> Scorer:
  """The scorer of config.reward, a function of TRL's form."""
  plain = bool(getattr(experiment.env, "plain_prompts", False))
  return own_reward.make(chosen_reward(experiment.config), plain, experiment.config["own_reward"]["batch"])


def _has_batch_function(config: dict) -> bool:
  function = chosen_reward(config)
  return function is not None and function.form.batch


SCORERS: dict[str, ScorerKind] = {"own function": ScorerKind(_has_batch_function, _by_own_function)}


def make_scorer(experiment: Experiment, workdir: Path) -> Scorer | None:
  """The scorer that the config asks for, loaded; None where the environment's own rewards are learned from."""
  kinds = [kind for kind in SCORERS.values() if kind.chosen(experiment.config)]
  return kinds[0].make(experiment, workdir) if kinds else None


def is_scored(config: dict) -> bool:
  """Whether a resolved config has a scorer, so that an environment may leave out its own reward."""
  return any(kind.chosen(config) for kind in SCORERS.values())
