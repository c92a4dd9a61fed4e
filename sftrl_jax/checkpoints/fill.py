"""A parameter tree filled from a checkpoint, tensor by tensor, each straight into the shards that this host holds.

The layers of a stack are written one by one into the stack's shards. On a CPU a shard is the array itself, so beyond
the parameters the host holds one tensor of the checkpoint; on an accelerator the shards of one parameter as well, on
their way.
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
from sftrl_jax.projections import STACK

ROWS = 64   # of a file's matrix that are turned at a time
ALIGNED = 64   # bytes: XLA's CPU backend takes such memory over as it is, and copies any other


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A model from elsewhere: its config, its parameters, and its tokenizer (None where it has none)."""

  config: DecoderConfig
  params: dict
  tokenizer: Any


@functools.lru_cache(maxsize=8)
def shapes_of(config: DecoderConfig) -> dict:
  """The parameter tree in shapes."""
  return jax.eval_shape(build(config).init, jax.random.key(0))


def expected(config: DecoderConfig, names: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
  """{name: shape} of every tensor that a checkpoint of this model holds."""
  return named(shapes_of(config), names)


def named(params: dict, names: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
  """{name: shape} of a parameter tree's tensors in a checkpoint, parameter by parameter."""
  found = {}
  for path, leaf in trees.leaves(params).items():
    tensor, stacked = names[path], path.startswith(STACK)
    for n in range(leaf.shape[0] if stacked else 1):
      found[tensor.name.format(n=n)] = tensor.shape(leaf.shape[1:] if stacked else leaf.shape)
  return found


def refuse_others(where: str, there: Mapping[str, tuple], wanted: Mapping[str, tuple],
                  ignored: Callable[[str], bool]) -> None:
  """One ValueError for all tensors that are missing, too many or of another shape."""
  missing = [name for name in wanted if name not in there]
  surplus = [name for name in there if name not in wanted and not ignored(name)]
  wrong = [f"{name} is {list(there[name])} instead of {list(shape)}" for name, shape in wanted.items()
           if name in there and tuple(there[name]) != tuple(shape)]
  told = [f"{len(names)} {word}: {_few(names)}" for names, word in (
      (missing, "missing"), (surplus, "that this model does not have"), (wrong, "of another shape")) if names]
  if told:
    raise ValueError(f"{where} does not hold the tensors of its model. {'. '.join(told)}.")


def fill(config: DecoderConfig, names: Mapping[str, Tensor], dtype: str, shardings: Any,
         read: Callable[[str], np.ndarray]) -> dict:
  """The parameters, with read(name) for each tensor in the checkpoint's own layout.

  shardings: a tree of one sharding a parameter; None puts all on the first device.
  """
  shapes = shapes_of(config)
  if shardings is None:
    alone = SingleDeviceSharding(jax.local_devices()[0])
    shardings = jax.tree.map(lambda _: alone, shapes)
  where = trees.leaves(shardings)
  return trees.map_with_path(lambda path, leaf: _parameter(
      names[path], leaf.shape, jnp.dtype(dtype), where[path], read, path.startswith(STACK)), shapes)


def _parameter(tensor: Tensor, shape, dtype, sharding: Sharding, read, stacked: bool) -> jax.Array:
  spans = {_span(index, shape) for index in sharding.addressable_devices_indices_map(shape).values()}
  shards = {span: _empty([stop - start for start, stop in span], dtype) for span in spans}
  inner = shape[1:] if stacked else shape
  for n in range(shape[0] if stacked else 1):
    wanted = {span: shard for span, shard in shards.items() if not stacked or span[0][0] <= n < span[0][1]}
    if not wanted:
      continue
    array = tensor.inward(read(tensor.name.format(n=n)), inner)
    for span, shard in wanted.items():
      part = array[tuple(slice(*each) for each in (span[1:] if stacked else span))]
      _copy(part, shard[n - span[0][0]] if stacked else shard)
  return jax.make_array_from_callback(shape, sharding, lambda index: shards[_span(index, shape)])


def _copy(there: np.ndarray, here: np.ndarray) -> None:
  """there -> here, some rows of the file at a time: turned whole, a large matrix takes four times as long."""
  order = sorted(range(there.ndim), key=lambda axis: -there.strides[axis])   # as the file has the axes
  there, here = there.transpose(order), here.transpose(order)
  fastest = min(range(here.ndim), key=lambda axis: here.strides[axis])
  step = len(there) if fastest == here.ndim - 1 else max(1, ROWS // math.prod(there.shape[1 : fastest + 1]))
  for start in range(0, len(there), step):
    here[start : start + step] = there[start : start + step]


def _span(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
  """What a shard holds, axis by axis: slices with their ends filled in, so that they can be looked up."""
  return tuple(each.indices(size)[:2] for each, size in zip(index, shape, strict=True))


def _empty(shape: list[int], dtype) -> np.ndarray:
  size = math.prod(shape) * dtype.itemsize
  room = np.empty(size + ALIGNED, np.uint8)
  start = -room.ctypes.data % ALIGNED
  return room[start : start + size].view(dtype).reshape(shape)


def _few(names: list[str]) -> str:
  return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
