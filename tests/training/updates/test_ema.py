"""The average of the parameters: by hand, of constant ones to the bit, where an update is skipped, and on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from sftrl_jax import trees
from sftrl_jax.metrics import Mean
from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.training import state as states
from sftrl_jax.training.step import make_train_step
from sftrl_jax.training.updates.ema import EmaConfig, ema_params, of_weights, with_ema

START = {"model": {"embed": jnp.asarray([1.0, -3.0, 0.1])}}


def trained(rates, decay, targets=None):
  """The states of SGD on (p - target)^2 / 2 with these rates; a target that is no number gives no update."""
  targets = np.zeros(len(rates)) if targets is None else targets
  optimizer = with_ema(optax.inject_hyperparams(optax.sgd)(lambda number: jnp.asarray(rates)[number]), decay)
  loss = lambda params, target: (Mean(jnp.sum(jnp.square(params["model"]["embed"] - target)) / 2, 1.0), {})
  step, state = jax.jit(make_train_step(loss, optimizer, lambda number: 0.0)), states.create(START, optimizer)
  for target in targets:
    state, _ = step(state, jnp.asarray(target))
    yield state


def test_it_is_the_recurrence_by_hand_and_training_does_not_read_it():
  rates, average, params = [0.5, 0.1, 0.2], np.asarray(START["model"]["embed"], np.float64), None
  params = average
  for rate, state, plain in zip(rates, trained(rates, 0.9), trained(rates, 0.0), strict=True):
    params = params - rate * params
    average = 0.9 * average + 0.1 * params
    np.testing.assert_allclose(ema_params(state)["model"]["embed"], average, rtol=1e-6)
    np.testing.assert_array_equal(state.params["model"]["embed"], plain.params["model"]["embed"])
  assert ema_params(plain) is None


def test_of_constant_parameters_it_is_these_to_the_bit_and_a_step_that_is_skipped_leaves_it():
  *_, still = trained([0.0] * 5, 0.998)
  np.testing.assert_array_equal(ema_params(still)["model"]["embed"], START["model"]["embed"])
  first, second = trained([0.5, 0.5], 0.9, [0.0, np.nan])
  np.testing.assert_array_equal(ema_params(first)["model"]["embed"], ema_params(second)["model"]["embed"])
  assert (ema_params(first)["model"]["embed"] != START["model"]["embed"]).all()


def test_it_lies_on_the_devices_like_the_parameters():
  model = build(DecoderConfig(vocab=64, width=16, layers=1, heads=2))
  params, mesh = {"model": jax.eval_shape(model.init, jax.random.key(0))}, meshes.make(meshes.MeshConfig())
  where = states.shardings(params, with_ema(optax.sgd(0.1), 0.9), mesh)
  assert trees.leaves(where.opt_state.ema) == trees.leaves(where.params)
  assert any(sharding.spec != PartitionSpec() for sharding in jax.tree.leaves(where.params))


def test_its_variants_have_names_of_their_own_and_a_decay_is_below_1():
  assert of_weights("rule_ood", "") == "rule_ood" and of_weights("rule_ood", "ema") == "ema:rule_ood"
  for decay in (1.0, -0.1, float("nan")):
    with pytest.raises(ValueError, match="decay is"):
      EmaConfig(decay)
