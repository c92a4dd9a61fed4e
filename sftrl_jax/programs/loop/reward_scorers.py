"""What scores the responses of RL in the environment's stead, one entry a kind: rollout/scoring.py is what they share.

To add one: a function that returns a Scorer, and an entry here. At most one of them is chosen.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from sftrl_jax.programs.experiment.experiment import Experiment
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


SCORERS: dict[str, ScorerKind] = {}


def make_scorer(experiment: Experiment, workdir: Path) -> Scorer | None:
  """The scorer that the config asks for, loaded; None where the environment's own rewards are learned from."""
  kinds = [kind for kind in SCORERS.values() if kind.chosen(experiment.config)]
  return kinds[0].make(experiment, workdir) if kinds else None


def is_scored(config: dict) -> bool:
  """Whether a resolved config has a scorer, so that an environment may leave out its own reward."""
  return any(kind.chosen(config) for kind in SCORERS.values())
