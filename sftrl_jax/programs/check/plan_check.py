"""Compares the first steps of a run with the cost that a plan (`sftrl plan --json=FILE`) gives for a step.

A plan of this machine's devices predicts seconds. A plan of a TPU slice gives a lower bound from the chip's peaks: a
step of twice the bound reaches half of what the chip can do.
"""

import dataclasses
import json
import math
from pathlib import Path

from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.check.expert_episodes import CheckFailed
from sftrl_jax.programs.config.errors import ConfigError

WITHIN = 2.0   # times the planned cost; above it, the plan or the machine is not the intended one


@dataclasses.dataclass(frozen=True)
class PlannedStep:
  """The planned cost of one step.

  memory: bytes on the fullest device
  seconds: of the step
  predicted: whether `seconds` is a prediction, and not a lower bound
  chips: devices of the plan
  verb: kind of training of the plan
  within: a step may take so many times the planned seconds and memory
  """

  memory: float
  seconds: float
  predicted: bool
  chips: int
  verb: str
  within: float = WITHIN


def read_plan(path: Path, within: str = "") -> PlannedStep:
  """Reads a plan.json. within: as the command line gives it, "" for WITHIN.

  Raises ConfigError for a file that is no plan, or whose plan leaves functions out, and for a wrong `within`.
  """
  try:
    limit = float(within or WITHIN)
  except ValueError:
    limit = 0.0
  if not 1.0 <= limit < math.inf:
    raise ConfigError(f"--within={within} must be a number of at least 1: a step may take so many times its plan.")
  try:
    plan = json.loads(path.read_text())
    if plan.get("only"):
      raise ValueError(f"it plans only {', '.join(plan['only'])}")
    functions = [function for function in plan["functions"] if function["calls_per_step"]]
    predicted = all("predicted_seconds" in function for function in functions)
    key = "predicted_seconds" if predicted else "seconds_bound"
    seconds = sum(function["calls_per_step"] * function[key] for function in functions)
    memory = max(function["peak_gib"] for function in plan["functions"]) * GIB
    planned = PlannedStep(memory, seconds, predicted, int(plan["chips"]), str(plan["verb"]), limit)
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ConfigError(f"--plan={path} is no whole plan ({error}): make one with `sftrl plan --config=... "
                      f"--json={path}`.") from error
  if not (math.isfinite(planned.seconds) and planned.seconds > 0 and planned.memory > 0):
    raise ConfigError(f"--plan={path} has {planned.seconds} seconds a step and {planned.memory} bytes: make it anew.")
  return planned


def refuse_other_run(planned: PlannedStep, verb: str, chips: int) -> None:
  """Raises CheckFailed for a plan of another kind of training, or of another number of devices."""
  if (planned.verb, planned.chips) != (verb, chips):
    raise CheckFailed(f"the plan is of {planned.verb} on {planned.chips} devices, but this is {verb} on {chips}",
                      "plan what is run here: sftrl plan --config=... --json=FILE, with --topology for a slice")


def compare(planned: PlannedStep, seconds: float, memory: float | None) -> str:
  """Compares a measured step with its plan; raises CheckFailed if it takes more than `within` times as much.

  memory: bytes on the fullest device; None if the devices do not report their memory
  """
  basis = "predicted" if planned.predicted else "the least by the chip's peaks"
  times = seconds / planned.seconds
  message = f"a step took {seconds:.3g} s, {times:.2f} times {basis} ({planned.seconds:.3g} s)"
  if memory is None:
    message += "; these devices do not report their memory"
  else:
    message += f"; memory {memory / GIB:.2f} GiB a device, {memory / planned.memory:.2f} times planned"
  if times > planned.within:
    if planned.predicted:
      way_out = "see what else uses this machine, or plan again: sftrl plan --config=... --json=FILE"
    else:
      way_out = ("see where the time goes, --config.log.profile_steps='(2, 3)' in a run, or accept it: "
                 f"--within={math.ceil(times)}")
    raise CheckFailed(message, way_out)
  if memory is not None and memory > planned.within * planned.memory:
    raise CheckFailed(
        message, "plan this very config, on this mesh: it is another one, or something else uses the devices")
  return message
