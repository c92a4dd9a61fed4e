"""FLOPs of a traced function over all devices: its matmuls, with every loop multiplied out and remat charged.

models/flops.py says what a run is charged for; this says what is computed, whoever's model it is. A loop whose end
depends on data is told apart, by its rounds.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Flops:
  """once, and in one round of a loop whose end depends on data; a multiply-add is two."""

  once: float = 0.0
  looped: float = 0.0


def count(jaxpr, trips: int = 1) -> Flops:
  """Of a closed or open jaxpr. trips: rounds of a loop of unknown end inside another such loop."""
  once = looped = 0.0
  for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
    name, inner = eqn.primitive.name, [count(sub, trips) for sub in _inside(eqn)]
    whole = [one.once + trips * one.looped for one in inner]
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
      once, looped = once + sum(one.once for one in inner), looped + sum(one.looped for one in inner)
  return Flops(once, looped)


def _inside(eqn):
  """The jaxprs that an equation holds."""
  for value in eqn.params.values():
    for one in value if isinstance(value, (tuple, list)) else (value,):
      if hasattr(getattr(one, "jaxpr", one), "eqns"):
        yield one


def _dot(eqn) -> float:
  (read, _), _ = eqn.params["dimension_numbers"]
  return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[axis] for axis in read)


def _convolution(eqn) -> float:
  kernel = eqn.invars[1].aval.shape
  written = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
  return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) / written


def _devices(eqn) -> int:
  """How many copies of the body of a shard_map work on parts of their own."""
  mesh = eqn.params["mesh"]
  axes = eqn.params.get("manual_axes", mesh.axis_names)
  return math.prod(size for name, size in mesh.shape.items() if name in axes)


def _kernel(eqn, body: float) -> float:
  """Of a Pallas kernel: what it says itself, else its body at every point of its grid."""
  told = getattr(eqn.params.get("cost_estimate"), "flops", None)
  grid = getattr(eqn.params.get("grid_mapping"), "grid", ())
  return float(told) if told else body * math.prod(size for size in grid if isinstance(size, int))
