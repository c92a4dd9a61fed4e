"""Sharding constraints of activations: named axes, mapped to the mesh of jax.set_mesh by flax's logical axis rules.

Without a mesh, without rules, and on one device there are no constraints, and the program is unchanged.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

# Axes of the residual stream. ROWS: each device has rows of its own, and matrices are gathered. STATIONARY: matrices
# stay on their devices, and all devices of one copy of the model have all of its rows. SPREAD: the same rows, but each
# device has channels of its own.
ROWS = ("batch", "tokens", "width")
STATIONARY = ("replicas", "tokens", "embed")
SPREAD = ("replicas", "tokens", "spread")
# Axes of queries, keys and values, with rows on devices and with matrices stationary.
HEADS = ("batch", "across", "tokens", "channels")
STATIONARY_HEADS = ("replicas", "heads", "tokens", "channels")


def spec(shape: tuple[int, ...], axes: tuple[str | None, ...]) -> PartitionSpec | None:
  """The mesh axes of named axes; one that they do not divide, or without a name, is not split. None where there is no
  constraint."""
  mesh, rules = jax.sharding.get_abstract_mesh(), nn.get_logical_axis_rules()
  if mesh.empty or mesh.size == 1 or not rules:
    return None
  mesh_axes = nn.logical_to_mesh_axes(axes, rules)
  parts = lambda names: math.prod(mesh.shape[name] for name in ((names,) if isinstance(names, str) else names))
  return PartitionSpec(*(names if names and size % parts(names) == 0 else None
                         for names, size in zip(mesh_axes, shape, strict=True)))


def constrain(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
  """x with a sharding constraint by these axes."""
  partition = spec(x.shape, axes)
  return x if partition is None else jax.lax.with_sharding_constraint(x, partition)


def spread(x_BKSC: jax.Array) -> jax.Array:
  """x_BKSC with its channels split as rows usually are, and rows whole; unchanged where the channels do not divide."""
  partition = spec(x_BKSC.shape, ("width", "across", "tokens", "batch"))
  if partition is None or partition[3] is None:
    return x_BKSC
  return jax.lax.with_sharding_constraint(x_BKSC, partition)


def by_device(kernel: Callable[..., jax.Array], q_BHTC: jax.Array, k_BKTC: jax.Array, v_BKTC: jax.Array,
              *rows: jax.Array) -> jax.Array:
  """kernel(q_BHTC, k_BKTC, v_BKTC, *rows), x_BHTC, each device with its own rows and heads. rows: arrays [B, ...]"""
  partition = spec(q_BHTC.shape, HEADS)
  if partition is None:
    return kernel(q_BHTC, k_BKTC, v_BKTC, *rows)
  mesh, heads = jax.sharding.get_abstract_mesh(), partition[1]
  copies = math.lcm(k_BKTC.shape[1], mesh.shape[heads] if heads else 1) // k_BKTC.shape[1]
  k_BKTC, v_BKTC = (jnp.repeat(x, copies, axis=1) for x in (k_BKTC, v_BKTC))   # at least one kv head a device
  of_rows = [PartitionSpec(partition[0], *[None] * (x.ndim - 1)) for x in rows]
  kernel = jax.shard_map(kernel, in_specs=(partition, partition, partition, *of_rows), out_specs=partition,
                         check_vma=False)
  return kernel(q_BHTC, k_BKTC, v_BKTC, *rows)


def platform() -> str:
  """The platform of the devices of the mesh, which may be another machine's; without a mesh, of the devices here."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.default_backend() if device is None else device.platform


def devices() -> int:
  """Devices of the mesh; without a mesh, 1."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty else mesh.size
