"""Eight devices in three directions."""

import ast
import dataclasses
import pathlib
import re

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


@pytest.mark.parametrize("config, message", [
    (MeshConfig(2, 2, 1), "4 is not their number"), (MeshConfig(3, -1, 1), "3 does not divide them"),
    (MeshConfig(16, -1, 1), "data=16 x fsdp=-1 x tensor=1, but there are 8 devices, and 16 does not divide them")],
                         ids=str)
def test_a_mesh_that_is_not_all_devices_is_refused_with_sizes_that_are(config, message):
  with pytest.raises(ValueError, match=f"{message}: use sizes of 1, 2, 4, 8, and -1 for one.*--config.mesh.fsdp=-1"):
    meshes.make(config)


@dataclasses.dataclass(frozen=True)
class Chip:
  """A device of a TPU as mesh_utils looks at one, where no TPU's own description is at hand."""

  id: int
  slice_index: int
  platform: str = "tpu"
  device_kind: str = "TPU v4"
  process_index: int = 0
  core_on_chip: int = 0

  @property
  def coords(self):
    return self.id % 4, self.id // 4 % 2, self.id // 8 % 2


@pytest.mark.parametrize("sizes, across", [((2, 4, 4), (2, 1)), ((4, -1, 2), (2, 1)), ((1, 16, 2), (1, 2)),
                                           ((2, -1, 16), (2, 1))], ids=str)
def test_data_and_then_fsdp_go_from_slice_to_slice_and_tensor_stays_within_one(sizes, across):
  chips = [Chip(number % 16, number // 16) for number in range(32)]
  mesh = meshes.make(MeshConfig(*sizes), chips)
  assert set(mesh.devices.flat) == set(chips) and mesh.axis_types == (AxisType.Auto,) * 3
  slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
  for axis, parts in enumerate((*across, 1)):   # so many slices along every line of an axis, each of them a block
    assert ((np.diff(slices, axis=axis) != 0).sum(axis=axis) == parts - 1).all()


def test_slices_that_neither_data_nor_fsdp_can_cross_are_refused():
  chips = [Chip(number % 16, number // 16) for number in range(32)]
  with pytest.raises(ValueError, match="data=1 x fsdp=1, but there are 2 slices.*--config.mesh.data=2"):
    meshes.make(MeshConfig(1, 1, 32), chips)


@pytest.mark.parametrize("topology, slices, sizes", [("v5e:4x4", 1, (1, 8, 2)), ("v5p:2x2x2", 2, (2, 4, 2))])
def test_real_descriptions_of_tpus_make_meshes(topology, slices, sizes, monkeypatch):
  """An axis may be a part of a physical one, as 8 x 2 on 4 x 4."""
  pytest.importorskip("libtpu", reason="libtpu describes TPUs; it comes with the extra `plan`")
  monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
  from jax.experimental import topologies
  more = {"num_slices": slices} if slices > 1 else {}
  devices = topologies.get_topology_desc(platform="tpu", topology_name=topology, **more).devices
  mesh = meshes.make(MeshConfig(*sizes), devices)
  assert tuple(mesh.shape.values()) == sizes and set(mesh.devices.flat) == set(devices)
  assert mesh.abstract_mesh.abstract_device.platform == "tpu"


def test_no_mesh_is_ever_entered_by_with_alone():
  """Under `with mesh:` flax's constraints are silently left out, and a pod runs out of memory: jax.set_mesh says it."""
  root = pathlib.Path(__file__).parents[2]
  for path in [*(root / "sftrl_jax").rglob("*.py"), *(root / "configs").rglob("*.py"), *(root / "tests").rglob("*.py")]:
    for node in ast.walk(ast.parse(path.read_text())):
      for item in getattr(node, "items", ()) if isinstance(node, ast.With | ast.AsyncWith) else ():
        call = ast.unparse(item.context_expr)
        entered = re.fullmatch(r"(.*\.)?\w*mesh|(.*\.)?(Mesh|make_mesh)\(.*\)|meshes\.make\(.*\)", call, re.DOTALL)
        assert not entered or call.startswith("jax.set_mesh("), f"{path}:{node.lineno}: with {call}"


@pytest.mark.parametrize("change,message", [
    ({"data": 0}, "data is 0"), ({"tensor": -2}, "tensor is -2"), ({"data": -1}, "only one of them may be -1"),
    ({"cpu_threads": -1}, "cpu_threads is -1")])
def test_a_layout_that_is_none_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    MeshConfig(**change)


def test_rows_are_split_over_data_and_fsdp_and_whole_over_tensor():
  mesh = meshes.make(MeshConfig(2, 2, 2))
  rows = {"tokens": np.arange(24).reshape(8, 3), "weights": np.ones(8, np.float32)}
  placed = meshes.shard_rows(mesh, rows)
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
