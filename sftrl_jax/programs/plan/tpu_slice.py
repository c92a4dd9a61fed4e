"""`sftrl plan` for a TPU slice that is not here: a run, function by function, by the compiler that the slice would use.

Nothing runs. The compiler gives memory, traffic and collectives, the trace gives FLOPs, and seconds are a lower bound
by the chip's peaks. On local devices the same functions are run and measured instead (local.py).
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from sftrl_jax.parallel import mesh
from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.plan import compilation, jitted_functions, suggestions, topology
from sftrl_jax.programs.plan.compilation import CompiledFunction, Plan
from sftrl_jax.programs.plan.jitted_functions import PlannedFunction
from sftrl_jax.programs.plan.options import PlanOptions
from sftrl_jax.programs.plan.published.expected import expected_step
from sftrl_jax.programs.plan.table import optimizer_line, page, sharding
from sftrl_jax.programs.plan.topology import Slice
from sftrl_jax.training.log import write_json

NOTE = "compiled, not run"


def run(config: ConfigDict, options: PlanOptions) -> dict:
  """Compiles, prints, and returns the content of plan.json."""
  say = lambda line: print(line, flush=True)
  say(f"{options.where}. {NOTE}.")
  jax.config.update("jax_enable_compilation_cache", False)   # cached programs for absent devices cannot be loaded
  plan = make_plan(config, options.verb, options.where, options.only, say=lambda line: say(f"  {line}"))
  content = {**to_json(plan, options.price), "only": list(options.only)}
  if options.show == "sharding":
    say(sharding(plan))
  say(page(plan, content))
  for name in options.optimizers:
    changed = suggestions.changed(config, options.verb, {"optimizer.name": name})
    alternative = make_plan(changed, options.verb, options.where, only=("state", "train step"))
    content["optimizers"] = [*content.get("optimizers", ()), optimizer_line(name, alternative, say)]
  if not plan.fits:
    content["knobs"] = suggestions.search(plan, config, make_plan, say, options.tries)
  if options.out:
    write_json(Path(options.out), content)
    say(f"Written: {options.out}")
  return content


def make_plan(config: ConfigDict, verb: str, where: Slice, only: tuple[str, ...] = (),
              say: Callable[[str], None] = lambda line: None, arguments_only: bool = False) -> Plan:
  """The plan of a run. ConfigError where `only` names none of its functions.

  only: beginnings of the names of the functions to compile, () for all; the results of the others are guessed
  arguments_only: nothing is compiled, and memory counts only arguments and resident arrays
  """
  began = time.perf_counter()
  experiment = build_experiment(config, verb, devices=topology.devices(where))
  functions = []
  for function in compile_functions(experiment, only, arguments_only):
    functions.append(function)
    say(f"{function.name:<34}{'does not fit' if function.oom else 'compiled':<13}{function.peak / GIB:>8.2f} GiB   "
        f"{function.seconds_to_compile:6.1f} s, {time.perf_counter() - began:.0f} s in all")
  if not functions:
    raise ConfigError(f"--only={','.join(only)} names no function of this run: their names begin with state, average, "
                      "train step; where it plays, reward model, score, advantages, minibatch, weight move, turn, "
                      "segment, regroup, ring, admit, kl.")
  return Plan(experiment, where, tuple(functions), time.perf_counter() - began)


def compile_functions(experiment: Experiment, only: tuple[str, ...] = (),
                      arguments_only: bool = False) -> Iterator[CompiledFunction]:
  """Yields the functions of a run as they are compiled; see make_plan for the arguments."""

  def handle(function: PlannedFunction) -> tuple[CompiledFunction | None, Any]:
    chosen = not only or function.name.startswith(only)
    if chosen and not arguments_only:
      return compilation.build(function, experiment.mesh)[:2]
    weighed = compilation.weigh_arguments(function, experiment.mesh) if chosen else None
    return weighed, jitted_functions.guess_results(function, experiment.mesh)

  return (function for function in jitted_functions.for_each(experiment, handle) if function is not None)


def to_json(plan: Plan, price: float = 0.0) -> dict:
  """The content of plan.json; its keys fits, hbm_limit_gib and functions are a contract. price: of a chip-hour."""
  experiment, where, seconds = plan.experiment, plan.where, plan.step_seconds
  hours = experiment.limits.steps * seconds * where.chips / 3600
  expected = expected_step(plan)
  content = {"fits": plan.fits, "hbm_limit_gib": where.chip.hbm_gib,
             "functions": [function.to_json(plan.machine) for function in plan.functions], "note": NOTE,
             "topology": where.name, "chips": where.chips, "hosts": where.hosts, "verb": experiment.verb,
             "mesh": dict(experiment.mesh.shape), "rows_split": mesh.rows(experiment.mesh),
             "peak_gib": plan.peak / GIB, "step_seconds_bound": seconds,
             "tokens_per_second_bound": plan.step_tokens / seconds if seconds else 0.0,
             "steps": experiment.limits.steps, "chip_hours_bound": hours, "compile_seconds": plan.seconds,
             "expected_step": expected.to_json() if expected else None}
  return {**content, "price_per_chip_hour": price, "cost_bound": price * hours} if price else content
