"""The functions of a run as the compiler sees them: memory by role, FLOPs, memory traffic, lower bounds on time."""

import dataclasses
import re
import time
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sftrl_jax.parallel import rules
from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.plan import hlo_traffic, jaxpr_flops, jitted_functions
from sftrl_jax.programs.plan.hlo_traffic import Traffic
from sftrl_jax.programs.plan.jitted_functions import PlannedFunction
from sftrl_jax.programs.plan.topology import Slice
from sftrl_jax.programs.start.initial_params import abstract_with
from sftrl_jax.training.state import TrainState

ROLES = ("parameters", "optimizer", "reference", "reward model", "decoding", "cache", "batch", "other")
# The TPU compiler's error: "RESOURCE_EXHAUSTED: ... (33.14G) exceeds available HBM (15.75G). ..."
OOM = re.compile(r"RESOURCE_EXHAUSTED.*?\((?P<needs>[\d.]+)(?P<unit>[KMGT])\)\s*exceeds available HBM "
                 r"\((?P<has>[\d.]+)(?P<has_unit>[KMGT])\)", re.DOTALL)
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Machine:
  """The peaks of one device: bytes of memory, FLOP/s, bytes/s of memory and of the network between devices."""

  memory: float
  flops: float
  bandwidth: float
  network: float


def lower_bound(flops: float, traffic: Traffic, machine: Machine) -> tuple[float, str]:
  """(least seconds, the resource that bounds them) of FLOPs and traffic of one device: a roofline.

  seconds = max(FLOPs / peak, bytes moved / memory bandwidth, bytes sent / network bandwidth), as all three may overlap
  (Williams et al. 2009)
  """
  times = {"flops": flops / machine.flops, "memory": traffic.bytes / machine.bandwidth,
           "network": traffic.sent / machine.network if machine.network else 0.0}
  resource = max(times, key=times.get)
  return times[resource], resource


@dataclasses.dataclass(frozen=True)
class CompiledFunction:
  """Sizes are bytes on one device; FLOPs and traffic are those of one device in one call.

  calls, tokens, trips: as in PlannedFunction
  arguments: role -> bytes of the arguments
  resident: role -> bytes of other arrays that occupy the device during the call
  program: bytes that the program needs, arguments and results included
  oom: the compiler refused the program, because it needs `program` bytes
  once: (FLOPs, traffic) outside of loops whose trip count depends on data
  looped: (FLOPs, traffic) of one iteration of such a loop, which runs `trips` times
  text_read: whether the program's text was available; without it the traffic is a lower bound
  host: bytes that the program keeps in the host's memory (remat "offload"); the time to move them is in no bound
  """

  name: str
  calls: float
  tokens: int
  arguments: dict[str, float]
  resident: dict[str, float]
  temporaries: float
  program: float
  oom: bool
  once: tuple[float, Traffic]
  looped: tuple[float, Traffic]
  trips: int
  text_read: bool
  seconds_to_compile: float
  host: float = 0.0

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
    """(lower bound on the seconds of a call, the resource that bounds most of them).

    `once` and an iteration of `looped` each take at least the longest of their three times.
    """
    total, by_resource = 0.0, {}
    for iterations, (flops, traffic) in ((1, self.once), (self.trips, self.looped)):
      least, resource = lower_bound(flops, traffic, machine)
      total += iterations * least
      by_resource[resource] = by_resource.get(resource, 0.0) + iterations * least
    return total, max(by_resource, key=by_resource.get)

  def to_json(self, machine: Machine) -> dict:
    """An entry of `functions` in plan.json; FLOPs, bytes and seconds are those of one device in one call."""
    seconds, resource = self.bound(machine)
    traffic = self.traffic
    gib = lambda sizes: {role: size / GIB for role, size in sizes.items()}
    return {"name": self.name, "peak_gib": self.peak / GIB, "flops": self.flops, "bytes": traffic.bytes,
            "seconds_bound": seconds, "bound_by": resource, "calls_per_step": self.calls, "tokens": self.tokens,
            "compiled": not self.oom, "program_gib": self.program / GIB, "temporaries_gib": self.temporaries / GIB,
            "arguments_gib": gib(self.arguments), "resident_gib": gib(self.resident), "sent_bytes": traffic.sent,
            "collectives": {kind: {"count": count, "bytes": sent} for kind, count, sent in traffic.collectives},
            "text_read": self.text_read, "seconds_to_compile": self.seconds_to_compile, "host_gib": self.host / GIB}


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run on a slice. functions: all of the run, or those that `--only` names; seconds: of compilation."""

  experiment: Experiment
  where: Slice
  functions: tuple[CompiledFunction, ...]
  seconds: float

  @property
  def machine(self) -> Machine:
    chip = self.where.chip
    return Machine(chip.hbm_gib * GIB, chip.flops, chip.bandwidth, chip.ici)

  @property
  def failing(self) -> tuple[CompiledFunction, ...]:
    return tuple(function for function in self.functions if function.oom or function.peak > self.machine.memory)

  @property
  def fits(self) -> bool:
    return not self.failing

  @property
  def peak(self) -> float:
    return max(function.peak for function in self.functions)

  @property
  def step_seconds(self) -> float:
    """A lower bound on a step of the run: every function as often as a step calls it, evaluations left out."""
    return sum(function.calls * function.bound(self.machine)[0] for function in self.functions)

  @property
  def step_tokens(self) -> int:
    """Positions that a step learns from."""
    return round(sum(function.calls * function.tokens for function in self.functions if function.name == "train step"))


def build(function: PlannedFunction, mesh: Mesh, execute: bool = False) -> tuple[CompiledFunction, Any, Any]:
  """Compiles a function for the devices of the mesh, which need not be here.

  Returns (CompiledFunction, abstract results with shardings, the executable or None). execute: return the executable.
  """
  began = time.perf_counter()
  values = jitted_functions.with_row_shardings(function, mesh)
  with jax.set_mesh(mesh), rules.applied():
    traced = function.jitted.trace(*values, **function.static)
    lowered = traced.lower()
  flops = jaxpr_flops.count(traced.jaxpr, function.trips)
  known = _known_sizes(function, values)
  arguments = sum(known["arguments"].values())
  try:
    executable = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    needs = oom_bytes(str(error))
    if needs is None:
      raise
    compiled = CompiledFunction(
        **known, temporaries=max(0.0, needs - arguments), program=needs, oom=True,
        once=(flops.once / mesh.size, Traffic()), looped=(flops.looped / mesh.size, Traffic()), text_read=False,
        seconds_to_compile=time.perf_counter() - began)
    return compiled, jitted_functions.with_guessed_shardings(traced.out_info, mesh), None
  memory = executable.memory_analysis()
  program = (memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
             + memory.temp_size_in_bytes)
  once, looped, text_read = _traffic(executable, memory, function.trips)
  compiled = CompiledFunction(
      **known, temporaries=memory.temp_size_in_bytes, oom=False, text_read=text_read,
      host=getattr(memory, "host_temp_size_in_bytes", 0) or 0,
      program=max(program, getattr(memory, "peak_memory_in_bytes", 0) or 0), once=(flops.once / mesh.size, once),
      looped=(flops.looped / mesh.size, looped), seconds_to_compile=time.perf_counter() - began)
  returned = abstract_with(traced.out_info, executable.output_shardings)
  return compiled, returned, executable if execute else None


def weigh_arguments(function: PlannedFunction, mesh: Mesh) -> CompiledFunction:
  """A lower bound on memory without compiling: the arguments of a function, and what is resident besides them."""
  known, nothing = _known_sizes(function, jitted_functions.with_row_shardings(function, mesh)), (0.0, Traffic())
  return CompiledFunction(**known, temporaries=0.0, program=sum(known["arguments"].values()), oom=False, once=nothing,
                          looped=nothing, text_read=False, seconds_to_compile=0.0)


def oom_bytes(message: str) -> float | None:
  """Bytes that a program needs, from the compiler's out-of-memory error; None for any other error."""
  match = OOM.search(message)
  return float(match["needs"]) * UNITS[match["unit"]] if match else None


def bytes_by_role(pairs: Iterable[tuple[str, Any]]) -> dict[str, float]:
  """role -> bytes on one device, of (role, tree) pairs; a train state counts as parameters and optimizer."""
  total = dict.fromkeys(ROLES, 0.0)
  for role, tree in pairs:
    if isinstance(tree, TrainState):
      total["parameters"] += bytes_on_device(tree.params)
      total["optimizer"] += bytes_on_device((tree.opt_state, tree.step))
    else:
      total[role] += bytes_on_device(tree)
  return {role: size for role, size in total.items() if size}


def bytes_on_device(tree: Any) -> float:
  """Bytes of a tree on one device."""
  return float(sum(_leaf_bytes(leaf) for leaf in jax.tree.leaves(tree)))


def _known_sizes(function: PlannedFunction, values: tuple) -> dict[str, Any]:
  """The fields of CompiledFunction that are known before compilation."""
  roles = (role for role, _ in function.arguments)
  return {"name": function.name, "calls": function.calls, "tokens": function.tokens, "trips": function.trips,
          "arguments": bytes_by_role(zip(roles, values, strict=True)), "resident": bytes_by_role(function.resident)}


def _leaf_bytes(leaf) -> int:
  sharding = getattr(leaf, "sharding", None)
  shape = np.shape(leaf) if sharding is None else sharding.shard_shape(leaf.shape)
  return int(np.prod(shape)) * getattr(leaf.dtype, "itemsize", 8)


def _traffic(executable, memory, trips: int) -> tuple[Traffic, Traffic, bool]:
  """(once, looped, whether the text was available).

  XLA cannot print some large programs. Then the traffic is the least possible: arguments and results move once,
  temporaries twice, and collectives are unknown.
  """
  try:
    return (*hlo_traffic.read(executable.as_text(), trips), True)
  except jax.errors.JaxRuntimeError:
    least = memory.argument_size_in_bytes + memory.output_size_in_bytes + 2 * memory.temp_size_in_bytes
    return Traffic(float(least)), Traffic(), False
