"""`sftrl plan` on the devices that are here: every function of a run predicted, then run and measured.

Memory is predicted by the compiler. Seconds are predicted from smaller models measured before, of a quarter and half
of the layers: what a layer adds, and what is there without any. The bound is by this machine's own measured peaks.
Where XLA has one CPU thread, seconds are that thread's own: what else the machine does is not in them.
"""

import contextlib
import ctypes
import dataclasses
import gc
import math
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.bench import machine_peak, table
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.plan import compilation, jitted_functions, suggestions
from sftrl_jax.programs.plan.compilation import Compiled, Machine
from sftrl_jax.programs.plan.jitted_functions import Function
from sftrl_jax.programs.plan.options import PlanOptions
from sftrl_jax.training.log import write_json

REPEATS, ENOUGH = 5, 2.0   # measurements of a function at most, and seconds after which no other is begun
LEAST = 0.05   # seconds of a measurement: Linux counts the CPU time of a thread that runs elsewhere by the tick
NUMBERS = ("parameters", "decoding", "reference")   # roles that want numbers other than 0
STATUS = Path("/proc/self/status")


@dataclasses.dataclass(frozen=True)
class Measured:
  """seconds: the best of several calls, since a neighbour's work only slows one down. memory: bytes of all devices
  that are here at the most, None where it cannot be told apart. oom: it did not run."""

  function: Compiled
  seconds: float
  memory: float | None
  oom: bool = False


def run(config, asked: PlanOptions) -> dict:
  """Predicts, measures, prints, and returns what plan.json holds."""
  if asked.optimizers or asked.show or asked.only:
    raise ConfigError("--optimizer, --only and --show need a slice: add --topology=v5e-16, for example.")
  say = lambda line: print(line, flush=True)
  experiment = build_experiment(config, asked.verb)
  peak = machine_peak.measure()
  machine = machine_of(experiment, peak)
  say(table.told(peak))
  layers, sizes = experiment.model.config.layers, smaller(experiment.model.config.layers)
  times = {}
  for size in sizes:
    say(f"a model of {size} of {layers} layers")
    small = build_experiment(suggestions.changed(config, asked.verb, {"model.layers": size}), asked.verb)
    times[size] = {one.function.name: one.seconds for one in measure(small, machine, say)}
  say(f"the model of {layers} layers")
  found = measure(experiment, machine, say)
  lines = [line_of(one, machine, predicted(times, layers, one.function.name)) for one in found]
  told = {"fits": not any(one.oom for one in found) and all(line["peak_gib"] * GIB <= machine.memory for line in lines),
          "hbm_limit_gib": machine.memory / GIB, "functions": lines, "note": "measured here", "verb": asked.verb,
          "topology": "local", "chips": jax.device_count(), "device": peak.device, "predicted_from_layers": sizes}
  say(page(told))
  if asked.out:
    write_json(Path(asked.out), told)
    say(f"Written: {asked.out}")
  return told


def machine_of(experiment: Experiment, peak) -> Machine:
  """A device that is here, by measurement; of CPU devices each has its share of the host's memory."""
  device = jax.local_devices()[0]
  stats = device.memory_stats() or {}
  host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / jax.local_device_count()
  whole = stats.get("bytes_limit") or host
  return Machine(float(whole), peak.matmul(experiment.model.config.dtype), peak.bandwidth, 0.0)


def smaller(layers: int) -> list[int]:
  """Layers of the models that are measured first; none where there are too few to tell anything."""
  return [max(1, layers // 4), max(2, layers // 2)] if layers >= 3 else []


def predicted(times: dict[int, dict[str, float]], layers: int, name: str) -> float | None:
  """Seconds of a function with so many layers: what a layer adds stays the same."""
  known = sorted((size, found[name]) for size, found in times.items() if name in found)
  if len(known) < 2:
    return None
  (few, quick), (more, slow) = known[0], known[-1]
  return max(quick + (slow - quick) * (layers - few) / (more - few), quick)


def measure(experiment: Experiment, machine: Machine, say) -> list[Measured]:
  """Every function compiled and run, one after another; what one needs is gone before the next."""
  source, returned, found = jitted_functions.each(experiment), None, []
  while True:
    try:
      function = source.send(returned)
    except StopIteration:
      return found
    one, returned, executable = compilation.build(function, experiment.mesh, execute=True)
    found.append(_run(function, one, executable, experiment.mesh))
    say(f"  {one.name:<28}{found[-1].seconds:9.4f} s, bound {one.bound(machine)[0]:9.4f} s")
    gc.collect()


def _run(function: Function, one: Compiled, executable, mesh) -> Measured:
  if executable is None:
    return Measured(one, 0.0, None, oom=True)
  clock = time.process_time if jax.default_backend() == "cpu" and machine_peak.threads() == 1 else time.perf_counter
  try:
    values = list(real(function, mesh))
    held = sum(shard.data.nbytes for leaf in jax.tree.leaves(values) if isinstance(leaf, jax.Array)
               for shard in leaf.addressable_shards)
    gc.collect()   # what compiling took
    before = Memory.now()
    began = time.perf_counter()
    best, given = _called(executable, values, 1, clock, True)
    spent = time.perf_counter() - began
    calls = math.ceil(LEAST / spent)
    if spent < ENOUGH:   # else the first call, which warms things up, has to do
      best = float("inf")
    for _ in range(REPEATS):
      if spent > ENOUGH:
        break
      took, _ = _called(executable, values, calls, clock, given)
      best, spent = min(best, took), spent + took * calls
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return Measured(one, 0.0, None, oom=True)
  most = before.most()
  return Measured(one, best, None if most is None else held + most)


def _called(executable, values: list, calls: int, clock, given: bool) -> tuple[float, bool]:
  """(seconds of a call, whether the first argument is given away and has to be had back from the results)."""
  began = clock()
  for _ in range(calls):
    out = jax.block_until_ready(executable(*values))
    if given:
      given = any(leaf.is_deleted() for leaf in jax.tree.leaves(values[0]) if isinstance(leaf, jax.Array))
      values[0] = out[0] if given else values[0]
    del out
  return (clock() - began) / calls, given


def real(function: Function, mesh):
  """The arguments as arrays: batches as they are, numbers like a newborn model's where they matter, else zeros."""
  for role, tree in function.arguments:
    yield jax.tree.map(lambda leaf, role=role: _array(leaf, role, mesh), tree)


def _array(leaf, role: str, mesh):
  if not isinstance(leaf, jax.ShapeDtypeStruct):
    return meshes.shard_rows(mesh, leaf) if role == "batch" and leaf.ndim else leaf
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return jax.random.key(0)
  if role in NUMBERS and jnp.issubdtype(leaf.dtype, jnp.floating):
    make = lambda: (0.02 * jax.random.normal(jax.random.key(1), leaf.shape)).astype(leaf.dtype)
  else:
    make = lambda: jnp.zeros(leaf.shape, leaf.dtype)
  return jax.jit(make, out_shardings=leaf.sharding)()


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes in use here when a measurement begins, and the most there ever were."""

  used: int
  peak: int

  @classmethod
  def now(cls):
    if jax.default_backend() == "cpu":
      reset = STATUS.with_name("clear_refs")
      if not STATUS.is_file() or not os.access(reset, os.W_OK):
        return cls(0, -1)
      with contextlib.suppress(AttributeError):   # of glibc: what was freed is still this process's, and used again
        ctypes.CDLL(None).malloc_trim(0)
      reset.write_text("5")   # the peak begins anew
      return cls(_status("VmRSS"), 0)
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return cls(sum(one.get("bytes_in_use", 0) for one in stats), sum(one.get("peak_bytes_in_use", 0) for one in stats))

  def most(self) -> float | None:
    """Bytes that came on top, all devices together; None where an earlier measurement took more."""
    if jax.default_backend() == "cpu":
      return None if self.peak < 0 else float(max(0, _status("VmHWM") - self.used))
    now = self.now()
    return float(now.peak - self.used) if now.peak > self.peak else None


def _status(name: str) -> int:
  """Bytes, of this process by Linux."""
  line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
  return int(line.split()[1]) * 1024


def line_of(one: Measured, machine: Machine, seconds: float | None) -> dict:
  """As plan.json has it. memory: of the program itself, what lies there meanwhile left out."""
  told = {**one.function.told(machine), "measured_seconds": one.seconds, "ran": not one.oom}
  if seconds is not None:
    told["predicted_seconds"] = seconds
  if one.memory is not None:
    told["measured_gib"] = one.memory / GIB / jax.local_device_count()
  return told


def page(told: dict) -> str:
  """Predicted beside measured."""
  lines = ["", f"{'function':<28}{'calls':>6}{'program GiB':>13}{'measured':>10}{'predicted s':>13}{'measured':>10}"
               f"{'ratio':>7}{'bound s':>10}{'of bound':>10}"]
  for one in told["functions"]:
    guess, seconds = one.get("predicted_seconds"), one["measured_seconds"]
    memory = f"{one['measured_gib']:>10.3f}" if "measured_gib" in one else f"{'-':>10}"
    known = f"{guess:>13.4f}{seconds:>10.4f}{seconds / guess:>7.2f}" if guess else f"{'-':>13}{seconds:>10.4f}{'-':>7}"
    share = f"{one['seconds_bound'] / seconds:>10.0%}" if seconds else f"{'did not fit':>10}"
    lines.append(f"{one['name']:<28}{one['calls_per_step']:>6g}{one['program_gib']:>13.3f}{memory}{known}"
                 f"{one['seconds_bound']:>10.4f}{share}")
  step = sum(one["calls_per_step"] * one["measured_seconds"] for one in told["functions"])
  guess = sum(one["calls_per_step"] * one.get("predicted_seconds", 0.0) for one in told["functions"])
  used = [one for one in told["functions"] if one["calls_per_step"]]
  whole = f", predicted {guess:.3f} s" if all("predicted_seconds" in one for one in used) else ""
  sizes = " and ".join(map(str, told["predicted_from_layers"]))
  return "\n".join([*lines, "", "A call; memory of a device, predicted by the compiler; seconds predicted from models "
                    f"of {sizes or 'too few'} layers; the bound is by this machine's measured peaks.",
                    f"a step of the run: {step:.3f} s{whole}, evaluations left out",
                    "fits" if told["fits"] else "does not fit"])
