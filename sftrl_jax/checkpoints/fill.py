"""A parameter tree read from a checkpoint, tensor by tensor, straight into the shards that this host holds.

The layers of a stack are written one by one into the stack's shards. On a CPU a shard is the array itself, so besides
the parameters the host holds one tensor of the checkpoint; on an accelerator also the shards of one parameter, until
they are transferred.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from sftrl_jax import trees
from sftrl_jax.checkpoints.families.table import Tensor
from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.projections import is_stacked

ROWS = 64   # rows of a file's matrix that are transposed at a time
ALIGNED = 64   # bytes: XLA's CPU backend uses memory with this alignment without a copy


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A model from a checkpoint: its config, its parameters, and its tokenizer (None if it has none)."""

  config: DecoderConfig
  params: dict
  tokenizer: Any


@functools.lru_cache(maxsize=8)
def shapes_of(config: DecoderConfig) -> dict:
  """The parameter tree as ShapeDtypeStructs."""
  return jax.eval_shape(build(config).init, jax.random.key(0))


def named(params: dict, names: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
  """{name: shape} of a parameter tree's tensors in a checkpoint, in the order of the parameters."""
  shapes, leaves = {}, trees.leaves(params)
  for paths in sharing(params, names).values():
    stacked = is_stacked(paths[0])
    parts = [names[path].shape(leaves[path].shape[stacked:]) for path in paths]
    for n in range(leaves[paths[0]].shape[0] if stacked else 1):
      shapes[names[paths[0]].of_layer(n)] = (sum(part[0] for part in parts), *parts[0][1:])
  return shapes


def sharing(params: dict, names: Mapping[str, Tensor]) -> dict[str, list[str]]:
  """{name of a tensor, of the first layer: the parameters in it, from its first row on}, in the order of the
  parameters."""
  paths_of = {}
  for path in trees.leaves(params):
    paths_of.setdefault(names[path].of_layer(0), []).append(path)
  return {name: sorted(paths, key=lambda path: names[path].part) for name, paths in paths_of.items()}


def refuse_others(where: str, present: Mapping[str, tuple], wanted: Mapping[str, tuple],
                  ignored: Callable[[str], bool]) -> None:
  """One ValueError for all tensors that are missing, surplus or of another shape.

  present, wanted: {name: shape}. ignored: whether a surplus name is allowed.
  """
  missing = [name for name in wanted if name not in present]
  surplus = [name for name in present if name not in wanted and not ignored(name)]
  wrong = [f"{name} is {list(present[name])} instead of {list(shape)}" for name, shape in wanted.items()
           if name in present and tuple(present[name]) != tuple(shape)]
  problems = [f"{len(names)} {problem}: {_few(names)}" for names, problem in (
      (missing, "missing"), (surplus, "that this model does not have"), (wrong, "of another shape")) if names]
  if problems:
    raise ValueError(f"{where} does not hold the tensors of its model. {'. '.join(problems)}.")


def fill(config: DecoderConfig, names: Mapping[str, Tensor], dtype: str, shardings: Any,
         read: Callable[[str], np.ndarray]) -> dict:
  """The parameters in `dtype`.

  names: {path of a parameter: its tensor}. shardings: a tree of one sharding a parameter; None puts all on the first
  device. read: a tensor by its name, in the checkpoint's own layout.
  """
  shapes = shapes_of(config)
  if shardings is None:
    first_device = SingleDeviceSharding(jax.local_devices()[0])
    shardings = jax.tree.map(lambda _: first_device, shapes)
  sharding_of, rows = trees.leaves(shardings), _rows(shapes, names)
  rows_of = lambda path: lambda name: read(name)[rows[path]] if path in rows else read(name)
  return trees.map_with_path(lambda path, leaf: _parameter(
      names[path], leaf.shape, jnp.dtype(dtype), sharding_of[path], rows_of(path), is_stacked(path)), shapes)


def _rows(shapes: dict, names: Mapping[str, Tensor]) -> dict[str, slice]:
  """{path of a parameter that shares its tensor: its rows there}."""
  rows, leaves = {}, trees.leaves(shapes)
  for paths in sharing(shapes, names).values():
    start = 0
    for path in paths if len(paths) > 1 else ():
      size = names[path].shape(leaves[path].shape[is_stacked(path):])[0]
      rows[path], start = slice(start, start + size), start + size
  return rows


def _parameter(tensor: Tensor, shape, dtype, sharding: Sharding, read, stacked: bool) -> jax.Array:
  spans = {_span(index, shape) for index in sharding.addressable_devices_indices_map(shape).values()}
  shards = {span: _empty([stop - start for start, stop in span], dtype) for span in spans}
  inner = shape[1:] if stacked else shape
  for n in range(shape[0] if stacked else 1):
    wanted = {span: shard for span, shard in shards.items() if not stacked or span[0][0] <= n < span[0][1]}
    if not wanted:
      continue
    array = tensor.inward(read(tensor.of_layer(n)), inner)
    for span, shard in wanted.items():
      part = array[tuple(slice(*limits) for limits in (span[1:] if stacked else span))]
      _copy(part, shard[n - span[0][0]] if stacked else shard)
  return jax.make_array_from_callback(shape, sharding, lambda index: shards[_span(index, shape)])


def _copy(source: np.ndarray, target: np.ndarray) -> None:
  """Copies some rows of the file at a time: to transpose a large matrix at once takes four times as long."""
  order = sorted(range(source.ndim), key=lambda axis: -source.strides[axis])   # the order of axes in the file
  source, target = source.transpose(order), target.transpose(order)
  fastest = min(range(target.ndim), key=lambda axis: target.strides[axis])
  step = len(source) if fastest == target.ndim - 1 else max(1, ROWS // math.prod(source.shape[1 : fastest + 1]))
  for start in range(0, len(source), step):
    target[start : start + step] = source[start : start + step]


def _span(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
  """The (start, stop) of a shard's index on each axis: hashable, and with ends filled in."""
  return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


def _empty(shape: list[int], dtype) -> np.ndarray:
  """An uninitialised array, aligned to ALIGNED bytes."""
  size = math.prod(shape) * dtype.itemsize
  buffer = np.empty(size + ALIGNED, np.uint8)
  start = -buffer.ctypes.data % ALIGNED
  return buffer[start : start + size].view(dtype).reshape(shape)


def _few(names: list[str]) -> str:
  return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
