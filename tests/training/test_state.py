"""A state is born where it will live, and is nobody else's."""

import jax
import numpy as np
import optax
from jax.sharding import PartitionSpec

from sftrl_jax import trees
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.training import state as states


def test_a_state_is_born_sharded_and_equal_to_its_parameters(params):
  mesh = meshes.make(meshes.MeshConfig())
  optimizer = optax.adamw(1e-3)
  state = states.born(params, optimizer, mesh)
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


def test_giving_the_state_away_leaves_the_given_parameters_alone(params):
  mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:1])
  given = jax.device_put(params, rules.shardings(params, mesh))
  state = states.born(given, optax.sgd(0.1), mesh)
  for leaf in jax.tree.leaves(state):
    leaf.delete()
  jax.tree.map(np.testing.assert_array_equal, given, params)
