"""`sftrl plan` on local devices: every function of a run predicted, then run and measured.

The compiler predicts memory. Seconds are predicted from smaller models, with a quarter and half of the layers, that are
measured first: the prediction adds the time of a layer to the time without any. The bound uses this machine's measured
peaks. Where XLA has one CPU thread, seconds are that thread's CPU time: other processes do not count.
"""

import dataclasses
import gc
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sftrl_jax.parallel.chips import GIB
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.bench import machine_peak
from sftrl_jax.programs.bench.machine_peak import MachinePeak
from sftrl_jax.programs.bench.memory_use import MemoryUse
from sftrl_jax.programs.bench.table import describe_machine
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.plan import compilation, jitted_functions, suggestions
from sftrl_jax.programs.plan.compilation import CompiledFunction, Machine
from sftrl_jax.programs.plan.jitted_functions import PlannedFunction
from sftrl_jax.programs.plan.options import PlanOptions
from sftrl_jax.training.log import write_json

REPEATS, ENOUGH = 5, 2.0   # measurements of a function at most, and seconds after which no further one begins
LEAST = 0.05   # seconds of a measurement: Linux counts the CPU time of a thread that runs elsewhere by the tick
NUMBERS = ("parameters", "decoding", "reference", "reward model")   # roles whose arrays are not all zeros


@dataclasses.dataclass(frozen=True)
class Measured:
  """seconds: the best of several calls, since other processes only slow a call down; memory: peak bytes of all local
  devices together, None where they cannot be told apart from earlier use; oom: the function did not run."""

  function: CompiledFunction
  seconds: float
  memory: float | None
  oom: bool = False


def run(config: ConfigDict, options: PlanOptions) -> dict:
  """Predicts, measures, prints, and returns the content of plan.json."""
  if options.optimizers or options.show or options.only:
    raise ConfigError("--optimizer, --only and --show need a slice: add --topology=v5e-16, for example.")
  say = lambda line: print(line, flush=True)
  experiment = build_experiment(config, options.verb)
  peak = machine_peak.measure()
  machine = machine_of(experiment, peak)
  say(describe_machine(peak))
  layers, sizes = experiment.model.config.layers, smaller(experiment.model.config.layers)
  times = {}
  for size in sizes:
    say(f"a model of {size} of {layers} layers")
    small = build_experiment(suggestions.changed(config, options.verb, {"model.layers": size}), options.verb)
    times[size] = {measured.function.name: measured.seconds for measured in measure(small, machine, say)}
  say(f"the model of {layers} layers")
  results = measure(experiment, machine, say)
  lines = [to_json(measured, machine, predict(times, layers, measured.function.name)) for measured in results]
  fits = all(not measured.oom and line["peak_gib"] * GIB <= machine.memory
             for measured, line in zip(results, lines, strict=True))
  plan = {"fits": fits, "hbm_limit_gib": machine.memory / GIB, "functions": lines, "note": "measured here",
          "verb": options.verb, "topology": "local", "chips": jax.device_count(), "device": peak.device,
          "predicted_from_layers": sizes}
  say(page(plan))
  if options.out:
    write_json(Path(options.out), plan)
    say(f"Written: {options.out}")
  return plan


def machine_of(experiment: Experiment, peak: MachinePeak) -> Machine:
  """A local device by its measured peaks; each CPU device has an equal share of the host's memory."""
  device = jax.local_devices()[0]
  stats = device.memory_stats() or {}
  host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / jax.local_device_count()
  memory = stats.get("bytes_limit") or host
  return Machine(float(memory), peak.matmul(experiment.model.config.dtype), peak.bandwidth, 0.0)


def smaller(layers: int) -> list[int]:
  """Layers of the models that are measured first; [] where the model has too few layers for a prediction."""
  return [max(1, layers // 4), max(2, layers // 2)] if layers >= 3 else []


def predict(times: dict[int, dict[str, float]], layers: int, name: str) -> float | None:
  """Seconds of a function at so many layers, extrapolated linearly. times: layers -> function -> measured seconds."""
  known = sorted((size, seconds[name]) for size, seconds in times.items() if name in seconds)
  if len(known) < 2:
    return None
  (few, quick), (more, slow) = known[0], known[-1]
  return max(quick + (slow - quick) * (layers - few) / (more - few), quick)


def measure(experiment: Experiment, machine: Machine, say: Callable[[str], None]) -> list[Measured]:
  """Compiles and runs every function, one after another; the arrays of one are freed before the next."""

  def handle(function: PlannedFunction) -> tuple[Measured, Any]:
    compiled, returned, executable = compilation.build(function, experiment.mesh, execute=True)
    measured = _run(function, compiled, executable, experiment.mesh)
    say(f"  {compiled.name:<28}{measured.seconds:9.4f} s, bound {compiled.bound(machine)[0]:9.4f} s")
    return measured, returned

  results = []
  for measured in jitted_functions.for_each(experiment, handle):
    results.append(measured)
    gc.collect()
  return results


def _run(function: PlannedFunction, compiled: CompiledFunction, executable, mesh: Mesh) -> Measured:
  if executable is None:
    return Measured(compiled, 0.0, None, oom=True)
  clock = time.process_time if jax.default_backend() == "cpu" and machine_peak.threads() == 1 else time.perf_counter
  try:
    values = list(real_arguments(function, mesh))
    held = sum(shard.data.nbytes for leaf in jax.tree.leaves(values) if isinstance(leaf, jax.Array)
               for shard in leaf.addressable_shards)
    gc.collect()   # of what compilation has used
    before = MemoryUse.now()
    began = time.perf_counter()
    best = _call(executable, values, 1, clock)
    spent = time.perf_counter() - began
    calls = math.ceil(LEAST / spent)
    if spent < ENOUGH:   # else the first call counts, although it warms caches up
      best = float("inf")
    for _ in range(REPEATS):
      if spent > ENOUGH:
        break
      seconds = _call(executable, values, calls, clock)
      best, spent = min(best, seconds), spent + seconds * calls
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return Measured(compiled, 0.0, None, oom=True)
  most = before.increase()
  return Measured(compiled, best, None if most is None else held + most)


def _call(executable, values: list, calls: int, clock: Callable[[], float]) -> float:
  """Seconds of a call. A donated argument in `values`, a train state or a cache, is replaced by the first result."""
  began = clock()
  for _ in range(calls):
    out = jax.block_until_ready(executable(*values))
    for index, value in enumerate(values):
      if any(leaf.is_deleted() for leaf in jax.tree.leaves(value) if isinstance(leaf, jax.Array)):
        values[index] = out[0]
    del out
  return (clock() - began) / calls


def real_arguments(function: PlannedFunction, mesh: Mesh) -> Iterator[Any]:
  """The arguments as arrays: batches as they are, random numbers for parameters, and zeros elsewhere; but ones for the
  integers of a batch, whose rows then have no padding, which costs least."""
  for role, tree in function.arguments:
    yield jax.tree.map(lambda leaf, role=role: _array(leaf, role, mesh), tree)


def _array(leaf, role: str, mesh: Mesh):
  if not isinstance(leaf, jax.ShapeDtypeStruct):
    return shard_rows(mesh, leaf) if role == "batch" and leaf.ndim else leaf
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return jax.random.key(0)
  if role in NUMBERS and jnp.issubdtype(leaf.dtype, jnp.floating):
    make = lambda: (0.02 * jax.random.normal(jax.random.key(1), leaf.shape)).astype(leaf.dtype)
  else:
    whole = role == "batch" and jnp.issubdtype(leaf.dtype, jnp.integer)
    make = lambda: jnp.full(leaf.shape, int(whole), leaf.dtype)
  return jax.jit(make, out_shardings=leaf.sharding)()


def to_json(measured: Measured, machine: Machine, predicted: float | None) -> dict:
  """An entry of `functions` in plan.json. measured_gib: of the program itself, without what is resident besides."""
  line = {**measured.function.to_json(machine), "measured_seconds": measured.seconds, "ran": not measured.oom}
  if predicted is not None:
    line["predicted_seconds"] = predicted
  if measured.memory is not None:
    line["measured_gib"] = measured.memory / GIB / jax.local_device_count()
  return line


def page(plan: dict) -> str:
  """The table of functions, predicted beside measured, and the time of a step. plan: the content of plan.json."""
  lines = ["", f"{'function':<28}{'calls':>6}{'program GiB':>13}{'measured':>10}{'predicted s':>13}{'measured':>10}"
               f"{'ratio':>7}{'bound s':>10}{'of bound':>10}"]
  for line in plan["functions"]:
    guess, seconds = line.get("predicted_seconds"), line["measured_seconds"]
    memory = f"{line['measured_gib']:>10.3f}" if "measured_gib" in line else f"{'-':>10}"
    known = f"{guess:>13.4f}{seconds:>10.4f}{seconds / guess:>7.2f}" if guess else f"{'-':>13}{seconds:>10.4f}{'-':>7}"
    share = f"{line['seconds_bound'] / seconds:>10.0%}" if seconds else f"{'did not fit':>10}"
    lines.append(f"{line['name']:<28}{line['calls_per_step']:>6g}{line['program_gib']:>13.3f}{memory}{known}"
                 f"{line['seconds_bound']:>10.4f}{share}")
  step = sum(line["calls_per_step"] * line["measured_seconds"] for line in plan["functions"])
  guess = sum(line["calls_per_step"] * line.get("predicted_seconds", 0.0) for line in plan["functions"])
  called = [line for line in plan["functions"] if line["calls_per_step"]]
  whole = f", predicted {guess:.3f} s" if all("predicted_seconds" in line for line in called) else ""
  sizes = " and ".join(map(str, plan["predicted_from_layers"]))
  return "\n".join([*lines, "", "Per device and call: memory is predicted by the compiler, seconds from models of "
                    f"{sizes or 'too few'} layers; the bound is by this machine's measured peaks.",
                    f"a step of the run: {step:.3f} s{whole}, evaluations left out",
                    "fits" if plan["fits"] else "does not fit"])
