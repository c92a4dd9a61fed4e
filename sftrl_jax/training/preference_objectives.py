"""The objectives of `sftrl preference` and all their differences. programs/preference.py is what they share."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from sftrl_jax.objectives.dpo import DPOConfig, dpo_loss
from sftrl_jax.objectives.reward import RewardConfig, reward_loss
from sftrl_jax.training.score import Score


@dataclasses.dataclass(frozen=True)
class Objective:
  """One objective. Below, `config` is an instance of its section.

  section, key: the class of its section of a config, and the key of that
  loss: (config, score) -> a function (params, batch) -> (Mean, metrics)
  reads_start: config -> whether the loss compares with the start's log-probabilities
  head_layers: config -> widths of the hidden layers of a score head, None where there is no head
  """

  section: type
  key: str
  loss: Callable[[Any, Score], Callable]
  reads_start: Callable[[Any], bool]
  head_layers: Callable[[Any], tuple[int, ...] | None]


OBJECTIVES = {
    # The policy itself learns, held to the start by its log-ratio.
    "dpo": Objective(
        DPOConfig, "dpo", lambda config, score: functools.partial(dpo_loss, dpo=config, score=score),
        reads_start=lambda config: not config.reference_free, head_layers=lambda config: None),
    # A model of the preference, whose scores are rewards. config.reward is a function of the user's.
    "reward": Objective(
        RewardConfig, "bradley_terry", lambda config, score: functools.partial(reward_loss, reward=config, score=score),
        reads_start=lambda config: False, head_layers=lambda config: config.layers),
}
