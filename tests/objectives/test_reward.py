"""The Bradley-Terry loss against plain numpy in 64 bits and by finite differences."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.metrics import floats
from sftrl_jax.objectives.reward import RewardConfig, reward_loss

tables = importlib.util.spec_from_file_location("pairs", pathlib.Path(__file__).parents[1] / "pair_tables.py")
pairs = importlib.util.module_from_spec(tables)
tables.loader.exec_module(pairs)


def value(params, batch, reward):
  return reward_loss(params, batch, reward=reward, score=pairs.score)


@pytest.mark.parametrize("reward", [RewardConfig(), RewardConfig(centre=0.0), RewardConfig(centre=0.5, margin=False)])
def test_the_loss_is_its_formula_and_its_gradient_that_of_finite_differences(reward):
  params, batch = pairs.example()
  expected = sum(np.log1p(np.exp(worse - better + reward.margin * margin)) + reward.centre * (better + worse) ** 2
                 for (*_, better), (*_, worse), margin in pairs.by_hand(params, batch))
  with jax.enable_x64(True):
    exact, batch = pairs.exact((params, batch))
    loss, _ = value(exact, batch, reward)
    assert loss.weight == 3
    np.testing.assert_allclose(loss.total, expected, rtol=1e-6)
    total = lambda scores: value({**exact, "scores": scores}, batch, reward)[0].total
    gradient, step = jax.grad(total)(exact["scores"]), 1e-6
    for _ in range(3):
      toward = np.random.default_rng(2).normal(size=gradient.shape)
      moved = total(exact["scores"] + step * toward) - total(exact["scores"] - step * toward)
      np.testing.assert_allclose(moved / (2 * step), (gradient * toward).sum(), rtol=1e-5)


def test_the_last_token_of_a_side_is_read_and_no_other():
  params, batch = jax.tree.map(jnp.asarray, pairs.example())
  last = np.asarray(batch.last_BT > 0)
  noise = {**params, "scores": jnp.where(last, params["scores"], jnp.nan)}
  total = jax.value_and_grad(lambda scores: value({**params, "scores": scores}, batch, RewardConfig())[0].total)
  before, after = total(params["scores"]), total(noise["scores"])
  assert before[0] == after[0]
  np.testing.assert_array_equal(np.asarray(before[1]) != 0, last)
  np.testing.assert_array_equal(np.where(last, after[1], 0), before[1])


def test_large_scores_stay_finite_and_equal_ones_are_no_preference():
  params, batch = jax.tree.map(jnp.asarray, pairs.example())
  sides = np.asarray(batch.sides_BT)
  scores = np.where(sides % 2 == 0, -1e4, 1e4).astype(np.float32)   # all wrong by 20,000
  loss, metrics = value({**params, "scores": scores}, batch, RewardConfig(margin=False))
  assert float(loss.value()) == pytest.approx(2e4) and floats(metrics)["rewards/accuracies"] == 0
  assert floats(value({**params, "scores": scores * 0}, batch, RewardConfig())[1])["rewards/accuracies"] == 0


def test_accuracy_is_also_of_the_pairs_where_length_does_not_give_the_answer_away():
  params, batch = pairs.example()
  by_hand = pairs.by_hand(params, batch)
  right = np.asarray([better[3] > worse[3] for better, worse, _ in by_hand])
  not_longer = np.asarray([better[1] <= worse[1] for better, worse, _ in by_hand])
  assert not_longer.any() and not not_longer.all()
  metrics = value(*jax.tree.map(jnp.asarray, (params, batch)), RewardConfig())[1]
  assert metrics["rewards/accuracies_not_longer"].total == (right & not_longer).sum()
  assert metrics["rewards/accuracies_not_longer"].weight == not_longer.sum()
  assert floats(metrics)["rewards/accuracies"] == pytest.approx(right.mean())


def test_on_a_bandit_the_policy_that_is_best_for_the_scores_follows_the_labels_and_a_coin_teaches_nothing():
  """Of E r - beta KL(pi, start), whose maximum is start exp(r / beta) / Z; beta is 0.5."""
  params, batch = pairs.bandits()
  loss = lambda params, batch: reward_loss(params, batch, reward=RewardConfig(), score=pairs.bandit_score)[0]
  after = jax.jit(jax.vmap(lambda params, batch: pairs.learned(loss, params, batch)))(params, batch)
  start = jax.nn.log_softmax(params["logits"])
  best = jax.nn.log_softmax(start + after["scores"] / 0.5)
  pairs.refuse_unlearned(np.asarray(start), np.asarray(best))


@pytest.mark.parametrize("wrong, message", [({"centre": -1.0}, "centre is -1"), ({"layers": (0,)}, "layers is")])
def test_a_wrong_field_is_named_with_its_rule(wrong, message):
  with pytest.raises(ValueError, match=message):
    RewardConfig(**wrong)
