"""FLOPs of a traced function over all devices: its matmuls, with every loop multiplied out and remat charged.

models/flops.py counts what a run is charged for; this counts what is computed, for any model. A loop whose trip count
depends on data is counted apart, by its iterations.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Flops:
  """once: outside of loops whose trip count depends on data; looped: of one iteration. A multiply-add counts two."""

  once: float = 0.0
  looped: float = 0.0


def count(jaxpr: Any, trips: int = 1) -> Flops:
  """FLOPs of a closed or open jaxpr. trips: iterations of a loop of unknown trip count inside another such loop."""
  once = looped = 0.0
  for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
    name, inner = eqn.primitive.name, [count(sub, trips) for sub in _sub_jaxprs(eqn)]
    whole = [flops.once + trips * flops.looped for flops in inner]
    if name == "dot_general":
      once += _dot(eqn)
    elif name == "conv_general_dilated":
      once += _convolution(eqn)
    elif name == "while":
      looped += sum(whole)
    elif name == "scan":
      once += eqn.params["length"] * sum(whole)
    elif name == "cond":
      once += max(whole)
    elif name == "shard_map":
      once += _devices(eqn) * sum(whole)
    elif name == "pallas_call":
      once += _kernel(eqn, sum(whole))
    else:
      once, looped = once + sum(flops.once for flops in inner), looped + sum(flops.looped for flops in inner)
  return Flops(once, looped)


def _sub_jaxprs(eqn) -> Iterator[Any]:
  """The jaxprs among the parameters of an equation."""
  for value in eqn.params.values():
    for jaxpr in value if isinstance(value, (tuple, list)) else (value,):
      if hasattr(getattr(jaxpr, "jaxpr", jaxpr), "eqns"):
        yield jaxpr


def _dot(eqn) -> float:
  (contracted, _), _ = eqn.params["dimension_numbers"]
  shape = eqn.invars[0].aval.shape
  return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)


def _convolution(eqn) -> float:
  kernel = eqn.invars[1].aval.shape
  out_features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
  return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) / out_features


def _devices(eqn) -> int:
  """How many copies of a shard_map's body run, each on its own shard."""
  mesh = eqn.params["mesh"]
  axes = eqn.params.get("manual_axes", mesh.axis_names)
  return math.prod(size for name, size in mesh.shape.items() if name in axes)


def _kernel(eqn, body: float) -> float:
  """FLOPs of a Pallas kernel: its own cost estimate, else its body at every point of its grid that computes."""
  estimate = getattr(eqn.params.get("cost_estimate"), "flops", None)
  grid = getattr(eqn.params.get("grid_mapping"), "grid", ())
  return float(estimate) if estimate else body * math.prod(size for size in grid if isinstance(size, int)) * _share(eqn)


def _share(eqn) -> float:
  """The share of a grid that computes. Splash attention has no estimate of its own, and skips the blocks that a causal
  mask, with a window or without, leaves out: of row i of blocks all but i + 1.
  Its first operand has an entry a block."""
  name = str(eqn.params.get("name") or eqn.params.get("name_and_src_info"))
  if not name.startswith("splash"):
    return 1.0
  width, rows = sorted(eqn.invars[0].aval.shape[-2:])
  return sum(min(row + 1, width) for row in range(rows)) / (rows * width)
