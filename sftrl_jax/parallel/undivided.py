"""Large parameters that a mesh cannot split as the rules say: refused, or told of where nobody can help it."""

from jax.sharding import Mesh

from sftrl_jax import trees
from sftrl_jax.parallel import rules

WORDS = {"embed": "channels of width", "ffn": "channels of ffn", "heads": "heads", "kv_heads": "kv_heads",
         "vocab": "rows of vocabulary"}


def check(tree, mesh: Mesh) -> tuple[str, ...]:
  """Sentences on what lies whole; ValueError, with both numbers and what would do, for what need not.

  tree: of parameters, as `rules.shardings` takes them. Told of, and no error:
  - Fewer kv heads than devices in tensor: each device needs one anyhow.
  - A vocabulary that does not divide: it comes with the weights, and padded tables would be another model in exports.
    The tables are still split over fsdp. A model from scratch may have more rows than its tokenizer has ids.
  - What is new in a user's own model.
  """
  told = {}
  for path, leaf in trees.leaves(tree).items():
    if leaf.size < rules.LARGE or mesh.size == 1:
      continue
    if rules.is_own(path):
      told[path] = f"{path}, of a model of your own, has {leaf.size:,} numbers and lies whole on every device."
      continue
    for axis, size in zip(rules.axes_of(path, leaf.shape), leaf.shape, strict=True):
      name = rules.MESH_AXES[axis]
      parts = mesh.shape[name] if name else 1
      if size % parts == 0:
        continue
      if not _bearable(axis, size, parts):
        raise ValueError(f"config.mesh.{name} is {parts}, but the model has {size} {WORDS[axis]}, so that {path} would "
                         f"not be split: use {_choices(tree, mesh, name)}.")
      told[axis] = (f"config.mesh.{name} is {parts}, and the model has {size} {WORDS[axis]}: {path} and its like are "
                    f"not split over {name}." + (_way_out(size, parts) if axis == "vocab" else ""))
  return tuple(told.values())


def _bearable(axis: str, size: int, parts: int) -> bool:
  return axis == "vocab" or (axis == "kv_heads" and size < parts)


def _way_out(size: int, parts: int) -> str:
  return f" A model from scratch could have --config.model.vocab={-(-size // parts) * parts}."


def _choices(tree, mesh: Mesh, name: str) -> str:
  """Sizes of a mesh axis that divide the devices, and all that has to be split over it."""
  large = {path: leaf.shape for path, leaf in trees.leaves(tree).items()
           if leaf.size >= rules.LARGE and not rules.is_own(path)}
  sizes = {(axis, size) for path, shape in large.items()
           for axis, size in zip(rules.axes_of(path, shape), shape, strict=True) if rules.MESH_AXES[axis] == name}
  fit = [parts for parts in range(1, mesh.size + 1) if mesh.size % parts == 0 and all(
      size % parts == 0 or _bearable(axis, size, parts) for axis, size in sizes)]
  return " or ".join([", ".join(map(str, fit[:-1])), str(fit[-1])] if fit[1:] else ["1"])

