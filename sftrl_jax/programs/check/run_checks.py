"""Checks of a run's parts on its real mesh, and three steps of the real program: are they right, how long do they take,
how much memory do they need?"""

import contextlib
import dataclasses
import io
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sftrl_jax import jsonl, paths
from sftrl_jax.data.pairs.rows import PairsConfig
from sftrl_jax.data.pairs.sampled import SampledPairsConfig
from sftrl_jax.data.rows import RowsConfig
from sftrl_jax.envs.referee import TaskError
from sftrl_jax.parallel import hosts, rules
from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.check import decoding_checks, mask_checks, plan_check
from sftrl_jax.programs.check.expert_episodes import CheckFailed, FatalCheckFailed
from sftrl_jax.programs.check.task_checks import CheckResult, run_check
from sftrl_jax.programs.config import nested
from sftrl_jax.programs.config.errors import AbortAllProcesses
from sftrl_jax.programs.experiment import hosts_agree
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.plan.automatic import settle
from sftrl_jax.programs.runtime import process
from sftrl_jax.programs.start import initial_params
from sftrl_jax.programs.study.progress_bar import clock
from sftrl_jax.programs.trainers import TRAINERS
from sftrl_jax.rollout.episodes import Episode
from sftrl_jax.rollout.segments import compile_all

STEPS = 3
LESS_MEMORY = ("if memory is short: --config.compute.microbatches up, --config.rollout.rows or --config.batch down, "
               "--config.model.remat=full, or more devices in config.mesh")


@dataclasses.dataclass(frozen=True)
class Played:
  """Episodes that the model played: greedily, and at the temperature of training. seconds: to play the latter."""

  greedy: list[Episode]
  sampled: list[Episode]
  seconds: float


def check_run(config: ConfigDict, verb: str, planned: plan_check.PlannedStep | None = None,
              scratch: Path | None = None) -> Iterator[CheckResult]:
  """Checks the parts of a resolved config one by one: the caller prints each result before the next check begins.

  planned: the steps are compared with it
  scratch: a directory, or gs://..., in which the steps write meanwhile; None for a temporary one of this machine

  Nothing is left behind. Raises ConfigError for parts that do not fit together.
  """
  config = settle(config, verb)
  experiment = build_experiment(config, verb)
  initial_params.check_start(experiment.start, experiment.model, experiment.lora)
  hosts_agree.check(experiment.config, verb, {}, os.environ)
  # A check returns a message alone. These two get what later checks need; they stay empty if the check fails.
  played: list[Played] = []
  step_seconds: list[float] = []
  with _shared_compilations():
    yield from _check_parts(experiment, played)
    if experiment.has_env and not played:
      return
    play_seconds = played[0].seconds if played else 0.0
    yield (stepped := run_check(f"{STEPS} steps", lambda: _as_failure(
        lambda: _try_steps(config, experiment, play_seconds, step_seconds, scratch))))
    if planned and stepped.ok:
      yield run_check("as it was planned", lambda: _compare_with_plan(planned, verb, min(step_seconds)))


def _check_parts(experiment: Experiment, played: list[Played]) -> Iterator[CheckResult]:
  """Checks model, sampler and masks. `played` gets the model's episodes, unless there is no environment to play."""
  if not experiment.has_env:
    yield run_check("the rows are trained", lambda: mask_checks.check_rows(experiment))
    return
  with jax.set_mesh(experiment.mesh), rules.applied():
    params = initial_params.load_start(experiment.start, experiment.model, experiment.seed, experiment.mesh)

    def play() -> str:
      played.append(_play(experiment, params))
      episodes = [episode for episode in played[0].sampled if not episode.dropped]
      if not episodes:
        raise FatalCheckFailed(played[0].sampled[0].trouble.message, "mend that")
      success = sum(episode.success for episode in episodes) / len(episodes)
      return f"{len(episodes)} at once in {played[0].seconds:.2g} s; success of the start {success:.1%}"

    yield (first := run_check("episodes played by the model", lambda: _as_failure(play)))
    if not first.ok:
      played.clear()   # a check that fails in one process fails in all: none goes on to the steps
      return
    greedy, sampled = played[0].greedy, played[0].sampled
    yield run_check("decoding is the full forward",
                    lambda: decoding_checks.check_greedy_tokens(experiment, params, greedy))
    yield run_check("sampler and trainer agree", lambda: decoding_checks.check_logprobs(experiment, params, sampled))
    if isinstance(experiment.data, (RowsConfig, PairsConfig)):
      yield run_check("the rows are trained", lambda: mask_checks.check_rows(experiment))
    elif isinstance(experiment.data, SampledPairsConfig):
      return   # the steps below sample some
    elif KINDS[experiment.verb].plays_episodes:
      yield run_check("the responses are trained", lambda: mask_checks.check_episodes(experiment, sampled))
    else:
      yield run_check("the responses are trained", lambda: mask_checks.check_demonstrations(experiment))


def _play(experiment: Experiment, params: dict) -> Played:
  compile_all(experiment.actor, experiment.actor.compiled.to_decoding(params))   # so that the seconds are of playing
  greedy, _ = decoding_checks.play_episodes(experiment, params, 0.0)
  sampled, seconds = decoding_checks.play_episodes(experiment, params, experiment.actor.rollout.temperature)
  return Played(greedy, sampled, seconds)


def _as_failure(check: Callable[[], str]) -> str:
  """Runs a check, and turns what the run's own code raises into FatalCheckFailed."""
  try:
    return check()
  except (CheckFailed, TaskError):
    raise
  except AbortAllProcesses as error:
    raise FatalCheckFailed(str(error), "") from error
  except (ValueError, RuntimeError, OSError) as error:
    raise FatalCheckFailed(str(error)[:600] or type(error).__name__, LESS_MEMORY) from error


@contextlib.contextmanager
def _shared_compilations() -> Iterator[None]:
  """Lets the steps reuse what the first checks compile, by a cache in a directory that is removed afterwards."""
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


def _compare_with_plan(planned: plan_check.PlannedStep, verb: str, seconds: float) -> str:
  plan_check.refuse_other_run(planned, verb, jax.device_count())
  peaks = _peaks()
  return plan_check.compare(planned, seconds, max(peaks) if peaks else None)


def _try_steps(config: ConfigDict, experiment: Experiment, play_seconds: float, step_seconds: list[float],
               scratch: Path | None) -> str:
  """Runs the program itself for STEPS steps, with its own batches, compiled step and checkpoint, in a directory that is
  removed.

  play_seconds: of as many episodes as are decoded together, to estimate the evaluations
  step_seconds: gets the seconds of each step
  """
  short = nested.plain(config)
  few = {"data.pairs": 4 * experiment.batch, "data.variants": ()} if isinstance(
      experiment.data, SampledPairsConfig) else {}
  few |= {"evals.task_limit": 2} if experiment.evals.tasks else {}
  for path, value in {**few, "steps": STEPS, "flops": 0.0, "evals.variants": (), "checkpoint.every": 0, "log.every": 1,
                      "log.writers": (), "log.report": False}.items():
    nested.put(short, path, value)
  with _temporary_directory(scratch) as folder, contextlib.redirect_stdout(io.StringIO()):
    TRAINERS[experiment.verb](ConfigDict(short).lock(), folder / "check")
    lines = [json.loads(line) for file in jsonl.files(folder / "check" / "metrics.jsonl")
             for line in file.read_text().splitlines()]
  losses = [float(line["loss"]) for line in lines]
  if not np.isfinite(losses).all() or sum(line["nonfinite_steps"] for line in lines):
    raise CheckFailed(f"the loss is {', '.join(map(str, losses))}",
                      "lower config.optimizer.learning_rate, or use --config.model.dtype=float32")
  step_seconds += [line["timing_s/step"] for line in lines]
  steps = run_steps(experiment, lines[-1]["compute/total_flops"] / len(lines))
  training = steps * sorted(step_seconds)[len(step_seconds) // 2]
  evaluating = _plays_of_evaluations(experiment, steps) * play_seconds
  return (f"{', '.join(f'{seconds:.2g}' for seconds in step_seconds)} s; all {steps} take {clock(training)}, their "
          f"evaluations {clock(evaluating)}: about {clock(training + evaluating)} (h:)min:s; peak memory "
          f"{describe_memory()}")


@contextlib.contextmanager
def _temporary_directory(scratch: Path | None) -> Iterator[Path]:
  """Yields a new directory for all processes, below `scratch` or the system's; the first process removes it."""
  def make() -> str:
    return tempfile.mkdtemp() if scratch is None else str(paths.absolute(scratch) / f"check-{secrets.token_hex(4)}")

  folder = paths.as_path(hosts.led_by_first(make))
  try:
    yield folder
    hosts.wait()   # until all have read it
  finally:
    if hosts.is_first_process():
      paths.remove(folder)


def run_steps(experiment: Experiment, flops: float) -> int:
  """Returns the steps of the whole run: config.steps, or fewer if config.flops ends it before. flops: of one step."""
  budget = experiment.limits.flops
  return min(experiment.limits.steps, -int(-budget // flops)) if budget else experiment.limits.steps


def _plays_of_evaluations(experiment: Experiment, steps: int) -> int:
  """Returns how often the evaluations of a run play a batch of as many episodes as are decoded together."""
  evals = experiment.evals
  times = 2 + (steps // evals.every if evals.every else len(evals.at))
  rows, played = experiment.actor.rollout.rows, (evals.episodes * (evals.samples if temperature else 1)
                                                 for temperature in evals.temperatures)
  return times * len(evals.variants) * sum(-(-episodes // rows) for episodes in played)


def describe_memory() -> str:
  """Formats the peak of memory: of the fullest device, or of the process if devices do not report theirs."""
  peaks = _peaks()
  if peaks:
    limit = max((device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices())
    return f"{max(peaks) / GIB:.2f} GiB on a device" + (f" of {limit / GIB:.1f} GiB" if limit else "")
  return f"{process.peak_memory() / GIB:.2f} GiB in this process"


def _peaks() -> list[int]:
  """Returns the peak of bytes in use on each device of all processes; [] if they do not report it."""
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  local = [stat["peak_bytes_in_use"] for stat in stats if "peak_bytes_in_use" in stat]
  return [peak for peaks in hosts.gathered(local) for peak in peaks]
