"""The first knobs to turn when a run does not fit. Each is compiled, none is guessed.

Knobs are tried in an order: first those that only cost time, then those that change the optimizer, then those that
change the run or the slice. A knob that helps stays turned while the next is tried. A knob with which the arguments
alone are too large is not compiled. Only the functions that do not fit are compiled again.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from sftrl_jax.parallel import mesh
from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.config.errors import ConfigError, first_line
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.plan import topology
from sftrl_jax.programs.plan.compilation import Plan
from sftrl_jax.training.algorithms import reads_whole_episodes

KL = "kl of an evaluation"
ROWS = re.compile(r"(, \d+ rows| \d+( to \d+)?( again)?$).*")   # in the names of functions of a rollout


@dataclasses.dataclass(frozen=True)
class Knob:
  """changes: dotted keys of the config and their values; slice: the name of a larger slice; kept: whether the knob
  stays turned while the next is tried."""

  changes: dict[str, Any]
  slice: str = ""
  kept: bool = True

  def __str__(self) -> str:
    words = [f"--config.{key}={value}" for key, value in self.changes.items()]
    return " ".join([*words, *([f"--topology={self.slice}"] if self.slice else [])])


def changed(config: ConfigDict, verb: str, changes: dict[str, Any]) -> ConfigDict:
  """The config with some keys changed, as the command line changes them."""
  texts = [(key, str(value)) for key, value in changes.items()]
  return run_config.resolve_for(verb, config, texts, lambda _: None)


def list_knobs(plan: Plan) -> list[Knob]:
  """The knobs that may help the functions that do not fit, in the order in which to try them."""
  names = {function.name for function in plan.failing}
  arguments = max(sum(function.arguments.values()) + sum(function.resident.values()) for function in plan.failing)
  config, model = plan.experiment.config, plan.experiment.model.config
  knobs = []
  if arguments <= plan.machine.memory:   # then activations are too large
    if names & {"train step", "score", KL}:   # the rows and logits of a KL are cut as those of a train step
      knobs += [Knob({"compute.microbatches": pieces}) for pieces in _more_microbatches(plan)]
      if model.remat != "full":
        knobs.append(Knob({"model.remat": "full"}))
      if not config["compute"]["logit_chunk"]:
        knobs.append(Knob({"compute.logit_chunk": 128}))
    if any(name.startswith(("turn", "segment", "regroup", "admit")) for name in names):
      knobs += [Knob({"rollout.rows": rows}) for rows in _fewer_rows(plan)]
    if KL in names:
      knobs.append(Knob({"evals.kl": False}))
  if not plan.experiment.lora.rank:
    if config["optimizer"]["name"] in ("adamw", "adam") and "mu_dtype" not in config["optimizer"]["args"]:
      knobs.append(Knob({"optimizer.args.mu_dtype": "bfloat16"}))
    if config["optimizer"]["name"] != "adafactor":
      knobs.append(Knob({"optimizer.name": "adafactor"}, kept=False))
    knobs.append(Knob({"lora.rank": 16}, kept=False))
  where = topology.larger(plan.where)
  while where is not None and where.chips <= 16 * plan.where.chips:
    knobs.append(Knob({}, where.name, kept=False))
    where = topology.larger(where)
  return knobs


def search(plan: Plan, config: ConfigDict, make: Callable[..., Plan], say: Callable[[str], None],
           tries: int) -> list[dict]:
  """Turns knobs until the functions that did not fit do, and prints each: [{knob, fits, peak_gib, compiled, ...}].

  make: `make_plan` of tpu_slice.py; tries: how many knobs to compile; refusals of the compiler take seconds, and are
  not counted.
  """
  names = tuple(function.name for function in plan.failing)
  limit, turned, results, verb = plan.where.chip.hbm_gib, {}, [], plan.experiment.verb
  say(f"The first knobs to turn, {', '.join(names)} compiled again with each:")
  for knob in list_knobs(plan):
    if tries < 1:
      say("  (no more tries: --tries=N)")
      break
    changes = _turned_with(turned, knob)
    only = tuple(dict.fromkeys(ROWS.sub("", name) for name in names)) if "rollout.rows" in changes else names
    where = topology.parse(knob.slice) if knob.slice else plan.where
    words = str(Knob(changes, knob.slice))
    try:
      changed_config = changed(config, verb, changes)
      attempt = make(changed_config, verb, where, only=only, arguments_only=True)
      compiled = attempt.peak <= attempt.machine.memory
      if compiled:
        attempt = make(changed_config, verb, where, only=only)
        tries -= not any(function.oom for function in attempt.functions)
    except (ConfigError, ValueError) as error:
      say(f"  {words}: {first_line(error)}")
      continue
    fits, peak = compiled and attempt.fits, attempt.peak / GIB
    say(f"  {words}: {f'needs {peak:.2f} GiB' if compiled else f'arguments alone are {peak:.2f} GiB'} of "
        f"{where.chip.hbm_gib:g} GiB{', fits' if fits else ''}")
    results.append({"knob": words, "fits": fits, "peak_gib": peak, "compiled": compiled, "hbm_limit_gib": limit})
    if fits:
      break
    turned = changes if knob.kept and compiled else turned
  return results


def _turned_with(turned: dict[str, Any], knob: Knob) -> dict[str, Any]:
  """The changes of the knobs turned so far and of one more; another optimizer leaves out arguments of the first."""
  if "optimizer.name" in knob.changes:
    turned = {key: value for key, value in turned.items() if not key.startswith("optimizer.args.")}
  return {**turned, **knob.changes}


def _more_microbatches(plan: Plan) -> list[int]:
  """compute.microbatches doubled, as long as each microbatch has a row for every shard of the mesh."""
  config, section = plan.experiment.config, plan.experiment.algorithm_config
  rows = config["batch"] // (section.minibatches if section is not None else 1)
  if section is not None and not reads_whole_episodes(section):
    rows *= plan.experiment.actor.episode_rows
  pieces, shards, counts = config["compute"]["microbatches"], mesh.rows(plan.experiment.mesh), []
  while rows % (2 * pieces) == 0 and rows // (2 * pieces) % shards == 0:
    pieces *= 2
    counts.append(pieces)
  return counts


def _fewer_rows(plan: Plan) -> list[int]:
  """rollout.rows halved once and twice, as long as the mesh and a group divide them."""
  rows, shards, counts = plan.experiment.config["rollout"]["rows"], mesh.rows(plan.experiment.mesh), []
  while rows % 2 == 0 and rows // 2 % shards == 0 and rows // 2 % plan.experiment.actor.group == 0:
    rows //= 2
    counts.append(rows)
  return counts[:2]
