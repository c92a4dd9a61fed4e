"""A finished run read back: its config with changes, its parameters, evaluated anew."""

import contextlib
import os
from pathlib import Path

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from sftrl_jax import jsonl, places
from sftrl_jax.checkpoints import store as stores
from sftrl_jax.parallel import hosts, rules
from sftrl_jax.programs import adapters, origin as origins, start as starts, unison
from sftrl_jax.programs.evaluate import evaluate
from sftrl_jax.programs.mistakes import ConfigError, place, recorded
from sftrl_jax.programs.origin import Origin
from sftrl_jax.programs.settings import resolve
from sftrl_jax.programs.setup import SCHEMAS, Parts, assemble
from sftrl_jax.rollout.policy import compile_all
from sftrl_jax.training.log import Log
from sftrl_jax.training.loop import Limits, Position


def evaluate_recorded(source: str, overrides, workdir: str) -> list[dict]:
  """Lines of evals.jsonl, also printed as a table and written to `workdir` or SOURCE/evaluate/<step>.

  Of several processes each plays its share, and the first one writes and prints; all must see the workdir.
  """
  origin = parse(source)
  home = origin.home
  if workdir and (place(workdir) / "config.json").is_file():
    raise ConfigError(f"--workdir={workdir} is the workdir of a run, whose evals.jsonl would be lost: give another, or "
                      f"leave it out to write to {home / 'evaluate'}.")
  parts = assemble(config_of(home, overrides), verb_of(home), home)
  unison.check({**parts.config, "from": source}, verb_of(home), {}, os.environ)
  step = hosts.led(lambda: origin.step)   # a run that goes on meanwhile has another best one soon
  say = print if hosts.leads() else lambda text: None
  if origin.note:
    say(origin.note)
  if not parts.settings["evals"].variants:
    raise ConfigError(f"{home} names no variants to evaluate: add --config.evals.variants=\"('...',)\".")
  with jax.set_mesh(parts.mesh), nn.logical_axis_rules(rules.activation_rules()):
    params, step = parameters(parts, home, step)
    out = place(workdir) if workdir else home / "evaluate" / str(step)
    if hosts.leads():
      places.make(out)
      for name in ("evals.jsonl", "episodes.jsonl"):
        jsonl.remove(out / name)  # an evaluation is whole or written again
    log = Log(out, parts.settings["log"], Limits(1), f"evaluate {source}", writes=hosts.leads())
    with contextlib.closing(log):
      compile_all(parts.actor, parts.actor.compiled[2](params))
      begin = _start_of(parts, home, params)
      lines = evaluate(parts, params, begin, Position(step=step), log)
  say(table(lines))
  say(f"Written: {', '.join(map(str, jsonl.files(out / 'evals.jsonl')))}")
  return lines


def parse(source: str) -> Origin:
  """What WORKDIR, WORKDIR@STEP or WORKDIR@best:VARIANT means; ConfigError for what is no workdir of a run."""
  home = origins.home_of(source)
  if not (home / "config.json").is_file():
    raise ConfigError(f"{home} is no workdir of a run: it holds no config.json.")
  recorded(home)
  return origins.parse(source)


def verb_of(home: Path) -> str:
  verb = recorded(home).get("verb")
  if verb not in SCHEMAS:
    raise ConfigError(f"{home} is the workdir of `{verb}`: give the workdir of one of its runs.")
  return verb


def config_of(home: Path, overrides) -> ConfigDict:
  """The config recorded in a workdir, with overrides."""
  there = {key: value for key, value in recorded(home).items() if key != "verb"}
  return resolve(ConfigDict(there), list(overrides), SCHEMAS[verb_of(home)])


def parameters(parts: Parts, home: Path, step: int | None):
  """(parameters of `model`, step) of a checkpoint; adapters are merged into their base."""
  if adapters.of(home):
    return adapters.load(home, step, parts.model, parts.mesh, parts.settings["lora"], parts.config["start"])[:2]
  where = rules.shardings({"model": jax.eval_shape(parts.model.init, jax.random.key(0))}, parts.mesh)["model"]
  shapes = jax.eval_shape(parts.model.init, jax.random.key(0))
  like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, where)
  return stores.restore_params(home, step, like)


def _start_of(parts: Parts, home: Path, params):
  """What KL is measured from: the run's start if it is still there, else the parameters themselves (KL 0)."""
  if adapters.of(home):
    return adapters.based(home, parts.config["start"], parts.model, parts.config["seed"], parts.mesh)[0]
  try:
    starts.check(parts.config["start"])
  except ConfigError as error:
    print(f"KL is not measured from the start: {error}")
    return params
  return starts.load(parts.config["start"], parts.model, parts.config["seed"], parts.mesh)


def table(lines: list[dict]) -> str:
  """Success by variant and temperature, with 95% intervals."""
  head = f"{'variant':<14}{'temperature':>12}{'success':>10}{'95% interval':>18}{'first try':>11}{'episodes':>10}"
  rows = [f"{line['variant']:<14}{line['temperature']:>12g}{100 * line['success']:>9.1f}%"
          f"{100 * line['ci95'][0]:>10.1f} - {100 * line['ci95'][1]:.1f}%{100 * line['first_success']:>10.1f}%"
          f"{line['episodes']:>10}" for line in lines]
  return "\n".join([head, *rows])
