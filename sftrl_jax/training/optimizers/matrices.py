"""The matrices inside blocks, stacked over layers: their paths, and optimizers that take each by itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from sftrl_jax import trees
from sftrl_jax.projections import STACKS

# {the last three parts of a path: (axes read, axes written)}, behind the layers' axis. Both factors of an adapter are
# matrices too.
_AXES = {f"{path}/{leaf}": (tuple(range(1, 1 + len(reads))), tuple(range(1 + len(reads), 1 + len(reads) + len(writes))))
         for projections in STACKS.values() for path, projection in projections.items()
         for leaf, (reads, writes) in projection.matrices.items()}
_BLOCKS = tuple(f"{tree}/{stack}" for tree in ("model", "lora", "critic/model") for stack in STACKS)


def axes(path: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
  """The axes that a matrix inside a block reads from and writes to; None for any other parameter."""
  return _AXES.get("/".join(path.split("/")[-3:])) if path.startswith(_BLOCKS) else None


def muon_dimensions(params: optax.Params) -> Any:
  """Which axes of a leaf Muon orthogonalises, None for Adam. Its default would take the embedding and miss the scanned
  blocks, whose layer axis is a batch of matrices."""

  def choose(path: str, leaf: Any) -> contrib.MuonDimensionNumbers | None:
    both = axes(path)
    return contrib.MuonDimensionNumbers(reduction_axis=both[0], output_axis=both[1]) if both else None

  return trees.map_with_path(choose, params)


def galore(make: Callable, schedule: Callable, **args) -> optax.GradientTransformation:
  """GaLore on the matrices inside blocks, each by itself, and Adam on all other parameters."""

  def dimensions(params: optax.Params) -> Any:  # of one layer
    less = lambda numbers: tuple(number - 1 for number in numbers)
    choose = lambda path, leaf: contrib.GaLoreDimensionNumbers(*(less(numbers) for numbers in axes(path)))
    return trees.map_with_path(choose, params)

  label = lambda tree: trees.map_with_path(lambda path, _: "galore" if axes(path) else "adam", tree)
  inside = _apart(make(schedule, weight_dimension_numbers=dimensions, **args))
  return optax.partition({"galore": inside, "adam": optax.adam(schedule)}, label)


def by_layer(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """An optimizer that reads whole arrays (their norms, their rows), applied to each layer of a stack by itself."""
  label = lambda tree: trees.map_with_path(
      lambda path, _: "stacked" if path.startswith(_BLOCKS) else "single", tree)
  return optax.partition({"stacked": _apart(optimizer), "single": optimizer}, label)


def _apart(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """The optimizer mapped over the first axis of all leaves. Its numbers are per layer; its counters are shared, so that
  rare work (an SVD every so many updates) stays a branch."""

  def of_state(params: optax.Params) -> Any:
    layer = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), params)
    return jax.tree.map(lambda x: 0 if jnp.issubdtype(x.dtype, jnp.inexact) else None,
                        jax.eval_shape(optimizer.init, layer))

  def init(params: optax.Params) -> optax.OptState:
    mapped = jax.vmap(optimizer.init, out_axes=of_state(params)) if jax.tree.leaves(params) else optimizer.init
    return mapped(params)

  def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
    if not jax.tree.leaves(updates):
      return optimizer.update(updates, state, params)
    state_axes = of_state(updates)
    return jax.vmap(optimizer.update, in_axes=(0, state_axes, 0), out_axes=(0, state_axes))(updates, state, params)

  return optax.GradientTransformation(init, update)
