"""A state is born where it will live, is nobody else's, and knows the parameters that it is judged by."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from sftrl_jax import trees
from sftrl_jax.models import DecoderConfig, build, heads
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.training import state as states
from sftrl_jax.training.optimizers import catalogue
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig, make_optimizer

UP = "model/layers/block/mlp/up/kernel"


def test_a_state_is_born_sharded_and_equal_to_its_parameters(params):
  mesh = meshes.make(meshes.MeshConfig())
  optimizer = optax.adamw(1e-3)
  state = states.create_sharded(params, optimizer, mesh)
  assert state.step == 0
  jax.tree.map(np.testing.assert_array_equal, state.params, params)
  where = rules.shardings(params, mesh)
  jax.tree.map(lambda x, s: x.sharding == s or (_ for _ in ()).throw(AssertionError(x.sharding)), state.params, where)
  slots = trees.leaves(state.opt_state)
  moments = {path: leaf for path, leaf in slots.items() if "/mu/" in path or "/nu/" in path}
  assert len(moments) == 2 * len(trees.leaves(params))
  for path, leaf in moments.items():
    name = path.split("mu/")[-1].split("nu/")[-1]
    assert leaf.sharding == trees.leaves(where)[name], path
  assert sum(leaf.sharding.spec != PartitionSpec() and "fsdp" in leaf.sharding.spec for leaf in moments.values()) >= 10


def test_no_optimizer_keeps_anything_large_whole(monkeypatch):
  """Of a model whose every matrix is split: what a state holds lies on 8 devices as thinly as the parameters do."""
  monkeypatch.setattr(rules, "LARGE", 2**11)
  model, mesh = build(DecoderConfig(vocab=512, width=128, layers=2, heads=8, kv_heads=2, mlp_dim=256)), meshes.make(
      meshes.MeshConfig(2, 2, 2))
  params = {"model": jax.eval_shape(model.init, jax.random.key(0)), "value": jax.eval_shape(lambda: heads.init(128))}
  for name in catalogue.catalogue().entries:
    optimizer = make_optimizer(OptimizerConfig(name), lambda n: 1e-3)
    where = states.shardings(params, optimizer, mesh).opt_state
    state = trees.leaves(jax.eval_shape(optimizer.init, params))
    for (path, leaf), place in zip(state.items(), jax.tree.leaves(where), strict=True):
      assert leaf.size < rules.LARGE or not place.is_fully_replicated, f"{name}: {path}"


def test_giving_the_state_away_leaves_the_given_parameters_alone(params):
  mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:1])
  given = jax.device_put(params, rules.shardings(params, mesh))
  state = states.create_sharded(given, optax.sgd(0.1), mesh)
  for leaf in jax.tree.leaves(state):
    leaf.delete()
  jax.tree.map(np.testing.assert_array_equal, given, params)


@pytest.mark.parametrize("name", ["prodigy", "cocob", "mechanize"])
def test_a_state_that_remembers_its_start_can_be_donated(name, tiny):
  mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:1])
  state = states.create_sharded(tiny(UP), make_optimizer(OptimizerConfig(name, weight_decay=0.1), lambda n: 1.0), mesh)
  held = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
  assert len(held) == len(set(held))   # an array held twice could be given away but once


def test_parameters_are_judged_themselves_but_for_an_average(tiny):
  params = tiny(UP, "model/embed", "value/bias")
  state = states.create(params, make_optimizer(OptimizerConfig("adamw"), lambda n: 1.0))
  assert states.evaluated(state) is state.params and not states.is_averaged(state)

  optimizer = make_optimizer(OptimizerConfig("schedule_free_sgd", freeze=("model/embed",)), lambda n: 0.5)
  state = states.create(params, optimizer)
  assert states.is_averaged(state) and states.is_averaged(jax.eval_shape(lambda: state))
  updates, slots = optimizer.update(jax.tree.map(jnp.ones_like, params), state.opt_state, params)
  updates, slots = optimizer.update(jax.tree.map(jnp.ones_like, params), slots, optax.apply_updates(params, updates))
  state = states.TrainState(state.step, jax.tree.map(lambda x: x.astype(jnp.bfloat16), params), slots)
  judged = jax.jit(states.evaluated)(state)
  assert jax.tree.structure(judged) == jax.tree.structure(params)
  assert {leaf.dtype for leaf in jax.tree.leaves(judged)} == {jnp.dtype(jnp.bfloat16)}
  np.testing.assert_array_equal(judged["model"]["embed"], state.params["model"]["embed"])
  assert np.any(trees.leaves(judged)[UP] != trees.leaves(state.params)[UP])


def test_random_keys_are_kept_as_bits(tiny):
  params = tiny("model/embed")
  typed = optax.noisy_sgd(1.0, eta=1.0, key=3)
  plain = states.storable(typed)
  state, kept = typed.init(params), plain.init(params)
  for _ in range(2):
    wanted, state = typed.update(params, state, params)
    updates, kept = plain.update(params, kept, params)
    np.testing.assert_array_equal(updates["model"]["embed"], wanted["model"]["embed"])
  assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("int32"), jnp.dtype("uint32")}
