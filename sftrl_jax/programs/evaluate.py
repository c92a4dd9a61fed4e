"""A finished run read back: its config with changes, its parameters, evaluated anew."""

import contextlib
import os
from pathlib import Path

import flax.linen as nn
import jax

from sftrl_jax import jsonl, paths
from sftrl_jax.parallel import hosts, rules
from sftrl_jax.programs.config.errors import ConfigError, as_path
from sftrl_jax.programs.experiment import hosts_agree
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.saved_run import config_of, parameters, parse, verb_of
from sftrl_jax.programs.loop.evaluator import evaluate
from sftrl_jax.programs.start import initial_params
from sftrl_jax.rollout.policy import compile_all
from sftrl_jax.training.log import Log
from sftrl_jax.training.position import Limits, Position


def run(source: str, overrides, workdir: str) -> list[dict]:
  """`sftrl evaluate WORKDIR[@step]`: every variant of a checkpoint, with --config.evals... of your own.

  Returns the lines of evals.jsonl, also printed as a table and written to `workdir` or SOURCE/evaluate/<step>.

  Of several processes each plays its share, and the first one writes and prints; all must see the workdir.
  """
  origin = parse(source)
  home = origin.home
  if workdir and (as_path(workdir) / "config.json").is_file():
    raise ConfigError(f"--workdir={workdir} is the workdir of a run, whose evals.jsonl would be lost: give another, or "
                      f"leave it out to write to {home / 'evaluate'}.")
  experiment = build_experiment(config_of(home, overrides), verb_of(home), home)
  hosts_agree.check({**experiment.config, "from": source}, verb_of(home), {}, os.environ)
  step = hosts.led_by_first(lambda: origin.step)   # a run that goes on meanwhile has another best one soon
  say = print if hosts.is_first_process() else lambda text: None
  if origin.note:
    say(origin.note)
  if not experiment.evals.variants:
    raise ConfigError(f"{home} names no variants to evaluate: add --config.evals.variants=\"('...',)\".")
  with jax.set_mesh(experiment.mesh), nn.logical_axis_rules(rules.activation_rules()):
    params, step = parameters(experiment, home, step)
    out = as_path(workdir) if workdir else home / "evaluate" / str(step)
    if hosts.is_first_process():
      paths.make(out)
      for name in ("evals.jsonl", "episodes.jsonl"):
        jsonl.remove(out / name)  # an evaluation is whole or written again
    log = Log(out, experiment.log, Limits(1), f"evaluate {source}", writes=hosts.is_first_process())
    with contextlib.closing(log):
      log.start()
      compile_all(experiment.actor, experiment.actor.compiled.to_decoding(params))
      begin = _start_of(experiment, home, params)
      lines = evaluate(experiment, params, begin, Position(step=step), log)
  say(table(lines))
  say(f"Written: {', '.join(map(str, jsonl.files(out / 'evals.jsonl')))}")
  return lines


def _start_of(experiment: Experiment, home: Path, params):
  """What KL is measured from: the run's start if it is still there, else the parameters themselves (KL 0)."""
  if initial_params.adapters_of(home):
    return initial_params.adapter_base(home, experiment.start, experiment.model, experiment.seed, experiment.mesh)[0]
  try:
    initial_params.check_start(experiment.start)
  except ConfigError as error:
    print(f"KL is not measured from the start: {error}")
    return params
  return initial_params.load_start(experiment.start, experiment.model, experiment.seed, experiment.mesh)


def table(lines: list[dict]) -> str:
  """Success by variant and temperature, with 95% intervals."""
  head = f"{'variant':<14}{'temperature':>12}{'success':>10}{'95% interval':>18}{'first try':>11}{'episodes':>10}"
  rows = [f"{line['variant']:<14}{line['temperature']:>12g}{100 * line['success']:>9.1f}%"
          f"{100 * line['ci95'][0]:>10.1f} - {100 * line['ci95'][1]:.1f}%{100 * line['first_success']:>10.1f}%"
          f"{line['episodes']:>10}" for line in lines]
  return "\n".join([head, *rows])
