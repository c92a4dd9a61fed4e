"""The matrices inside blocks, stacked over layers: which they are, and optimizers that take them one by one."""

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from sftrl_jax import trees
from sftrl_jax.projections import PROJECTIONS

# {the last three parts of a path: (axes read, axes written)}, behind the layers' axis. Both factors of an adapter are
# matrices too.
_AXES = {f"{path}/{leaf}": (tuple(range(1, 1 + len(reads))), tuple(range(1 + len(reads), 1 + len(reads) + len(writes))))
         for path, projection in PROJECTIONS.items() for leaf, (reads, writes) in projection.matrices.items()}
_BLOCKS = ("model/layers/", "lora/layers/")


def axes(path: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
  """The axes that a matrix inside a block reads from and writes to; None for any other parameter."""
  return _AXES.get("/".join(path.split("/")[-3:])) if path.startswith(_BLOCKS) else None


def muon_dimensions(params):
  """Which axes of a leaf Muon orthogonalises, None for Adam. Its default would take the embedding and miss the scanned
  blocks, whose layer axis is a batch of matrices."""

  def choose(path: str, leaf):
    found = axes(path)
    return contrib.MuonDimensionNumbers(reduction_axis=found[0], output_axis=found[1]) if found else None

  return trees.map_with_path(choose, params)


def galore(make, schedule, **args) -> optax.GradientTransformation:
  """GaLore on the matrices inside blocks, each by itself, and Adam on everything else."""

  def dimensions(params):  # of one layer
    less = lambda numbers: tuple(number - 1 for number in numbers)
    choose = lambda path, leaf: contrib.GaLoreDimensionNumbers(*(less(numbers) for numbers in axes(path)))
    return trees.map_with_path(choose, params)

  label = lambda tree: trees.map_with_path(lambda path, _: "galore" if axes(path) else "adam", tree)
  inside = _apart(make(schedule, weight_dimension_numbers=dimensions, **args))
  return optax.partition({"galore": inside, "adam": optax.adam(schedule)}, label)


def by_layer(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """An optimizer that looks at whole arrays (their norms, their rows), shown the layers of a stack one by one."""
  label = lambda tree: trees.map_with_path(
      lambda path, _: "stacked" if path.startswith(tuple(f"{blocks}block/" for blocks in _BLOCKS)) else "single", tree)
  return optax.partition({"stacked": _apart(optimizer), "single": optimizer}, label)


def _apart(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """The optimizer mapped over the first axis of all leaves. Its numbers are per layer; its counters are shared, so that
  what it does every so often (an SVD) stays a branch."""

  def of_state(params):
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), params)
    return jax.tree.map(lambda x: 0 if jnp.issubdtype(x.dtype, jnp.inexact) else None,
                        jax.eval_shape(optimizer.init, one))

  def init(params):
    mapped = jax.vmap(optimizer.init, out_axes=of_state(params)) if jax.tree.leaves(params) else optimizer.init
    return mapped(params)

  def update(updates, state, params=None):
    if not jax.tree.leaves(updates):
      return optimizer.update(updates, state, params)
    where = of_state(updates)
    return jax.vmap(optimizer.update, in_axes=(0, where, 0), out_axes=(0, where))(updates, state, params)

  return optax.GradientTransformation(init, update)
