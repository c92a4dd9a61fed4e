"""The first knobs to turn when a run does not fit: each is compiled, none is guessed.

Knobs are turned in an order: first what costs time alone, then what changes the optimizer, then what changes the run or
the slice. One that helps is kept while the next is tried; one with which the arguments alone are too much is not
compiled. What is compiled again is what did not fit.
"""

import dataclasses
from collections.abc import Callable

from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.plan import topology


@dataclasses.dataclass(frozen=True)
class Knob:
  """changes: dotted keys of the config and their values; slice: another one to rent instead. kept: stays turned."""

  changes: dict
  slice: str = ""
  kept: bool = True

  def __str__(self) -> str:
    words = [f"--config.{key}={value}" for key, value in self.changes.items()]
    return " ".join([*words, *([f"--topology={self.slice}"] if self.slice else [])])


def changed(config, verb: str, changes: dict):
  """The config with some keys changed, as the command line would."""
  texts = [(key, str(value)) for key, value in changes.items()]
  return run_config.resolve_for(verb, config, texts, lambda _: None)


def knobs(made) -> list[Knob]:
  """What can still be turned, in order, for the functions that do not fit."""
  names = {one.name for one in made.failing}
  arguments = max(sum(one.arguments.values()) + sum(one.resident.values()) for one in made.failing)
  config, model = made.experiment.config, made.experiment.model.config
  found = []
  if arguments <= made.machine.memory:   # activations are what is too much
    if names & {"train step", "score"}:
      found += [Knob({"compute.microbatches": pieces}) for pieces in _pieces(made)]
      if model.remat != "full":
        found.append(Knob({"model.remat": "full"}))
      if not config["compute"]["logit_chunk"]:
        found.append(Knob({"compute.logit_chunk": 128}))
    if any(name.startswith(("turn", "regroup")) for name in names):
      found += [Knob({"rollout.rows": rows}) for rows in _rows(made)]
    if "kl of an evaluation" in names:
      found.append(Knob({"evals.kl": False}))
  if not made.experiment.lora.rank:
    if config["optimizer"]["name"] in ("adamw", "adam") and "mu_dtype" not in config["optimizer"]["args"]:
      found.append(Knob({"optimizer.args.mu_dtype": "bfloat16"}))
    if config["optimizer"]["name"] != "adafactor":
      found.append(Knob({"optimizer.name": "adafactor"}, kept=False))
    found.append(Knob({"lora.rank": 16}, kept=False))
  where = topology.larger(made.where)
  while where is not None and where.chips <= 16 * made.where.chips:
    found.append(Knob({}, where.name, kept=False))
    where = topology.larger(where)
  return found


def search(made, config, make: Callable, say: Callable, tries: int) -> list[dict]:
  """Turns knobs until the functions that did not fit do; [{knob, fits, peak_gib, compiled}], printed as they come.

  make: programs/plan.py `make`. tries: so many that the compiler does not refuse.
  """
  only = tuple(one.name for one in made.failing)
  limit, turned, told = made.where.chip.hbm_gib, {}, []
  say(f"The first knobs to turn, {', '.join(only)} compiled again with each:")
  for knob in knobs(made):
    if tries < 1:
      say("  (no more tries: --tries=N)")
      break
    changes = {**turned, **knob.changes}
    where = topology.parse(knob.slice) if knob.slice else made.where
    words = str(Knob(changes, knob.slice))
    try:
      again_config = changed(config, made.experiment.verb, changes)
      least = make(again_config, made.experiment.verb, where, only=only, arguments_only=True)
      again = least
      if least.peak <= least.machine.memory:
        again = make(again_config, made.experiment.verb, where, only=only)
        tries -= not any(one.oom for one in again.functions)   # a refusal takes seconds
    except (ConfigError, ValueError) as error:
      say(f"  {words}: {str(error).splitlines()[0]}")
      continue
    compiled = again is not least
    fits, peak = compiled and again.fits, again.peak / GIB
    say(f"  {words}: {f'needs {peak:.2f} GiB' if compiled else f'arguments alone are {peak:.2f} GiB'} of "
        f"{where.chip.hbm_gib:g} GiB{', fits' if fits else ''}")
    told.append({"knob": words, "fits": fits, "peak_gib": peak, "compiled": compiled, "hbm_limit_gib": limit})
    if fits:
      break
    turned = changes if knob.kept and compiled else turned
  return told


def _pieces(made) -> list[int]:
  """More microbatches, as long as each has a row for every part of the mesh."""
  from sftrl_jax.parallel import mesh as meshes
  config = made.experiment.config
  method = made.experiment.algorithm_config
  rows = config["batch"] // (method.minibatches if method is not None else 1)
  pieces, row_shards, found = config["compute"]["microbatches"], meshes.rows(made.experiment.mesh), []
  while rows % (2 * pieces) == 0 and rows // (2 * pieces) % row_shards == 0:
    pieces *= 2
    found.append(pieces)
  return found


def _rows(made) -> list[int]:
  """Fewer conversations together."""
  from sftrl_jax.parallel import mesh as meshes
  rows, row_shards, found = made.experiment.config["rollout"]["rows"], meshes.rows(made.experiment.mesh), []
  while rows % 2 == 0 and rows // 2 % row_shards == 0 and rows // 2 % made.experiment.actor.group == 0:
    rows //= 2
    found.append(rows)
  return found[:2]
