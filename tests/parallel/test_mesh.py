"""Eight devices in three directions."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.parallel.mesh import MeshConfig


def test_there_are_eight_devices():
  assert len(jax.devices()) == 8 and jax.default_backend() == "cpu"


@pytest.mark.parametrize("config,shape", [
    (MeshConfig(), (1, 8, 1)), (MeshConfig(data=2, tensor=2), (2, 2, 2)), (MeshConfig(8, 1, 1), (8, 1, 1)),
    (MeshConfig(-1, 2, 1), (4, 2, 1)), (MeshConfig(1, 1, -1), (1, 1, 8))], ids=str)
def test_the_mesh_takes_every_device(config, shape):
  mesh = meshes.make(config)
  assert tuple(mesh.shape.items()) == tuple(zip(meshes.AXES, shape, strict=True))
  assert set(mesh.devices.flat) == set(jax.devices())
  assert mesh.axis_types == (AxisType.Auto,) * 3
  assert meshes.rows(mesh) == shape[0] * shape[1]


def test_a_mesh_may_take_fewer_devices():
  assert meshes.make(MeshConfig(), jax.devices()[:1]).size == 1


@pytest.mark.parametrize("config", [MeshConfig(2, 2, 1), MeshConfig(3, -1, 1), MeshConfig(16, -1, 1)], ids=str)
def test_a_mesh_that_is_not_all_devices_is_refused(config):
  with pytest.raises(ValueError, match="there are 8.*--config.mesh.fsdp=-1"):
    meshes.make(config)


@pytest.mark.parametrize("change,told", [
    ({"data": 0}, "data is 0"), ({"tensor": -2}, "tensor is -2"), ({"data": -1}, "only one of them may be -1"),
    ({"cpu_threads": -1}, "cpu_threads is -1")])
def test_a_layout_that_is_none_is_refused(change, told):
  with pytest.raises(ValueError, match=told):
    MeshConfig(**change)


def test_rows_are_split_over_data_and_fsdp_and_whole_over_tensor():
  mesh = meshes.make(MeshConfig(2, 2, 2))
  rows = {"tokens": np.arange(24).reshape(8, 3), "weights": np.ones(8, np.float32)}
  placed = meshes.place(mesh, rows)
  for name, array in placed.items():
    np.testing.assert_array_equal(array, rows[name])
    assert array.sharding.spec == PartitionSpec(("data", "fsdp"))
    assert {shard.data.shape[0] for shard in array.addressable_shards} == {2}
    assert len(array.addressable_shards) == 8
  starts = {shard.index[0].start or 0 for shard in placed["tokens"].addressable_shards}
  assert starts == {0, 2, 4, 6}


def test_what_is_replicated_is_everywhere():
  mesh = meshes.make(MeshConfig(2, 2, 2))
  array = jax.device_put(np.arange(3), meshes.replicated(mesh))
  assert len(array.addressable_shards) == 8 and {shard.data.shape for shard in array.addressable_shards} == {(3,)}


def test_rows_that_cannot_be_split_are_refused_with_a_number_that_can():
  mesh = meshes.make(MeshConfig(2, 2, 2))
  meshes.refuse_uneven("batch", 12, mesh)
  with pytest.raises(ValueError, match=r"config.batch is 10.*4 ways.*--config.batch=12"):
    meshes.refuse_uneven("batch", 10, mesh)
