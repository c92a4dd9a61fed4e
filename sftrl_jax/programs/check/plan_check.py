"""The first steps of a run compared with its plan (`sftrl plan --json=FILE`).

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

WITHIN = 2.0   # times what was planned; above it the plan is of something else, or the machine is busy


@dataclasses.dataclass(frozen=True)
class PlannedStep:
  """What a plan says of the fullest device and of one step.

  memory: bytes. predicted: whether seconds are a prediction, and not a bound. within: accepted times of both.
  """

  memory: float
  seconds: float
  predicted: bool
  chips: int
  verb: str
  within: float = WITHIN


def read(path: Path, within: str = str(WITHIN)) -> PlannedStep:
  """The step that a plan.json plans; ConfigError for a file that is none, or whose plan left functions out.

  within: how many times what was planned a step may take, of seconds and of memory.
  """
  try:
    most = float(within)
  except ValueError:
    most = 0.0
  if not 1.0 <= most < math.inf:
    raise ConfigError(f"--within={within} must be a number of at least 1: so many times what was planned is accepted.")
  try:
    plan = json.loads(path.read_text())
    if plan.get("only"):
      raise ValueError(f"it plans only {', '.join(plan['only'])}")
    called = [function for function in plan["functions"] if function["calls_per_step"]]
    predicted = all("predicted_seconds" in function for function in called)
    key = "predicted_seconds" if predicted else "seconds_bound"
    seconds = sum(function["calls_per_step"] * function[key] for function in called)
    memory = max(function["peak_gib"] for function in plan["functions"]) * GIB
    planned = PlannedStep(memory, seconds, predicted, int(plan["chips"]), str(plan["verb"]), most)
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ConfigError(f"--plan={path} is no whole plan ({error}): make one with `sftrl plan --config=... "
                      f"--json={path}`.") from error
  if not (math.isfinite(planned.seconds) and planned.seconds > 0 and planned.memory > 0):
    raise ConfigError(f"--plan={path} has {planned.seconds} seconds a step and {planned.memory} bytes: make it anew.")
  return planned


def refuse_another(planned: PlannedStep, verb: str, chips: int) -> None:
  """CheckFailed for a plan of another kind of run, or of another number of devices."""
  if (planned.verb, planned.chips) != (verb, chips):
    raise CheckFailed(f"the plan is of {planned.verb} on {planned.chips} devices, but this is {verb} on {chips}",
                "plan what is run here: sftrl plan --config=... --json=FILE, with --topology for a slice")


def compare(planned: PlannedStep, seconds: float, memory: float | None) -> str:
  """A sentence of measured beside planned; CheckFailed above `within` times it.

  seconds: of a step. memory: bytes of the fullest device, None where devices do not report it.
  """
  what = "predicted" if planned.predicted else "the least by the chip's peaks"
  times = seconds / planned.seconds
  measured = f"a step took {seconds:.3g} s, {times:.2f} times {what} ({planned.seconds:.3g} s)"
  if memory is None:
    measured += "; these devices do not report their memory"
  else:
    measured += f"; memory {memory / GIB:.2f} GiB a device, {memory / planned.memory:.2f} times planned"
  if times > planned.within:
    raise CheckFailed(measured, "see what else uses this machine, or plan again: sftrl plan --config=... --json=FILE"
                if planned.predicted else f"see where the time goes, --config.log.profile_steps='(2, 3)' in a run, or "
                f"accept it: --within={math.ceil(times)}")
  if memory is not None and memory > planned.within * planned.memory:
    raise CheckFailed(measured,
                      "plan this very config, on this mesh: it is another one, or something else uses the devices")
  return measured
