"""The mesh of devices (data, fsdp, tensor), and putting host arrays on it."""

import dataclasses

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")
ROWS = PartitionSpec(("data", "fsdp"))  # every array with rows is split over both


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """How devices are laid out; the product of the three axes is the number of devices.

  data: copies of the model that read different rows
  fsdp: devices over which rows and parameters are both split; -1 takes the devices that are left
  tensor: devices over which heads and ffn are split
  cpu_threads: threads XLA's CPU backend may use, fixed before JAX is imported (0: its default); bits depend on it
  """

  data: int = 1
  fsdp: int = -1
  tensor: int = 1
  cpu_threads: int = 0

  def __post_init__(self):
    for name in AXES:
      size = getattr(self, name)
      if size < 1 and size != -1:
        raise ValueError(f"{name} is {size}; it must be at least 1, or -1 for the devices that are left.")
    if sum(getattr(self, name) == -1 for name in AXES) > 1:
      raise ValueError("data, fsdp and tensor: only one of them may be -1.")
    if not 0 <= self.cpu_threads <= 4096:
      raise ValueError(f"cpu_threads is {self.cpu_threads}; it must be 0 (the default) or a number of threads, at most "
                       "4096.")


def make(config: MeshConfig, devices=None) -> Mesh:
  """The mesh over all devices. Axes are Auto: under `jax.make_mesh`'s default, Explicit, flax constraints fail."""
  devices = list(jax.devices() if devices is None else devices)
  sizes = [getattr(config, name) for name in AXES]
  if -1 in sizes:
    known = int(np.prod([size for size in sizes if size != -1]))
    sizes[sizes.index(-1)] = max(1, len(devices) // known)
  if int(np.prod(sizes)) != len(devices):
    shape = " x ".join(f"{name}={size}" for name, size in zip(AXES, sizes, strict=True))
    raise ValueError(f"config.mesh is {shape}, which is {int(np.prod(sizes))} devices, but there are {len(devices)}: "
                     "make the product equal, for example with --config.mesh.fsdp=-1.")
  return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def rows(mesh: Mesh) -> int:
  """Into how many parts rows are split."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def by_rows(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, ROWS)


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def place(mesh: Mesh, tree):
  """Host arrays whose first axis is rows, split over the mesh. Every process gives the same global array."""
  sharding = by_rows(mesh)
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)
  put = lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
  return jax.tree.map(lambda x: put(np.asarray(x)), tree)


def refuse_uneven(name: str, value: int, mesh: Mesh) -> None:
  """ValueError when `value` rows cannot be split evenly over the mesh."""
  parts = rows(mesh)
  if value % parts:
    raise ValueError(f"config.{name} is {value}, but the mesh {dict(mesh.shape)} splits rows {parts} ways: use a "
                     f"multiple, for example --config.{name}={-(-value // parts) * parts}.")
