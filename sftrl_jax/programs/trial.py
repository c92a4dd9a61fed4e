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
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from sftrl_jax import jsonl, places
from sftrl_jax.data.rows import Rows
from sftrl_jax.envs.referee import TaskError
from sftrl_jax.parallel import hosts, rules
from sftrl_jax.programs import agreement, dotted, masks, promise as promises, rl, sft, start as starts, unison
from sftrl_jax.programs.board import clock
from sftrl_jax.programs.course import Unplayable, Wrong
from sftrl_jax.programs.examination import find
from sftrl_jax.programs.mistakes import Refused
from sftrl_jax.programs.setup import Parts, assemble
from sftrl_jax.rollout.policy import compile_all

PROGRAMS = {"sft": sft.run, "rl": rl.run}
STEPS = 3
LESS = ("if memory is short: --config.compute.microbatches up, --config.rollout.rows or --config.batch down, "
        "--config.model.remat=full, or more devices in config.mesh")


def attempt(config: ConfigDict, verb: str, promise: promises.Promise | None = None, scratch: Path | None = None):
  """Yields a Finding a check of the parts of a resolved config. Nothing is left behind.

  promise: of a plan, against which the steps are held. scratch: a directory, or gs://..., in which the steps write
  meanwhile; this machine's temporary one if left out.
  """
  parts = assemble(config, verb)
  starts.check(parts.config["start"], parts.model)
  unison.check(parts.config, verb, {}, os.environ)
  with _compiled_once():
    yield from _parts(parts, verb, played := {})
    if "sampled" in played or not parts.plays:
      times = []
      yield find(f"{STEPS} steps", lambda: _tried(
          lambda: _steps(config, verb, parts, played.get("seconds", 0.0), times, scratch)))
      if promise and times:
        yield find("as it was planned", lambda: _as_planned(promise, verb, min(times)))


def _parts(parts: Parts, verb: str, played: dict):
  """The checks of one model in several places; `played` is filled with its episodes, if there is anything to play."""
  if not parts.plays:
    yield find("the rows are trained", lambda: masks.of_rows(parts))
    return
  with jax.set_mesh(parts.mesh), nn.logical_axis_rules(rules.activation_rules()):
    params = starts.load(parts.config["start"], parts.model, parts.config["seed"], parts.mesh)

    def play() -> str:
      compile_all(parts.actor, parts.actor.compiled[2](params))   # so that the seconds are those of playing
      for name, temperature in (("greedy", 0.0), ("sampled", parts.actor.rollout.temperature)):
        played[name], played["seconds"] = agreement.episodes_of(parts, params, temperature)
      episodes = played["sampled"]
      success = sum(episode.success for episode in episodes) / len(episodes)
      return f"{len(episodes)} at once in {played['seconds']:.2g} s; success of the start {success:.1%}"

    yield (first := find("episodes played by the model", lambda: _tried(play)))
    if not first.ok:
      return
    greedy, sampled = played["greedy"], played["sampled"]
    yield find("decoding is the full forward", lambda: agreement.greedy_is_the_argmax(parts, params, greedy))
    yield find("sampler and trainer agree", lambda: agreement.probabilities_agree(parts, params, sampled))
    if isinstance(parts.settings.get("data"), Rows):
      yield find("the rows are trained", lambda: masks.of_rows(parts))
    else:
      yield find("the responses are trained", lambda: (
          masks.of_demonstrations(parts) if verb == "sft" else masks.of_episodes(parts, sampled)))


def _tried(check) -> str:
  """check(), whose failures are a finding too, whatever raises them."""
  try:
    return check()
  except (Wrong, TaskError):
    raise
  except Refused as error:
    raise Unplayable(str(error), "") from error
  except (ValueError, RuntimeError, OSError) as error:
    raise Unplayable(str(error)[:600] or type(error).__name__, LESS) from error


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


def _as_planned(promise: promises.Promise, verb: str, seconds: float) -> str:
  promises.refuse_another(promise, verb, jax.device_count())
  peaks = _peaks()
  return promises.kept(promise, seconds, max(peaks) if peaks else None)


def _steps(config: ConfigDict, verb: str, parts: Parts, seconds_a_play: float, times: list[float], scratch) -> str:
  """The program itself in a directory that is removed: its own batches, compiled step and checkpoint.

  times: gets the seconds of each step.
  """
  short = dotted.plain(config)
  for path, value in {"steps": STEPS, "flops": 0.0, "evals.variants": (), "checkpoint.every": 0, "log.every": 1,
                      "log.tensorboard": False, "log.report": False}.items():
    dotted.put(short, path, value)
  with _removed(scratch) as folder, contextlib.redirect_stdout(io.StringIO()):
    PROGRAMS[verb](ConfigDict(short).lock(), folder / "check")
    lines = [json.loads(line) for file in jsonl.files(folder / "check" / "metrics.jsonl")
             for line in file.read_text().splitlines()]
  losses = [float(line["loss"]) for line in lines]
  if not np.isfinite(losses).all() or sum(line["nonfinite_steps"] for line in lines):
    raise Wrong(f"the loss is {', '.join(map(str, losses))}",
                "lower config.optimizer.learning_rate, or use --config.model.dtype=float32")
  times += [line["timing_s/step"] for line in lines]
  steps = length(parts, lines[-1]["compute/total_flops"] / len(lines))
  training, measuring = steps * sorted(times)[len(times) // 2], _evaluations(parts, steps) * seconds_a_play
  return (f"{', '.join(f'{seconds:.2g}' for seconds in times)} s; all {steps} take {clock(training)}, their "
          f"evaluations {clock(measuring)}: about {clock(training + measuring)} (h:)min:s; peak memory {memory()}")


@contextlib.contextmanager
def _removed(scratch: Path | None):
  """A new directory that all processes write into and the first one removes, below `scratch` or a temporary one."""
  below = lambda: str(places.absolute(scratch) / f"check-{secrets.token_hex(4)}")
  folder = places.place(hosts.led(tempfile.mkdtemp if scratch is None else below))
  try:
    yield folder
    hosts.wait()   # until all have read it
  finally:
    if hosts.leads():
      places.remove(folder)


def length(parts: Parts, flops: float) -> int:
  """Steps of the whole run: config.steps, or fewer if config.flops pay for fewer. flops: of one step."""
  budget = parts.limits.flops
  return min(parts.limits.steps, -int(-budget // flops)) if budget else parts.limits.steps


def _evaluations(parts: Parts, steps: int) -> int:
  """How often as many episodes as are decoded together are played for all evaluations of a run."""
  evals = parts.settings["evals"]
  times = 2 + (steps // evals.every if evals.every else len(evals.at))
  return times * len(evals.variants) * len(evals.temperatures) * -(-evals.episodes // parts.actor.rollout.rows)


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
