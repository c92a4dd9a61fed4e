"""A coefficient that follows the KL: up where it is too large, down where it is too small, by at most so much."""

import math

import pytest

from sftrl_jax.objectives.grpo import GRPOConfig
from sftrl_jax.objectives.ppo import PPOConfig
from sftrl_jax.objectives.rloo import RLOOConfig
from sftrl_jax.training.updates.kl_control import adapted, is_adaptive, metrics

PPO = PPOConfig(kl_coef=0.1, kl_target=6.0, kl_horizon=1000)


@pytest.mark.parametrize("kl, error", [(6.0, 0.0), (6.6, 0.1), (5.4, -0.1), (60.0, 0.2), (-3.0, -0.2), (0.0, -0.2)])
def test_the_error_is_relative_and_bounded(kl, error):
  assert adapted(PPO, 0.1, kl, 64) == pytest.approx(0.1 * (1 + error * 64 / 1000), rel=1e-12)


def test_a_kl_that_is_no_number_changes_nothing_and_a_coefficient_is_never_negative():
  assert adapted(PPO, 0.1, math.nan, 64) == adapted(PPO, 0.1, math.inf, 64) == 0.1
  assert adapted(PPO, 0.1, 0.0, 10_000) == 0.0


def test_it_comes_to_the_coefficient_that_holds_the_target():
  coef = 1e-3
  for _ in range(2000):
    coef = adapted(PPO, coef, 3.0 / (0.1 + coef), 64)   # a policy that goes less far, the more a nat costs
  assert 3.0 / (0.1 + coef) == pytest.approx(6.0, rel=1e-3)


def test_only_a_target_is_adaptive():
  assert is_adaptive(PPO) and not is_adaptive(PPOConfig(kl_coef=0.1)) and not is_adaptive(GRPOConfig(kl_coef=0.1))
  for group in (GRPOConfig, RLOOConfig):
    assert is_adaptive(group(kl_coef=0.1, kl_target=6.0))
    assert adapted(group(kl_coef=0.1, kl_target=6.0, kl_horizon=1000), 0.1, 60.0, 64) == adapted(PPO, 0.1, 60.0, 64)


def test_the_penalty_is_said_where_it_is_in_the_reward():
  assert metrics(0.1, True, 3.0, 1.0) == pytest.approx({
      "objective/kl_coef": 0.1, "objective/non_score_reward": -0.3, "objective/rlhf_reward": 0.7})
  assert metrics(0.1, False, 3.0, 1.0) == {"objective/kl_coef": 0.1}
