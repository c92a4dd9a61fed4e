"""An update without an advantage leaves the policy, and the optimizer's arrays of it, as they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import trees
from sftrl_jax.objectives.batches import GroupBatch, Scores
from sftrl_jax.objectives.grpo import GRPOConfig, grpo_loss
from sftrl_jax.objectives.ppo import PPOConfig, ppo_loss
from sftrl_jax.training import state as states
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig, make_optimizer
from sftrl_jax.training.step import make_train_step
from sftrl_jax.training.updates.hold import hold_policy, is_policy

SCHEDULE = lambda step: 0.01
PATHS = ("model/embed", "model/layers/block/mlp/up/kernel", "value/bias")


def score(params, inputs, targets_BT):
  """Some numbers of all parameters; the value reads the trunk."""
  blank = jnp.zeros(targets_BT.shape)
  trunk = sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(params["model"]))
  return Scores(-2.0 - 0.01 * trunk * targets_BT, blank, blank + trunk + params["value"]["bias"], blank > 0)


def stepper(loss, name="adamw"):
  built = make_optimizer(OptimizerConfig(name=name, learning_rate=0.01, weight_decay=0.1), SCHEDULE)
  step = make_train_step(loss, built, SCHEDULE, 2)
  return built, jax.jit(step), jax.jit(hold_policy(step))


def test_a_critic_of_its_own_is_not_the_policy():
  for root in ("", "0/mu/", "inner/0/nu/"):
    assert is_policy(f"{root}model/embed") and is_policy(f"{root}lora/layers/block/mlp/up/a")
    assert not is_policy(f"{root}critic/model/embed") and not is_policy(f"{root}value/kernel")


def of_policy(state):
  return {path: leaf for path, leaf in trees.leaves(jax.device_get((state.params, state.opt_state))).items()
          if "/model/" in path}


def assert_held(before, after):
  assert before.keys() == after.keys() and len(before) > 2
  for path, leaf in before.items():
    np.testing.assert_array_equal(after[path], leaf, path)


def assert_close(held, plain):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), held, plain)


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "schedule_free_adamw"])
def test_momentum_decay_and_the_value_loss_move_no_policy_without_an_advantage(tiny, policy_batch, name):
  loss = functools.partial(ppo_loss, ppo=PPOConfig(value_gradient=True), score=score, turns=2)
  optimizer, plain, held = stepper(loss, name)
  state, _ = plain(states.create(tiny(*PATHS), optimizer), policy_batch)   # there is momentum now
  flat = policy_batch.replace(advantages_BT=np.zeros_like(policy_batch.advantages_BT))
  after, metrics = held(state, flat)
  assert_held(of_policy(state), of_policy(after))
  assert after.step == state.step + 1 and metrics["nonfinite_steps"] == 0
  assert after.params["value"]["bias"] != state.params["value"]["bias"]   # it learns the returns
  assert any((of_policy(plain(state, flat)[0])[path] != leaf).any() for path, leaf in of_policy(state).items())
  assert_close(held(state, policy_batch)[0], plain(state, policy_batch)[0])


def test_an_advantage_off_the_mask_is_none(tiny, policy_batch):
  optimizer, plain, held = stepper(functools.partial(grpo_loss, grpo=GRPOConfig(), score=score, longest=4))
  batch = GroupBatch(policy_batch.inputs, policy_batch.targets_BT, policy_batch.mask_BT, policy_batch.old_logprobs_BT,
                     None, np.float32([1, -1, 0, 0, 0, 0, 0, 0]))
  state, _ = plain(states.create(tiny(*PATHS), optimizer), batch)
  masked = batch.replace(mask_BT=batch.mask_BT * (batch.advantages_B == 0)[:, None])
  assert masked.mask_BT.any()
  assert_held(of_policy(state), of_policy(held(state, masked)[0]))
  assert_close(held(state, batch)[0], plain(state, batch)[0])


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "schedule_free_adamw"])
def test_in_the_warm_up_the_value_head_learns_as_if_it_were_alone(tiny, policy_batch, name):
  """Neither the policy's loss, its entropy bonus nor a value loss that reaches the trunk moves it, nor has a part in
  the norm that is clipped."""
  ppo = PPOConfig(value_gradient=True, entropy_coef=0.1, value_coef=0.5)
  optimizer = make_optimizer(OptimizerConfig(name=name, learning_rate=0.01, weight_decay=0.1), SCHEDULE)
  steps = {}
  for kind, config in (("both", ppo), ("value", PPOConfig(value_gradient=True, value_coef=0.5))):
    loss = functools.partial(ppo_loss, ppo=config, score=score, turns=2)
    steps[kind] = jax.jit(hold_policy(make_train_step(loss, optimizer, SCHEDULE, 2, warmup=2), False, 2))
    steps[f"{kind}, no warm-up"] = jax.jit(make_train_step(loss, optimizer, SCHEDULE, 2))
  start = states.create(tiny(*PATHS), optimizer)
  state, alone = start, start
  flat = policy_batch.replace(advantages_BT=np.zeros_like(policy_batch.advantages_BT))
  for _ in range(2):
    state, alone = steps["both"](state, policy_batch)[0], steps["value"](alone, flat)[0]
    assert_held(of_policy(start), of_policy(state))
  np.testing.assert_array_equal(state.params["value"]["bias"], alone.params["value"]["bias"])
  assert state.params["value"]["bias"] != start.params["value"]["bias"] and state.step == 2
  assert_close(steps["both"](state, policy_batch)[0], steps["both, no warm-up"](state, policy_batch)[0])
  assert any((of_policy(steps["both"](state, policy_batch)[0])[path] != leaf).any()
             for path, leaf in of_policy(state).items())
