"""Sharding as two tables: parameter path -> logical axes, logical axis -> mesh axes.

A parameter matches exactly one pattern, and there is no catch-all: a forgotten one is an error, not a silent copy on
every device. Layers are stacked on the first axis for training and apart for decoding; both spell the same rule.
"""

import math
import re

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sftrl_jax import trees
from sftrl_jax.projections import PROJECTIONS

LARGE = 2**20   # numbers from which on an array must not lie whole on several devices by accident
_STACKED, _APART = r"(?:.*/)?model/layers/block/", r"(?:.*/)?model/layers/\d+/"

# Axes of one layer's parameters; the stacked ones have "layers" in front.
LAYER_AXES = {
    **{f"{path}/kernel": (*each.reads, *each.writes) for path, each in PROJECTIONS.items()},
    **{f"{path}/bias": each.writes for path, each in PROJECTIONS.items() if each.bias},
    r"attn/(q|k)_norm/scale": ("norm",),
    r"(attn|mlp)(_post)?_norm/scale": ("norm",),
}
# Of decoding parameters, where large kernels are matrices [written, read].
MATRIX_AXES = {f"{path}/matrix": (each.writes[0], each.reads[0]) for path, each in PROJECTIONS.items()}
# Of low-rank adapters, which are always stacked: what a kernel reads, a reads; what it writes, b writes.
ADAPTER_AXES = {f"{path}/{leaf}": (*reads, *writes) for path, each in PROJECTIONS.items()
                for leaf, (reads, writes) in each.matrices.items() if leaf != "kernel"}
PARAMETER_AXES = {
    **{_STACKED + pattern: ("layers", *axes) for pattern, axes in LAYER_AXES.items()},
    **{_APART + pattern: axes for pattern, axes in (LAYER_AXES | MATRIX_AXES).items()},
    **{r"(?:.*/)?lora/layers/block/" + pattern: ("layers", *axes) for pattern, axes in ADAPTER_AXES.items()},
    r"(?:.*/)?model/embed": ("vocab", "embed"),
    r"(?:.*/)?model/unembed": ("embed", "vocab"),
    r"(?:.*/)?model/final_norm/scale": ("norm",),
    r"(?:.*/)?value/kernel": ("norm",),
    r"(?:.*/)?value/bias": (),
}

# Axes of parameters and of activations: "batch" is rows on all devices, "replicas" rows on copies of the model alone,
# "across" heads or ids of such rows, "spread" channels of what all devices of a copy have the rows of.
MESH_AXES = {"batch": ("data", "fsdp"), "replicas": "data", "embed": "fsdp", "heads": "tensor", "kv_heads": "tensor",
             "ffn": "tensor", "vocab": "tensor", "across": "tensor", "spread": "fsdp", "channels": None, "norm": None,
             "layers": None, "rank": None, "tokens": None, "width": None}
# For decoding with matrices that stay where they are, split over all devices of a copy of the model by what they write
# (o and down by what they read): a layer then costs two sums of as many numbers as there are rows times channels.
STILL_AXES = {**MESH_AXES, "embed": None, **dict.fromkeys(("heads", "kv_heads", "ffn", "vocab"), ("tensor", "fsdp"))}
# For decoding with matrices that are split over tensor alone: fsdp is then as many copies more.
GATHERED_AXES = {**MESH_AXES, "replicas": ("data", "fsdp"), "embed": None, "spread": None}


def activation_rules(mesh_axes: dict = MESH_AXES) -> tuple:
  """Mesh axes as flax wants them, for `flax.linen.logical_axis_rules`."""
  return tuple(mesh_axes.items())


def applied(mesh_axes: dict = MESH_AXES):
  """A context in which activations are constrained by these axes, on the mesh that is set."""
  return nn.logical_axis_rules(activation_rules(mesh_axes))


def axes_of(path: str, shape: tuple[int, ...]) -> tuple[str, ...]:
  """The names of a parameter's axes; ValueError unless exactly one rule says them."""
  axes = trees.the_one(PARAMETER_AXES, path, "parallel/rules.py")
  if len(axes) != len(shape):
    raise ValueError(f"{path} has {len(shape)} axes {shape}, but parallel/rules.py names {len(axes)}: {axes}.")
  return axes


def spec(path: str, shape: tuple[int, ...], mesh: Mesh, mesh_axes: dict = MESH_AXES) -> PartitionSpec:
  """Where a parameter's axes go. An axis that its mesh axis does not divide stays whole: see undivided.py. One that
  several do not divide together makes the parameter lie as it is trained."""
  if is_own(path):
    return PartitionSpec(*(None for _ in shape))
  axes = axes_of(path, shape)
  parts = lambda name: math.prod(mesh.shape[one] for one in ((name,) if isinstance(name, str) else name or ()))
  if any(isinstance(mesh_axes[axis], tuple) and size % parts(mesh_axes[axis])
         for axis, size in zip(axes, shape, strict=True)):
    mesh_axes = MESH_AXES
  names = [mesh_axes[axis] for axis in axes]
  return PartitionSpec(*(None if size % parts(name) else name for name, size in zip(names, shape, strict=True)))


def is_own(path: str) -> bool:
  """Whether a parameter is new in a user's own model: such are whole on every device."""
  return "own" in path.split("/")


def shardings(tree, mesh: Mesh, mesh_axes: dict = MESH_AXES):
  """A sharding for every leaf of a parameter tree whose root holds `model` or `lora` (and `value`)."""
  return trees.map_with_path(lambda path, leaf: NamedSharding(mesh, spec(path, leaf.shape, mesh, mesh_axes)), tree)


def table(tree, mesh: Mesh, placed=None) -> str:
  """Where everything in a tree lies, a line an array: path, dtype, sizes, their names, mesh axes, bytes a device.

  placed: the arrays' shardings, where they are not those of parameters; what is named so by no rule has no names.
  """
  placed = shardings(tree, mesh) if placed is None else placed
  lines, total, said = [], 0, lambda words: ",".join(words) or "()"
  for (path, leaf), where in zip(trees.leaves(tree).items(), jax.tree.leaves(placed), strict=True):
    names = [said(axes) for pattern, axes in PARAMETER_AXES.items() if re.fullmatch(pattern, path)
             and len(axes) == leaf.ndim]
    size = math.prod(where.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    places = ("+".join((place,) if isinstance(place, str) else place) if place else "-" for place in (
        *where.spec, *[None] * (leaf.ndim - len(where.spec))))
    lines.append((path, leaf.dtype.name, "x".join(map(str, leaf.shape)) or "()", "".join(names), said(list(places)),
                  f"{size:,}"))
    total += size
  lines.append(("total", "", "", "", "", f"{total:,}"))
  head = ("path", "dtype", "shape", "axes", "mesh axes", "bytes a device")
  widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
  last = lambda line: line[-1].rjust(widths[-1])
  return "\n".join("  ".join([*map(str.ljust, line[:-1], widths), last(line)]) for line in (head, *lines))


def like_parameters(tree, params_shardings, mesh: Mesh):
  """Shardings for an optimizer's state: what is shaped like a parameter follows it, anything else is replicated; but
  what is LARGE and of another shape (galore's projected moments) is split over fsdp along its longest axis."""
  whole = NamedSharding(mesh, PartitionSpec())
  by_path = trees.leaves(params_shardings)

  def choose(keys, leaf):
    path = trees.path_of(keys)
    match = next((by_path[tail] for tail in _tails(path) if tail in by_path), None)
    if match is not None and len(match.spec) <= leaf.ndim and _divides(match, leaf.shape):
      return match
    return NamedSharding(mesh, _longest(leaf.shape, mesh)) if leaf.size >= LARGE else whole

  return jax.tree_util.tree_map_with_path(choose, tree)


def _longest(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  """fsdp on the longest axis that it divides, if there is one."""
  fit = [axis for axis, size in enumerate(shape) if size % mesh.shape["fsdp"] == 0]
  best = max(fit, key=lambda axis: shape[axis], default=None)
  return PartitionSpec(*("fsdp" if axis == best else None for axis in range(len(shape))))


def _tails(path: str):
  parts = path.split("/")
  return ("/".join(parts[start:]) for start in range(len(parts)))


def _divides(sharding: NamedSharding, shape: tuple[int, ...]) -> bool:
  sizes = [sharding.mesh.shape[name] if name else 1 for name in sharding.spec]
  return all(size % parts == 0 and size >= parts for size, parts in zip(shape, sizes, strict=False)) and (
      len(sharding.spec) == len(shape))
