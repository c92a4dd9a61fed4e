"""A run's parts tried on its real mesh before hours are spent, and three steps of the real program: will they be right,
how long will they take, how much memory?"""

import contextlib
import io
import json
import os
import resource
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from sftrl_jax import jsonl, paths
from sftrl_jax.data.rows import RowsConfig
from sftrl_jax.envs.referee import TaskError
from sftrl_jax.parallel import hosts, rules
from sftrl_jax.programs.check import decoding_checks, mask_checks, plan_check
from sftrl_jax.programs.check.expert_episodes import CheckFailed, FatalCheckFailed
from sftrl_jax.programs.check.task_checks import CheckResult, run_check
from sftrl_jax.programs.config import nested
from sftrl_jax.programs.config.errors import AbortAllProcesses
from sftrl_jax.programs.experiment import hosts_agree
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.start import initial_params
from sftrl_jax.programs.study.progress_bar import clock
from sftrl_jax.programs.trainers import TRAINERS
from sftrl_jax.rollout.policy import compile_all

STEPS = 3
LESS = ("if memory is short: --config.compute.microbatches up, --config.rollout.rows or --config.batch down, "
        "--config.model.remat=full, or more devices in config.mesh")


def attempt(config: ConfigDict, verb: str, planned: plan_check.PlannedStep | None = None,
            scratch: Path | None = None) -> Iterator[CheckResult]:
  """Yields the result of each check of the parts of a resolved config. Nothing is left behind.

  planned: the step of a plan, which the steps are compared with
  scratch: a directory, or gs://..., in which the steps write meanwhile; this machine's temporary one if left out
  """
  experiment = build_experiment(config, verb)
  initial_params.check_start(experiment.start, experiment.model)
  hosts_agree.check(experiment.config, verb, {}, os.environ)
  with _compiled_once():
    yield from _parts(experiment, verb, played := {})
    if "sampled" in played or not experiment.has_env:
      times = []
      yield run_check(f"{STEPS} steps", lambda: _tried(
          lambda: _steps(config, verb, experiment, played.get("seconds", 0.0), times, scratch)))
      if planned and times:
        yield run_check("as it was planned", lambda: _as_planned(planned, verb, min(times)))


def _parts(experiment: Experiment, verb: str, played: dict):
  """The checks of one model in several places; `played` is filled with its episodes, if there is anything to play."""
  if not experiment.has_env:
    yield run_check("the rows are trained", lambda: mask_checks.of_rows(experiment))
    return
  with jax.set_mesh(experiment.mesh), nn.logical_axis_rules(rules.activation_rules()):
    params = initial_params.load_start(experiment.start, experiment.model, experiment.seed, experiment.mesh)

    def play() -> str:
      compile_all(experiment.actor,
                  experiment.actor.compiled.to_decoding(params))   # so that the seconds are those of playing
      for name, temperature in (("greedy", 0.0), ("sampled", experiment.actor.rollout.temperature)):
        played[name], played["seconds"] = decoding_checks.episodes_of(experiment, params, temperature)
      episodes = played["sampled"]
      success = sum(episode.success for episode in episodes) / len(episodes)
      return f"{len(episodes)} at once in {played['seconds']:.2g} s; success of the start {success:.1%}"

    yield (first := run_check("episodes played by the model", lambda: _tried(play)))
    if not first.ok:
      return
    greedy, sampled = played["greedy"], played["sampled"]
    yield run_check("decoding is the full forward",
                    lambda: decoding_checks.greedy_is_the_argmax(experiment, params, greedy))
    yield run_check("sampler and trainer agree",
                    lambda: decoding_checks.probabilities_agree(experiment, params, sampled))
    if isinstance(experiment.data, RowsConfig):
      yield run_check("the rows are trained", lambda: mask_checks.of_rows(experiment))
    else:
      yield run_check("the responses are trained", lambda: (
          mask_checks.of_episodes(experiment, sampled) if KINDS[verb].plays_episodes
          else mask_checks.of_demonstrations(experiment)))


def _tried(check) -> str:
  """check(), whose failures are a finding too, whatever raises them."""
  try:
    return check()
  except (CheckFailed, TaskError):
    raise
  except AbortAllProcesses as error:
    raise FatalCheckFailed(str(error), "") from error
  except (ValueError, RuntimeError, OSError) as error:
    raise FatalCheckFailed(str(error)[:600] or type(error).__name__, LESS) from error


@contextlib.contextmanager
def _compiled_once():
  """What the first checks compile, the steps read back; kept in a directory that is removed."""
  names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
  before = {name: getattr(jax.config, name) for name in names}
  if before[names[0]]:
    yield
    return
  with tempfile.TemporaryDirectory() as folder:
    try:
      for name, value in zip(names, (folder, 0.0), strict=True):
        jax.config.update(name, value)
      yield
    finally:
      for name, value in before.items():
        jax.config.update(name, value)


def _as_planned(planned: plan_check.PlannedStep, verb: str, seconds: float) -> str:
  plan_check.refuse_another(planned, verb, jax.device_count())
  peaks = _peaks()
  return plan_check.compare(planned, seconds, max(peaks) if peaks else None)


def _steps(config: ConfigDict, verb: str, experiment: Experiment, seconds_a_play: float, times: list[float],
           scratch) -> str:
  """The program itself in a directory that is removed: its own batches, compiled step and checkpoint.

  times: gets the seconds of each step.
  """
  short = nested.plain(config)
  for path, value in {"steps": STEPS, "flops": 0.0, "evals.variants": (), "checkpoint.every": 0, "log.every": 1,
                      "log.writers": (), "log.report": False}.items():
    nested.put(short, path, value)
  with _removed(scratch) as folder, contextlib.redirect_stdout(io.StringIO()):
    TRAINERS[verb](ConfigDict(short).lock(), folder / "check")
    lines = [json.loads(line) for file in jsonl.files(folder / "check" / "metrics.jsonl")
             for line in file.read_text().splitlines()]
  losses = [float(line["loss"]) for line in lines]
  if not np.isfinite(losses).all() or sum(line["nonfinite_steps"] for line in lines):
    raise CheckFailed(f"the loss is {', '.join(map(str, losses))}",
                "lower config.optimizer.learning_rate, or use --config.model.dtype=float32")
  times += [line["timing_s/step"] for line in lines]
  steps = length(experiment, lines[-1]["compute/total_flops"] / len(lines))
  training, measuring = steps * sorted(times)[len(times) // 2], _evaluations(experiment, steps) * seconds_a_play
  return (f"{', '.join(f'{seconds:.2g}' for seconds in times)} s; all {steps} take {clock(training)}, their "
          f"evaluations {clock(measuring)}: about {clock(training + measuring)} (h:)min:s; peak memory {memory()}")


@contextlib.contextmanager
def _removed(scratch: Path | None):
  """A new directory that all processes write into and the first one removes, below `scratch` or a temporary one."""
  below = lambda: str(paths.absolute(scratch) / f"check-{secrets.token_hex(4)}")
  folder = paths.as_path(hosts.led_by_first(tempfile.mkdtemp if scratch is None else below))
  try:
    yield folder
    hosts.wait()   # until all have read it
  finally:
    if hosts.is_first_process():
      paths.remove(folder)


def length(experiment: Experiment, flops: float) -> int:
  """Steps of the whole run: config.steps, or fewer if config.flops pay for fewer. flops: of one step."""
  budget = experiment.limits.flops
  return min(experiment.limits.steps, -int(-budget // flops)) if budget else experiment.limits.steps


def _evaluations(experiment: Experiment, steps: int) -> int:
  """How often as many episodes as are decoded together are played for all evaluations of a run."""
  evals = experiment.evals
  times = 2 + (steps // evals.every if evals.every else len(evals.at))
  return times * len(evals.variants) * len(evals.temperatures) * -(-evals.episodes // experiment.actor.rollout.rows)


def memory() -> str:
  """The most that was in use at once: on the fullest device, or of the process where devices do not tell."""
  peaks = _peaks()
  if peaks:
    limit = max((device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices())
    return f"{max(peaks) / 2**30:.2f} GiB on a device" + (f" of {limit / 2**30:.1f} GiB" if limit else "")
  unit = 1 if sys.platform == "darwin" else 1024   # macOS tells bytes, Linux kibibytes
  return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB in this process"


def _peaks() -> list[int]:
  """Bytes that each device had in use at the most; [] where they do not tell."""
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  mine = [stat["peak_bytes_in_use"] for stat in stats if "peak_bytes_in_use" in stat]
  return [peak for some in hosts.gathered(mine) for peak in some]
