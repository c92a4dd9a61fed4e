"""Activations are told where to lie on a mesh of several devices, and nowhere else."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from sftrl_jax.models import layout
from sftrl_jax.parallel import mesh as meshes, rules

X = jnp.zeros((8, 4, 6))


def traced(x=X):
  return str(jax.make_jaxpr(lambda x: layout.constrain(x, layout.ROWS))(x))


@pytest.mark.parametrize("devices, under", [(8, False), (1, True), (0, True)])
def test_without_rules_or_a_mesh_of_several_devices_nothing_is_said(devices, under):
  with rules.applied(rules.MESH_AXES if under else {}):
    if not devices:
      assert "sharding_constraint" not in traced()
      return
    with jax.set_mesh(meshes.make(meshes.MeshConfig(), jax.devices()[:devices])):
      assert "sharding_constraint" not in traced()


def test_an_axis_goes_where_the_rules_say_if_it_divides():
  with jax.set_mesh(meshes.make(meshes.MeshConfig(2, 2, 2))):
    with rules.applied():
      assert "sharding_constraint" in traced()
      assert layout.spec((8, 4, 6), layout.ROWS) == PartitionSpec(("data", "fsdp"), None, None)
      assert layout.spec((6, 4, 6), layout.ROWS) == PartitionSpec(None, None, None)
      assert layout.spec((6, 4, 6), layout.STATIONARY) == PartitionSpec("data", None, "fsdp")
      assert layout.spec((6, 4, 7), layout.STATIONARY) == PartitionSpec("data", None, None)
    with rules.applied(rules.GATHERED_AXES):
      assert layout.spec((8, 4, 6), layout.STATIONARY) == PartitionSpec(("data", "fsdp"), None, None)


def test_the_platform_is_that_of_the_mesh():
  assert layout.platform() == "cpu"
  with jax.set_mesh(meshes.make(meshes.MeshConfig())):
    assert layout.platform() == "cpu"
