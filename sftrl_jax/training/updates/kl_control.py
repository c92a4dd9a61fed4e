"""The coefficient of the KL to the start: fixed, or adapted so that the KL stays near a target."""

import math

from sftrl_jax.objectives.groups import GroupConfig
from sftrl_jax.objectives.ppo import PPOConfig

MOST = 0.2   # of the relative error that one iteration counts


def is_adaptive(config: PPOConfig | GroupConfig) -> bool:
  """Whether the coefficient of an algorithm's section changes from iteration to iteration."""
  return config.kl_target > 0


def adapted(config: PPOConfig | GroupConfig, coef: float, kl: float, episodes: int) -> float:
  """The coefficient after an iteration of so many episodes (Ziegler et al. 2019, section 2.2).

    e = clip(KL / target - 1, -0.2, 0.2)        coef' = coef (1 + e episodes / horizon)

  kl: nats a response, of this iteration; one that is not finite changes nothing. coef' is never below 0
  """
  if not math.isfinite(kl):
    return coef
  error = min(max(kl / config.kl_target - 1.0, -MOST), MOST)
  return coef * max(0.0, 1.0 + error * episodes / config.kl_horizon)


def metrics(coef: float, in_reward: bool, kl: float, scores: float) -> dict[str, float]:
  """What a line says of the penalty, under TRL's names. kl, scores: nats and reward, means over episodes."""
  if not in_reward:
    return {"objective/kl_coef": coef}
  return {"objective/kl_coef": coef, "objective/non_score_reward": -coef * kl,
          "objective/rlhf_reward": scores - coef * kl}
