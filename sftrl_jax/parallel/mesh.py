"""The mesh of devices (data, fsdp, tensor), and placing host arrays on it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")
ROWS = PartitionSpec(("data", "fsdp"))  # arrays with rows are split over both


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """The layout of devices; the product of the three axes is the number of devices.

  data: copies of the model that read different rows; with several TPU slices, best a multiple of their number
  fsdp: devices over which rows and parameters are both split; -1 takes the remaining devices
  tensor: devices over which heads and MLP channels are split
  cpu_threads: threads of XLA's CPU backend, fixed before JAX is imported (0: its default); bits depend on it
  """

  data: int = 1
  fsdp: int = -1
  tensor: int = 1
  cpu_threads: int = 0

  def __post_init__(self):
    for name in AXES:
      size = getattr(self, name)
      if size < 1 and size != -1:
        raise ValueError(f"{name} is {size}; it must be at least 1, or -1 for the remaining devices.")
    if sum(getattr(self, name) == -1 for name in AXES) > 1:
      raise ValueError("data, fsdp and tensor: only one of them may be -1.")
    if not 0 <= self.cpu_threads <= 4096:
      raise ValueError(f"cpu_threads is {self.cpu_threads}; it must be 0 (the default) or a number of threads, at most "
                       "4096.")


def make(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh over all devices. Axes are Auto: under `jax.make_mesh`'s default, Explicit, flax constraints fail.

  Neighbours in an axis are neighbours in the machine. The network between TPU slices (DCN) is slower than the links
  within one (ICI): data is split over slices first, then fsdp; tensor stays within a slice.
  """
  devices = list(devices_here() if devices is None else devices)
  sizes = _sizes(config, len(devices))
  slices = 1 if devices[0].platform == "cpu" else len({getattr(device, "slice_index", 0) for device in devices})
  if slices == 1:
    arranged = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  else:
    across = _over_slices(sizes, slices)
    within = tuple(size // parts for size, parts in zip(sizes, across, strict=True))
    arranged = mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)
  return Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def devices_here() -> list[jax.Device]:
  """jax.devices(); ValueError, which names JAX_PLATFORMS, where the devices that it asks for are not there."""
  try:
    return jax.devices()
  except (RuntimeError, AssertionError) as error:
    wanted = jax.config.jax_platforms or "any"
    raise ValueError(f"JAX_PLATFORMS is {wanted!r}, but this machine, or its jax, has no such device"
                     f"{': ' + str(error) if str(error) else ''}. Unset it, or use JAX_PLATFORMS=cpu.") from error


def _sizes(config: MeshConfig, count: int) -> tuple[int, ...]:
  """The sizes of the three axes, with -1 resolved."""
  sizes = [getattr(config, name) for name in AXES]
  known = math.prod(size for size in sizes if size != -1)
  if -1 in sizes and count % known == 0:
    sizes[sizes.index(-1)] = count // known
  if math.prod(sizes) != count:
    shape = " x ".join(f"{name}={size}" for name, size in zip(AXES, sizes, strict=True))
    divisors = ", ".join(str(size) for size in range(1, count + 1) if count % size == 0)
    raise ValueError(f"config.mesh is {shape}, but there are {count} devices, and {known} "
                     + ("does not divide them" if -1 in sizes else "is not their number")
                     + f": use sizes of {divisors}, and -1 for one of them, for example --config.mesh.fsdp=-1.")
  return tuple(sizes)


def _over_slices(sizes: tuple[int, ...], slices: int) -> tuple[int, ...]:
  """The number of slices that each axis is split over."""
  data = math.gcd(sizes[0], slices)
  fsdp = slices // data
  if sizes[1] % fsdp:
    raise ValueError(f"config.mesh has data={sizes[0]} x fsdp={sizes[1]}, but there are {slices} slices, and tensor "
                     f"stays within one: make data a multiple of {slices}, for example --config.mesh.data={slices}.")
  return data, fsdp, 1


def rows(mesh: Mesh) -> int:
  """The number of parts that rows are split into."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def by_rows(mesh: Mesh) -> NamedSharding:
  """The sharding of arrays whose first axis is rows."""
  return NamedSharding(mesh, ROWS)


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def shard_rows(mesh: Mesh, tree: Any) -> Any:
  """Host arrays whose first axis is rows, split over the mesh. Every process must pass the same global array."""
  sharding = by_rows(mesh)
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)
  put = lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
  return jax.tree.map(lambda x: put(np.asarray(x)), tree)


def refuse_uneven(name: str, value: int, mesh: Mesh) -> None:
  """ValueError when `value` rows cannot be split evenly over the mesh."""
  parts = rows(mesh)
  if value % parts:
    best = -(-value // parts) * parts
    example = f"multiple, for example --config.{name}={best}" if "/" not in name else f"multiple of {parts}"
    raise ValueError(f"config.{name} is {value}, but the mesh {dict(mesh.shape)} splits rows {parts} ways: use a "
                     f"{example}.")
