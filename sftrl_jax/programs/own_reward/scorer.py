"""Episodes scored by a function of TRL's form, called once for many responses: a Scorer of rollout/scoring.py."""

from collections.abc import Sequence

import numpy as np

from sftrl_jax.chat import Chat
from sftrl_jax.envs.referee import EpisodeError, short
from sftrl_jax.metrics import Mean
from sftrl_jax.parallel import hosts
from sftrl_jax.programs.own_reward.function import RewardFunction
from sftrl_jax.programs.own_reward.requests import answered, request_of
from sftrl_jax.rollout.episodes import Episode, Turn
from sftrl_jax.rollout.scoring import Scored, Scorer

METRICS = "reward/"   # before the names that log_metric gives


def make(function: RewardFunction, plain: bool, batch: int) -> Scorer:
  """The scorer. Of several processes the first one calls the function, and all have what it says.

  plain: whether prompts and completions are texts
  batch: responses of one call; 0 for all
  """

  def score(episodes: Sequence[Episode]) -> Scored:
    entries = [(place, *entry) for place, episode in enumerate(episodes) for entry in answered(episode)]
    rewards, metrics, reasons = hosts.led_by_first(lambda: _asked(function, episodes, entries, plain, batch))
    numbers = {f"{METRICS}{name}": Mean(np.float64(total), np.float64(count))
               for name, (total, count) in metrics.items()}
    given = iter(rewards)
    return Scored([[next(given) for _ in episode.turns] for episode in episodes], 0.0, numbers,
                  dict(reversed(reasons)))

  return score


def _asked(function: RewardFunction, episodes: Sequence[Episode], entries: Sequence[tuple[int, Chat, Turn]],
           plain: bool, batch: int) -> tuple[list[float | None], dict, list[tuple[int, str]]]:
  """(rewards of all entries, metrics, (place of an episode, why it has no reward)), as JSON holds it."""
  rewards, metrics, reasons = [], {}, []
  for first in range(0, len(entries), batch or len(entries) or 1):
    some = entries[first : first + (batch or len(entries))]
    request = request_of([(chat, turn.response.text, turn.response.tokens, episodes[place].columns)
                          for place, chat, turn in some], plain)
    try:
      scored, logged = function.scores(request)
    except EpisodeError as error:
      scored, logged = [None] * len(some), {}
      reasons += [(place, str(error)) for place, *_ in some]
    else:
      reasons += [(place, f"{function.where}: the reward is None, so its episode abstains.\n  The response was "
                   f"{short(turn.response.text)}.") for (place, _, turn), reward in zip(some, scored, strict=True)
                  if reward is None]
    rewards += scored
    for name, (total, count) in logged.items():
      before = metrics.get(name, (0.0, 0))
      metrics[name] = (before[0] + total, before[1] + count)
  return rewards, metrics, reasons
