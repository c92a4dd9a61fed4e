"""What a plan (`sftrl plan --json=FILE`) promised of a run, held against what its first steps took.

A plan of the devices that are here predicts seconds; one of a slice has a bound by the chip's peaks, which real steps
stay above: at twice the bound they reach half of what the chip can do.
"""

import dataclasses
import json
import math
from pathlib import Path

from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.check.expert_episodes import CheckFailed
from sftrl_jax.programs.config.errors import ConfigError

WITHIN = 2.0   # times what was planned; above it the plan, or the machine, is not what it was taken for


@dataclasses.dataclass(frozen=True)
class Promise:
  """Of the fullest device and of one step. predicted: whether seconds are a prediction, and not a bound."""

  memory: float
  seconds: float
  predicted: bool
  chips: int
  verb: str
  within: float = WITHIN


def read(path: Path, within: str = str(WITHIN)) -> Promise:
  """The promise of a plan.json; ConfigError for a file that is none, or whose plan left functions out.

  within: how many times what was planned a step may take, of seconds and of memory.
  """
  try:
    most = float(within)
  except ValueError:
    most = 0.0
  if not 1.0 <= most < math.inf:
    raise ConfigError(f"--within={within} must be a number of at least 1: so many times what was planned is borne.")
  try:
    told = json.loads(path.read_text())
    if told.get("only"):
      raise ValueError(f"it plans only {', '.join(told['only'])}")
    steps = [one for one in told["functions"] if one["calls_per_step"]]
    predicted = all("predicted_seconds" in one for one in steps)
    seconds = sum(one["calls_per_step"] * one["predicted_seconds" if predicted else "seconds_bound"] for one in steps)
    found = Promise(max(one["peak_gib"] for one in told["functions"]) * GIB, seconds, predicted, int(told["chips"]),
                    str(told["verb"]), most)
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ConfigError(f"--plan={path} is no whole plan ({error}): make one with `sftrl plan --config=... "
                      f"--json={path}`.") from error
  if not (math.isfinite(found.seconds) and found.seconds > 0 and found.memory > 0):
    raise ConfigError(f"--plan={path} has {found.seconds} seconds a step and {found.memory} bytes: make it anew.")
  return found


def refuse_another(promise: Promise, verb: str, chips: int) -> None:
  """Wrong for a plan of another kind of run, or of another number of devices."""
  if (promise.verb, promise.chips) != (verb, chips):
    raise CheckFailed(f"the plan is of {promise.verb} on {promise.chips} devices, but this is {verb} on {chips}",
                "plan what is run here: sftrl plan --config=... --json=FILE, with --topology for a slice")


def kept(promise: Promise, seconds: float, memory: float | None) -> str:
  """Measured beside planned; Wrong above so many times it. memory: bytes of the fullest device, None where none tells.
  """
  what = "predicted" if promise.predicted else "the least by the chip's peaks"
  times = seconds / promise.seconds
  told = f"a step took {seconds:.3g} s, {times:.2f} times {what} ({promise.seconds:.3g} s)"
  if memory is None:
    told += "; these devices do not tell their memory"
  else:
    told += f"; memory {memory / GIB:.2f} GiB a device, {memory / promise.memory:.2f} times planned"
  if times > promise.within:
    raise CheckFailed(told, "see what else uses this machine, or plan again: sftrl plan --config=... --json=FILE"
                if promise.predicted else f"see where the time goes, --config.log.profile_steps='(2, 3)' in a run, or "
                f"bear it: --within={math.ceil(times)}")
  if memory is not None and memory > promise.within * promise.memory:
    raise CheckFailed(told, "plan this very config, on this mesh: it is another one, or something else uses the devices")
  return told
