"""Sharding as two tables: parameter path -> logical axes, logical axis -> mesh axes.

A parameter matches exactly one pattern. There is no catch-all: a parameter without a rule is an error, not a silent
copy on every device. Layers are stacked on the first axis for training and separate for decoding, under the same rules.
"""

import contextlib
import math
import re
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sftrl_jax import trees
from sftrl_jax.projections import PROJECTIONS, SINGLES, TOWER_PROJECTIONS

LARGE = 2**20   # numbers from which an array must not be copied whole to several devices by accident
# Blocks of the decoder; those that attend to pictures have the same projections.
_STACKED, _UNSTACKED = r"(?:.*/)?model/(?:cross_)?layers/block/", r"(?:.*/)?model/(?:cross_)?layers/\d+/"
_TOWER = r"vision/tower/(?:global_)?layers/block/"   # and those of a tower that reads pictures

# Axes of one layer's parameters; stacked ones have "layers" before them.
LAYER_AXES = {
    **{f"{path}/kernel": (*each.reads, *each.writes) for path, each in PROJECTIONS.items()},
    **{f"{path}/bias": each.writes for path, each in PROJECTIONS.items() if each.bias},
    r"attn/(q|k)_norm/scale": ("norm",),
    r"(attn|mlp)(_post)?_norm/scale": ("norm",),
    r"(attn|mlp)_gate": ("norm",),
}
# The same of a tower that reads pictures.
TOWER_AXES = {
    **{f"{path}/kernel": (*each.reads, *each.writes) for path, each in TOWER_PROJECTIONS.items()},
    **{f"{path}/bias": each.writes for path, each in TOWER_PROJECTIONS.items()},
    r"(attn|mlp)_norm/(scale|bias)": ("norm",),
    r"(attn|mlp)_gate": ("norm",),
}
# Axes of the matrices [written, read] that large kernels are in decoding parameters.
MATRIX_AXES = {f"{path}/matrix": (each.writes[0], each.reads[0]) for path, each in PROJECTIONS.items()}
# Axes of low-rank adapters: a reads what the kernel reads, b writes what it writes. Those of blocks are always stacked.
ADAPTER_AXES, TOWER_ADAPTER_AXES = (
    {f"{path}/{leaf}": (*reads, *writes) for path, each in projections.items()
     for leaf, (reads, writes) in each.matrices.items() if leaf != "kernel"}
    for projections in (PROJECTIONS, TOWER_PROJECTIONS))
PARAMETER_AXES = {
    **{_STACKED + pattern: ("layers", *axes) for pattern, axes in LAYER_AXES.items()},
    **{_UNSTACKED + pattern: axes for pattern, axes in (LAYER_AXES | MATRIX_AXES).items()},
    **{r"(?:.*/)?lora/(?:cross_)?layers/block/" + pattern: ("layers", *axes) for pattern, axes in ADAPTER_AXES.items()},
    **{rf"(?:.*/)?model/{_TOWER}{pattern}": ("layers", *axes) for pattern, axes in TOWER_AXES.items()},
    **{rf"(?:.*/)?lora/{_TOWER}{pattern}": ("layers", *axes) for pattern, axes in TOWER_ADAPTER_AXES.items()},
    r"(?:.*/)?model/embed": ("vocab", "embed"),
    r"(?:.*/)?model/unembed": ("embed", "vocab"),
    r"(?:.*/)?model/final_norm/scale": ("norm",),
    r"(?:.*/)?model/vision/tower/patch/kernel": ("norm", "norm", "norm", "tower_embed"),
    r"(?:.*/)?model/vision/tower/patch/bias": ("norm",),
    r"(?:.*/)?model/vision/tower/positions": ("norm", "tower_embed"),
    r"(?:.*/)?model/vision/tower/positions/table": ("norm", "tower_embed"),
    r"(?:.*/)?model/vision/tower/positions/of_shapes": ("norm", "norm", "norm", "tower_embed"),
    r"(?:.*/)?model/vision/tower/(pre|post)_tile/table": ("norm", "norm", "tower_embed"),
    r"(?:.*/)?model/vision/tower/(positions|pre_tile|post_tile)/gate": ("norm",),
    r"(?:.*/)?model/vision/tower/class": ("norm",),
    r"(?:.*/)?model/vision/tower/\w*norm\w*/(scale|bias)": ("norm",),
    # Convolutions are small, and the connector is split as an MLP is.
    **{f"(?:.*/)?model/{path}/kernel": (*reads, *writes) for path, (reads, writes) in SINGLES.items()},
    **{f"(?:.*/)?lora/{path}/a": (*reads, "rank") for path, (reads, _) in SINGLES.items()},
    **{f"(?:.*/)?lora/{path}/b": ("rank", *writes) for path, (_, writes) in SINGLES.items()},
    r"(?:.*/)?model/vision/connector/proj/bias": ("norm",),
    r"(?:.*/)?model/vision/connector/places": ("tokens", "embed"),
    r"(?:.*/)?value/kernel": ("norm",),
    r"(?:.*/)?value/bias": (),
    # Hidden layers of a value head; "embed" is what they read, the trunk or the layer before.
    r"(?:.*/)?value/hidden/\d+/kernel": ("embed", "norm"),
    r"(?:.*/)?value/hidden/\d+/bias": ("norm",),
}

# Mesh axes of parameters and activations for training. "batch": rows, split over all devices of data and fsdp.
# "replicas": rows, split over copies of the model only. "across": heads or ids of rows split by "batch". "spread":
# channels of rows split by "replicas".
MESH_AXES = {"batch": ("data", "fsdp"), "replicas": "data", "embed": "fsdp", "heads": "tensor", "kv_heads": "tensor",
             "ffn": "tensor", "vocab": "tensor", "across": "tensor", "spread": "fsdp", "channels": None, "norm": None,
             "layers": None, "rank": None, "tokens": None, "width": None, "tower_embed": "fsdp",
             "tower_heads": "tensor", "tower_channels": None, "tower_ffn": "tensor"}
# For decoding with stationary matrices, split over all devices of a copy of the model by the axis they write (o and
# down by the axis they read): each layer then needs two all-reduces of rows x channels numbers.
STATIONARY_AXES = {**MESH_AXES, "embed": None,
                   **dict.fromkeys(("heads", "kv_heads", "ffn", "vocab"), ("tensor", "fsdp"))}
# For decoding with matrices split over tensor alone: fsdp multiplies the copies of the model.
GATHERED_AXES = {**MESH_AXES, "replicas": ("data", "fsdp"), "embed": None, "spread": None}


def applied(mesh_axes: dict = MESH_AXES) -> contextlib.AbstractContextManager:
  """A context in which activations are constrained by these axes, on the mesh of jax.set_mesh."""
  return nn.logical_axis_rules(tuple(mesh_axes.items()))


def axes_of(path: str, shape: tuple[int, ...]) -> tuple[str, ...]:
  """The logical axes of a parameter; ValueError unless exactly one rule matches, with as many axes as the shape."""
  axes = trees.the_one(PARAMETER_AXES, path, "parallel/rules.py")
  if len(axes) != len(shape):
    raise ValueError(f"{path} has {len(shape)} axes {shape}, but parallel/rules.py names {len(axes)}: {axes}.")
  return axes


def spec(path: str, shape: tuple[int, ...], mesh: Mesh, mesh_axes: dict = MESH_AXES) -> PartitionSpec:
  """The partition of a parameter. An axis that its mesh axis does not divide is not split, see undivided.py. Where
  several mesh axes do not divide an axis together, the parameter is split as in training."""
  if is_own(path):
    return PartitionSpec(*(None for _ in shape))
  axes = axes_of(path, shape)
  parts = lambda names: math.prod(mesh.shape[name] for name in ((names,) if isinstance(names, str) else names or ()))
  if any(isinstance(mesh_axes[axis], tuple) and size % parts(mesh_axes[axis])
         for axis, size in zip(axes, shape, strict=True)):
    mesh_axes = MESH_AXES
  split = [mesh_axes[axis] for axis in axes]
  return PartitionSpec(*(None if size % parts(names) else names for names, size in zip(split, shape, strict=True)))


def is_own(path: str) -> bool:
  """Whether a parameter is one that a user's own model adds; every device holds such a parameter whole."""
  return "own" in path.split("/")


def shardings(tree: Any, mesh: Mesh, mesh_axes: dict = MESH_AXES) -> Any:
  """A sharding for every leaf of a parameter tree whose root holds `model` or `lora` (and `value`)."""
  return trees.map_with_path(lambda path, leaf: NamedSharding(mesh, spec(path, leaf.shape, mesh, mesh_axes)), tree)


def table(tree: Any, mesh: Mesh, placed: Any = None) -> str:
  """The layout of a tree, a line an array: path, dtype, shape, logical axes, mesh axes, bytes a device.

  placed: the arrays' shardings, where they are not those of parameters. An array that no rule matches has no axes.
  """
  placed = shardings(tree, mesh) if placed is None else placed
  lines, total, joined = [], 0, lambda names: ",".join(names) or "()"
  for (path, leaf), sharding in zip(trees.leaves(tree).items(), jax.tree.leaves(placed), strict=True):
    axes = [joined(axes) for pattern, axes in PARAMETER_AXES.items() if re.fullmatch(pattern, path)
            and len(axes) == leaf.ndim]
    size = math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    split = (*sharding.spec, *[None] * (leaf.ndim - len(sharding.spec)))
    mesh_axes = ["+".join((names,) if isinstance(names, str) else names) if names else "-" for names in split]
    shape = "x".join(map(str, leaf.shape)) or "()"
    lines.append((path, leaf.dtype.name, shape, "".join(axes), joined(mesh_axes), f"{size:,}"))
    total += size
  lines.append(("total", "", "", "", "", f"{total:,}"))
  head = ("path", "dtype", "shape", "axes", "mesh axes", "bytes a device")
  widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
  last = lambda line: line[-1].rjust(widths[-1])
  return "\n".join("  ".join([*map(str.ljust, line[:-1], widths), last(line)]) for line in (head, *lines))


def like_parameters(tree: Any, params_shardings: Any, mesh: Mesh) -> Any:
  """Shardings of an optimizer's state: an array with the path and shape of a parameter follows it, others are
  replicated; but LARGE ones of another shape (galore's projected moments) are split over fsdp on their longest axis."""
  whole = NamedSharding(mesh, PartitionSpec())
  by_path = trees.leaves(params_shardings)

  def choose(path, leaf):
    names = path.split("/")
    tails = ("/".join(names[start:]) for start in range(len(names)))
    match = next((by_path[tail] for tail in tails if tail in by_path), None)
    if match is not None and _divides(match, leaf.shape):
      return match
    return NamedSharding(mesh, _longest(leaf.shape, mesh)) if leaf.size >= LARGE else whole

  return trees.map_with_path(choose, tree)


def _longest(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  """fsdp on the longest axis that it divides, if any."""
  fit = [axis for axis, size in enumerate(shape) if size % mesh.shape["fsdp"] == 0]
  best = max(fit, key=lambda axis: shape[axis], default=None)
  return PartitionSpec(*("fsdp" if axis == best else None for axis in range(len(shape))))


def _divides(sharding: NamedSharding, shape: tuple[int, ...]) -> bool:
  """Whether a parameter's sharding has an axis for each of the shape's, and splits it evenly."""
  parts = [sharding.mesh.shape[name] if name else 1 for name in sharding.spec]
  return len(parts) == len(shape) and all(size % count == 0 for size, count in zip(shape, parts, strict=True))
