"""Large parameters that a mesh cannot split as the rules say: an error, or a note where it cannot be avoided."""

from typing import Any

from jax.sharding import Mesh

from sftrl_jax import trees
from sftrl_jax.parallel import rules
from sftrl_jax.projections import AXES

FIELDS = {**{name: axis.field for name, axis in AXES.items()}, "vocab": "vocab"}   # of DecoderConfig


def check(tree: Any, mesh: Mesh) -> tuple[str, ...]:
  """Notes on large parameters that are not split; ValueError, with both numbers and sizes that work, where avoidable.

  tree: parameters, as `rules.shardings` takes them. Notes, and no errors, are for:
  - Fewer kv heads than devices in tensor: each device needs one anyway.
  - A vocabulary that does not divide: it comes with the weights, and padded tables would be another model in exports.
    The tables are still split over fsdp. A model from scratch may have more rows than its tokenizer has ids.
  - Parameters that a user's own model adds.
  """
  notes = {}
  for path, leaf in trees.leaves(tree).items():
    if leaf.size < rules.LARGE or mesh.size == 1:
      continue
    if rules.is_own(path):
      notes[path] = f"{path}, of a model of your own, has {leaf.size:,} numbers and is whole on every device."
      continue
    for axis, size in zip(rules.axes_of(path, leaf.shape), leaf.shape, strict=True):
      name = rules.MESH_AXES[axis]
      parts = mesh.shape[name] if name else 1
      if size % parts == 0:
        continue
      mesh_size, model_size = f"config.mesh.{name} is {parts}", f"the model's {FIELDS[axis]} is {size}"
      if not _unavoidable(axis, size, parts):
        raise ValueError(f"{mesh_size}, but {model_size}, so that {path} would not be split: use "
                         f"{_choices(tree, mesh, name)}.")
      notes[axis] = f"{mesh_size}, and {model_size}: {path} and its like are not split over {name}."
      if axis == "vocab":
        notes[axis] += f" A model from scratch could have --config.model.vocab={-(-size // parts) * parts}."
  return tuple(notes.values())


def _unavoidable(axis: str, size: int, parts: int) -> bool:
  return axis == "vocab" or (axis == "kv_heads" and size < parts)


def _choices(tree, mesh: Mesh, name: str) -> str:
  """The sizes of a mesh axis that divide the devices, and every parameter axis that is split over it."""
  sizes = {(axis, size) for path, leaf in trees.leaves(tree).items()
           if leaf.size >= rules.LARGE and not rules.is_own(path)
           for axis, size in zip(rules.axes_of(path, leaf.shape), leaf.shape, strict=True)
           if rules.MESH_AXES[axis] == name}
  fit = [parts for parts in range(1, mesh.size + 1) if mesh.size % parts == 0 and all(
      size % parts == 0 or _unavoidable(axis, size, parts) for axis, size in sizes)]
  return " or ".join([", ".join(map(str, fit[:-1])), str(fit[-1])] if fit[1:] else ["1"])

