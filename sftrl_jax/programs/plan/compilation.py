"""One function of a run as the compiler sees it: memory by what it is for, FLOPs, traffic, and a bound on its time."""

import dataclasses
import re
import time

import flax.linen as nn
import jax
import numpy as np

from sftrl_jax.parallel import rules
from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.plan import hlo_traffic as traffic, jaxpr_flops, jitted_functions
from sftrl_jax.programs.plan.hlo_traffic import Traffic
from sftrl_jax.programs.plan.jitted_functions import Function
from sftrl_jax.programs.start.initial_params import abstract_with
from sftrl_jax.training.state import TrainState

ROLES = ("parameters", "optimizer", "reference", "decoding", "cache", "batch", "other")
OOM = re.compile(r"RESOURCE_EXHAUSTED.*?\((?P<needs>[\d.]+)(?P<unit>[KMGT])\)\s*exceeds available HBM "
                 r"\((?P<has>[\d.]+)(?P<has_unit>[KMGT])\)", re.DOTALL)
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Machine:
  """What one device can do: bytes of memory, FLOP/s, bytes/s of memory and of the network between devices."""

  memory: float
  flops: float
  bandwidth: float
  network: float


@dataclasses.dataclass(frozen=True)
class Compiled:
  """Of one device, in bytes; of one call, where it is about time.

  arguments: role -> bytes of what the function reads; resident: of what else lies there meanwhile
  program: bytes that the program needs, arguments and results included
  oom: the compiler refused it, for it needs `program` bytes
  once, looped: (FLOPs, traffic) outside of and in a round of a loop of unknown end, which runs `trips` times
  """

  name: str
  calls: float
  tokens: int
  arguments: dict
  resident: dict
  temporaries: float
  program: float
  oom: bool
  once: tuple[float, Traffic]
  looped: tuple[float, Traffic]
  trips: int
  text: bool   # whether the program could be read: else traffic is what is known to be the least
  seconds_to_compile: float

  @property
  def peak(self) -> float:
    return self.program + sum(self.resident.values())

  @property
  def flops(self) -> float:
    return self.once[0] + self.trips * self.looped[0]

  @property
  def traffic(self) -> Traffic:
    return self.once[1] + self.looped[1].times(self.trips)

  def bound(self, machine: Machine) -> tuple[float, str]:
    """(least seconds of a call, what bounds most of them): a part takes at least the longest of its three."""
    total, by = 0.0, {}
    for rounds, (flops, moved) in ((1, self.once), (self.trips, self.looped)):
      each = {"flops": flops / machine.flops, "memory": moved.bytes / machine.bandwidth,
              "network": moved.sent / machine.network if machine.network else 0.0}
      what = max(each, key=each.get)
      total += rounds * each[what]
      by[what] = by.get(what, 0.0) + rounds * each[what]
    return total, max(by, key=by.get)

  def told(self, machine: Machine) -> dict:
    """As plan.json has it; FLOPs, bytes and seconds are of one device and one call."""
    seconds, by = self.bound(machine)
    moved = self.traffic
    gib = lambda sizes: {role: size / GIB for role, size in sizes.items()}
    return {"name": self.name, "peak_gib": self.peak / GIB, "flops": self.flops, "bytes": moved.bytes,
            "seconds_bound": seconds, "bound_by": by, "calls_per_step": self.calls, "tokens": self.tokens,
            "compiled": not self.oom, "program_gib": self.program / GIB, "temporaries_gib": self.temporaries / GIB,
            "arguments_gib": gib(self.arguments), "resident_gib": gib(self.resident), "sent_bytes": moved.sent,
            "collectives": {kind: {"count": count, "bytes": sent} for kind, count, sent in moved.collectives},
            "text_read": self.text, "seconds_to_compile": self.seconds_to_compile}


def build(function: Function, mesh, execute: bool = False):
  """(Compiled, what the function returns, the executable or None) of a function on a mesh of any devices."""
  began = time.perf_counter()
  values = jitted_functions.placed(function, mesh)
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules.activation_rules()):
    traced = function.jitted.trace(*values, **function.static)
    lowered = traced.lower()
  counted = jaxpr_flops.count(traced.jaxpr, function.trips)
  arguments = sizes(tuple(zip((role for role, _ in function.arguments), values, strict=True)))
  known = dict(name=function.name, calls=function.calls, tokens=function.tokens, arguments=arguments,
               resident=sizes(function.resident), trips=function.trips)
  try:
    executable = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    needs = needed(str(error))
    if needs is None:
      raise
    share = lambda flops: (flops / mesh.size, Traffic())
    compiled = Compiled(**known, temporaries=max(0.0, needs - sum(arguments.values())), program=needs, oom=True,
                        once=share(counted.once), looped=share(counted.looped), text=False,
                        seconds_to_compile=time.perf_counter() - began)
    return compiled, jitted_functions.guessed(traced.out_info, mesh), None
  memory = executable.memory_analysis()
  program = (memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
             + memory.temp_size_in_bytes)
  once, looped, text = _traffic(executable, memory, function.trips)
  compiled = Compiled(
      **known, temporaries=memory.temp_size_in_bytes, oom=False, text=text,
      program=max(program, getattr(memory, "peak_memory_in_bytes", 0) or 0), once=(counted.once / mesh.size, once),
      looped=(counted.looped / mesh.size, looped), seconds_to_compile=time.perf_counter() - began)
  returned = abstract_with(traced.out_info, executable.output_shardings)
  return compiled, returned, executable if execute else None


def weighed(function: Function, mesh) -> Compiled:
  """What a function cannot do without: its arguments and what lies there meanwhile; nothing is compiled."""
  values = jitted_functions.placed(function, mesh)
  arguments = sizes(tuple(zip((role for role, _ in function.arguments), values, strict=True)))
  nothing = (0.0, Traffic())
  return Compiled(function.name, function.calls, function.tokens, arguments, sizes(function.resident), 0.0,
                  sum(arguments.values()), False, nothing, nothing, function.trips, False, 0.0)


def needed(message: str) -> float | None:
  """Bytes that a program needs, from the compiler's refusal; None for another error."""
  found = OOM.search(message)
  return float(found["needs"]) * UNITS[found["unit"]] if found else None


def sizes(pairs) -> dict[str, float]:
  """role -> bytes on one device of (role, tree) pairs; a train state is parameters and optimizer."""
  total = dict.fromkeys(ROLES, 0.0)
  for role, tree in pairs:
    if isinstance(tree, TrainState):
      total["parameters"] += held(tree.params)
      total["optimizer"] += held((tree.opt_state, tree.step))
    else:
      total[role] += held(tree)
  return {role: size for role, size in total.items() if size}


def held(tree) -> float:
  """Bytes of a tree on one device."""
  return float(sum(_leaf(leaf) for leaf in jax.tree.leaves(tree)))


def _leaf(leaf) -> int:
  sharding = getattr(leaf, "sharding", None)
  shape = np.shape(leaf) if sharding is None else sharding.shard_shape(leaf.shape)
  return int(np.prod(shape)) * getattr(leaf.dtype, "itemsize", 8)


def _traffic(executable, memory, trips: int) -> tuple[Traffic, Traffic, bool]:
  """(once, looped, whether the text was there). Some large programs cannot be printed: then all arguments and results
  are moved once and what is temporary twice, which is the least, and collectives are not known."""
  try:
    return (*traffic.read(executable.as_text(), trips), True)
  except jax.errors.JaxRuntimeError:
    least = memory.argument_size_in_bytes + memory.output_size_in_bytes + 2 * memory.temp_size_in_bytes
    return Traffic(float(least)), Traffic(), False
