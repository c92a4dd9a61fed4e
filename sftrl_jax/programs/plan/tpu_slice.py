"""`sftrl plan`: a run on a slice that is not here, function by function, by the compiler that will compile it there.

Nothing runs: memory, FLOPs, traffic and collectives are the compiler's and the trace's, seconds are a bound by the
chip's peaks. On the devices that are here the same functions are run and measured instead (measured.py).
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import jax

from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.plan import compilation, jitted_functions as functions, suggestions, topology
from sftrl_jax.programs.plan.compilation import Compiled, Machine
from sftrl_jax.programs.plan.options import PlanOptions
from sftrl_jax.programs.plan.table import optimizer_line, page, sharding
from sftrl_jax.programs.plan.topology import Slice
from sftrl_jax.training.log import write_json

NOTE = "compiled, not run"


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run on a slice. functions: all of it, or those that were asked for."""

  experiment: Experiment
  where: Slice
  functions: tuple[Compiled, ...]
  seconds: float   # that compiling took

  @property
  def machine(self) -> Machine:
    chip = self.where.chip
    return Machine(chip.hbm_gib * GIB, chip.flops, chip.bandwidth, chip.ici)

  @property
  def failing(self) -> tuple[Compiled, ...]:
    return tuple(one for one in self.functions if one.oom or one.peak > self.machine.memory)

  @property
  def fits(self) -> bool:
    return not self.failing

  @property
  def peak(self) -> float:
    return max(one.peak for one in self.functions)

  @property
  def step_seconds(self) -> float:
    """A bound of one step of the run: every function as often as the step calls it, evaluations left out."""
    return sum(one.calls * one.bound(self.machine)[0] for one in self.functions)

  @property
  def step_tokens(self) -> int:
    """Positions that a step learns from."""
    return round(sum(one.calls * one.tokens for one in self.functions if one.name == "train step"))


def run(config, asked: PlanOptions) -> dict:
  """Compiles, prints, and returns what plan.json holds."""
  say = lambda line: print(line, flush=True)
  say(f"{asked.where}. {NOTE}.")
  jax.config.update("jax_enable_compilation_cache", False)   # what was compiled for others cannot be read back
  made = make(config, asked.verb, asked.where, asked.only, say=lambda line: say(f"  {line}"))
  told = {**told_of(made, asked.price), "only": list(asked.only)}
  if asked.show == "sharding":
    say(sharding(made))
  say(page(made, told))
  for name in asked.optimizers:
    other = suggestions.changed(config, asked.verb, {"optimizer.name": name})
    again = make(other, asked.verb, asked.where, only=("state", "train step"))
    told["optimizers"] = [*told.get("optimizers", ()), optimizer_line(name, again, say)]
  if not made.fits:
    told["knobs"] = suggestions.search(made, config, make, say, asked.tries)
  if asked.out:
    write_json(Path(asked.out), told)
    say(f"Written: {asked.out}")
  return told


def make(config, verb: str, where: Slice, only: tuple[str, ...] = (), say: Callable = lambda line: None,
         arguments_only: bool = False) -> Plan:
  """The plan of a run.

  only: beginnings of the names of functions to be compiled, if not all; what the others return is guessed
  arguments_only: nothing is compiled, and what functions need besides their arguments is left out
  """
  began = time.perf_counter()
  experiment = build_experiment(config, verb, devices=topology.devices(where))
  found = []
  for one in walk(experiment, only, arguments_only):
    found.append(one)
    say(f"{one.name:<28}{'does not fit' if one.oom else 'compiled':<13}{one.peak / GIB:>8.2f} GiB   "
        f"{one.seconds_to_compile:6.1f} s, {time.perf_counter() - began:.0f} s in all")
  if not found:
    raise ConfigError(f"--only={','.join(only)} names no function of this run: their names begin with state, train "
                      "step, and where it plays, score, minibatch, weight move, turn, regroup, kl.")
  return Plan(experiment, where, tuple(found), time.perf_counter() - began)


def walk(experiment: Experiment, only: tuple[str, ...] = (), arguments_only: bool = False):
  """Compiled functions one after another."""
  source, returned = functions.each(experiment), None
  while True:
    try:
      function = source.send(returned)
    except StopIteration:
      return
    chosen = not only or function.name.startswith(only)
    if chosen and not arguments_only:
      one, returned, _ = compilation.build(function, experiment.mesh)
      yield one
      continue
    returned = functions.guessed(functions.returned(function, experiment.mesh), experiment.mesh)
    if chosen:
      yield compilation.weighed(function, experiment.mesh)


def told_of(made: Plan, price: float = 0.0) -> dict:
  """plan.json: the keys fits, hbm_limit_gib and functions are a contract."""
  seconds, tokens, chips = made.step_seconds, made.step_tokens, made.where.chips
  hours = made.experiment.limits.steps * seconds * chips / 3600
  told = {"fits": made.fits, "hbm_limit_gib": made.where.chip.hbm_gib,
          "functions": [one.told(made.machine) for one in made.functions], "note": NOTE,
          "topology": made.where.name, "chips": chips, "hosts": made.where.hosts, "verb": made.experiment.verb,
          "mesh": dict(made.experiment.mesh.shape), "rows_split": meshes.rows(made.experiment.mesh),
          "peak_gib": made.peak / GIB, "step_seconds_bound": seconds,
          "tokens_per_second_bound": tokens / seconds if seconds else 0.0, "steps": made.experiment.limits.steps,
          "chip_hours_bound": hours, "compile_seconds": made.seconds}
  return {**told, "price_per_chip_hour": price, "cost_bound": price * hours} if price else told
