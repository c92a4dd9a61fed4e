"""How activations lie on the devices: axes by name, put on the mesh that is set (jax.set_mesh) by the rules in force.

Without a mesh, without rules, and on one device nothing is said, and nothing of a program changes.
"""

import math

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

# Of a residual stream. ROWS: each device has rows of its own and sees whole matrices, gathered where they are split.
# STILL: matrices stay where they are; the rows of one copy of the model are on all its devices. SPREAD: so are these
# rows, but each device has channels of its own.
ROWS = ("batch", "tokens", "width")
STILL = ("replicas", "tokens", "embed")
SPREAD = ("replicas", "tokens", "spread")
HEADS = ("batch", "across", "tokens", "channels")   # of rows, and of what they attend to
STILL_HEADS = ("replicas", "heads", "tokens", "channels")


def spec(shape: tuple[int, ...], axes: tuple[str, ...]) -> PartitionSpec | None:
  """Where named axes go; one that does not divide stays whole. None where there is nothing to say."""
  mesh, rules = jax.sharding.get_abstract_mesh(), nn.get_logical_axis_rules()
  if mesh.empty or mesh.size == 1 or not rules:
    return None
  parts = lambda place: math.prod(mesh.shape[name] for name in ((place,) if isinstance(place, str) else place))
  places = nn.logical_to_mesh_axes(axes, rules)
  return PartitionSpec(*(place if place and size % parts(place) == 0 else None
                         for place, size in zip(places, shape, strict=True)))


def constrain(x, axes: tuple[str, ...]):
  """x, told to lie so."""
  places = spec(x.shape, axes)
  return x if places is None else jax.lax.with_sharding_constraint(x, places)


def spread(x_BKSC):
  """x_BKSC with channels split as rows are at other times, and all rows together; as it is where they do not divide."""
  places = spec(x_BKSC.shape, ("width", "across", "tokens", "batch"))
  return x_BKSC if places is None or places[3] is None else jax.lax.with_sharding_constraint(x_BKSC, places)


def platform() -> str:
  """Of the devices that a program is for: those of the mesh, which may be another machine's, else those here."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.default_backend() if device is None else device.platform
