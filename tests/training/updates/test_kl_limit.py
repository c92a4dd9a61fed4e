"""An update beyond the target is not applied: no array of the state changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.objectives.batches import Scores
from sftrl_jax.objectives.ppo import PPOConfig, ppo_loss
from sftrl_jax.training import state as states
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig, make_optimizer
from sftrl_jax.training.step import make_train_step
from sftrl_jax.training.updates.kl_limit import APPLIED, STOPPED, limit_kl

SCHEDULE = lambda step: 0.01
PATHS = ("model/embed", "model/layers/block/mlp/up/kernel", "value/bias")


def score(params, inputs, targets_BT):
  blank = jnp.zeros(targets_BT.shape)
  trunk = sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(params["model"]))
  return Scores(-2.0 - 0.01 * trunk * targets_BT, blank, blank + params["value"]["bias"], blank > 0)


@pytest.fixture(scope="module")
def begun(tiny, policy_batch):
  """(state after an update, step, batch): the batch is from a policy 0.3 nats a token away."""
  optimizer = make_optimizer(OptimizerConfig(learning_rate=0.01, weight_decay=0.1), SCHEDULE)
  step = make_train_step(functools.partial(ppo_loss, ppo=PPOConfig(), score=score, turns=2), optimizer, SCHEDULE, 2)
  state, _ = jax.jit(step)(states.create(tiny(*PATHS), optimizer), policy_batch)
  return state, step, policy_batch


def assert_same(state, another):
  jax.tree.map(np.testing.assert_array_equal, state, another)


def assert_close(state, another):
  """Up to the rounding of two programs that are compiled apart."""
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state, another)


def test_below_the_target_nothing_changes(begun):
  state, step, batch = begun
  plain, metrics = jax.jit(step)(state, batch)
  limited, more = jax.jit(limit_kl(step, 1e9))(state, batch)
  assert_close(limited, plain)
  assert more[APPLIED] == 1 and more[STOPPED] == 0 and more.keys() == metrics.keys() | {APPLIED, STOPPED}
  assert_close({name: more[name] for name in metrics}, metrics)


def test_beyond_the_target_everything_stays_but_the_first_minibatch_is_applied(begun):
  state, step, batch = begun
  limited = jax.jit(limit_kl(step, 1e-6))
  after, metrics = limited(state, batch)
  assert_same(after, state)
  assert metrics[APPLIED] == 0 and metrics[STOPPED] == 1 and metrics["policy/approxkl_avg"].value() > 1e-6
  after, metrics = limited(state, batch, None, None, np.bool_(True))
  assert_close(after, jax.jit(step)(state, batch)[0])
  assert metrics[APPLIED] == 1 and metrics[STOPPED] == 0


def test_the_target_itself_is_the_limit(begun):
  state, step, batch = begun
  measured = float(jax.jit(step)(state, batch)[1]["policy/approxkl_avg"].value())
  for factor, stopped in ((1.01, 0), (0.99, 1)):
    assert jax.jit(limit_kl(step, factor * measured))(state, batch)[1][STOPPED] == stopped


def test_the_warm_up_of_the_critic_is_not_judged(begun):
  state, step, batch = begun
  assert int(state.step) == 1
  assert [float(jax.jit(limit_kl(step, 1e-6, warmup))(state, batch)[1][STOPPED]) for warmup in (1, 2)] == [1, 0]


def test_a_minibatch_that_is_not_finite_is_neither_applied_nor_beyond_the_target(begun):
  state, step, batch = begun
  nan = batch.replace(old_logprobs_BT=np.full_like(batch.old_logprobs_BT, np.nan))
  after, metrics = jax.jit(limit_kl(step, 1e-6))(state, nan)
  assert_same(after.params, state.params)
  assert metrics[APPLIED] == 0 and metrics[STOPPED] == 0 and metrics["nonfinite_steps"] == 1
