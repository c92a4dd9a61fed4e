"""FROM: which step of which run is meant by WORKDIR, WORKDIR@STEP and WORKDIR@best:VARIANT, each with :ema for the
average of its parameters. Nothing is loaded here."""

import dataclasses
import json
import math
from pathlib import Path

from sftrl_jax import jsonl, paths
from sftrl_jax.programs.config.errors import ConfigError, as_path, nearest, recorded
from sftrl_jax.programs.start import mix

BEST, EMA = "best:", "ema"


@dataclasses.dataclass(frozen=True)
class CheckpointRef:
  """home: the workdir. step: None for the newest checkpoint. note: a line for a person where the step was chosen.
  ema: whether the average of the run's parameters is meant, see config.ema."""

  home: Path
  step: int | None = None
  note: str = ""
  ema: bool = False

  def __str__(self):
    return (str(self.home) if self.step is None else f"{self.home}@{self.step}") + f":{EMA}" * self.ema


def resolve_best(start: str) -> str:
  """config.start with the step in numbers where @best chooses it, which is also printed: whoever resumes goes on from
  what the run began with, even if the run it came from has gone on."""
  if BEST not in start:
    return start
  if mixed := mix.parse(start):
    return str(mixed._replace(first=resolve_best(mixed.first), second=resolve_best(mixed.second)))
  origin = parse(start, describe_start(start))
  print(origin.note, flush=True)
  return str(origin)


def describe_start(start: str) -> str:
  """How an error begins that is about config.start."""
  return f"config.start is {start!r}"


def home_of(source: str) -> Path:
  """The workdir that FROM names, whatever follows its @; a directory may have an @ in its own name."""
  source, _ = _split_ema(source)
  if "@" not in source or as_path(source).is_dir():
    return as_path(source)
  return as_path(source.rpartition("@")[0])


def _split_ema(source: str) -> tuple[str, bool]:
  """(FROM without :ema at its end, whether it was there); a directory may have that in its own name."""
  ema = source.endswith(f":{EMA}") and not as_path(source).is_dir()
  return (source.removesuffix(f":{EMA}"), True) if ema else (source, False)


def is_workdir(home: Path) -> bool:
  """Whether a directory is the workdir of a run or a study. A Hugging Face directory has a config.json too."""
  if (home / "checkpoints").is_dir() or (home / "study.json").is_file():
    return True
  try:
    return "verb" in json.loads((home / "config.json").read_text())
  except (OSError, ValueError, TypeError, RecursionError):
    return False


def parse(source: str, description: str = "") -> CheckpointRef:
  """The run and step that FROM names; ConfigError where there is no such checkpoint. Nothing is written.

  description: how a person gave it, for errors (source itself if "").

  @best:VARIANT is the step with the highest success on that variant in evals.jsonl: greedy if it was measured, else at
  the lowest temperature; the earlier of two equal ones; of those that have a checkpoint. @best:ema:VARIANT is that of
  the averaged parameters.
  """
  description, home = description or repr(source), home_of(source)
  source, ema = _split_ema(source)
  ref = _parse(source, home, description)
  ref = dataclasses.replace(ref, ema=ema or f"@{BEST}{EMA}:" in source)
  if ref.ema and not recorded(home).get("ema", {}).get("decay"):
    raise ConfigError(f"{description}: {home} holds no average of its parameters, for its config.ema.decay is 0: leave "
                      f":{EMA} out, or train with --config.ema.decay=0.998.")
  return ref


def _parse(source: str, home: Path, description: str) -> CheckpointRef:
  """`parse` of a source without :ema."""
  kept = steps_of(home, description)
  if as_path(source) == home:
    return CheckpointRef(home)
  chosen = source.rpartition("@")[2]
  if chosen.startswith(BEST):
    return _best(home, chosen.removeprefix(BEST), kept, description)
  if not chosen.isdecimal():
    raise ConfigError(f"{description}: after @ comes the number of a step or {BEST}VARIANT, for example "
                      f"{home}@{kept[-1]}.")
  if int(chosen) not in kept:
    raise ConfigError(f"{description}: {home} has no checkpoint {int(chosen)}; steps there: {_listed(kept)}.")
  return CheckpointRef(home, int(chosen))


def steps_of(home: Path, description: str) -> list[int]:
  """The steps that have a checkpoint, in order. ConfigError where there is none."""
  there = home / "checkpoints"
  if (home / "study.json").is_file():
    runs = sorted(str(path) for path in (home / "runs").glob("*") if (path / "checkpoints").is_dir())
    raise ConfigError(f"{description}: {home} is a study; give one of its runs: "
                      f"{', '.join(runs) or '(none has begun)'}.")
  if not there.is_dir():
    raise ConfigError(f"{description}: {home} has no checkpoints/, so it is not the workdir of a run: give WORKDIR, "
                      f"WORKDIR@STEP or WORKDIR@{BEST}VARIANT.")
  steps = paths.steps(there)
  if not steps:
    raise ConfigError(f"{description}: {home} has no checkpoint yet: wait for its first one (config.checkpoint.every), "
                      "or give another workdir.")
  return steps


def _best(home: Path, variant: str, kept: list[int], description: str) -> CheckpointRef:
  temperature, success = _measured(home, variant, description)
  first_best = lambda steps: max(sorted(steps), key=lambda step: success[step])  # max gives the first of equal ones
  at = "greedy" if temperature == 0 else f"at temperature {temperature:g}"
  best, saved = first_best(success), [step for step in success if step in kept]
  if not saved:
    raise ConfigError(f"{description}: no step that was evaluated on {variant} has a checkpoint (evaluated: "
                      f"{_listed(sorted(success))}; kept: {_listed(kept)}): raise config.checkpoint.keep, or give "
                      f"{home}@STEP.")
  step = first_best(saved)
  note = f"{home}@{BEST}{variant} is step {step}: success {success[step]:.1%}, {at}."
  if success[step] < success[best]:
    note += (f" Step {best} was better ({success[best]:.1%}), but has no checkpoint (kept: {_listed(kept)}); "
             "config.checkpoint.keep keeps more.")
  return CheckpointRef(home, step, note)


def _measured(home: Path, variant: str, description: str) -> tuple[float, dict[int, float]]:
  """(temperature, {step: success}) of a variant."""
  lines = _evaluations(home, description)
  mine = [line for line in lines if line["variant"] == variant]
  if not mine:
    known = dict.fromkeys(line["variant"] for line in lines)
    raise ConfigError(f"{description}: {home / 'evals.jsonl'} has no evaluation on "
                      f"{variant!r}{nearest(variant, known)}")
  temperature = min(line["temperature"] for line in mine)
  return temperature, {line["step"]: line["success"] for line in mine if line["temperature"] == temperature}


def _evaluations(home: Path, description: str) -> list[dict]:
  """The lines of evals.jsonl that hold what is asked here; half a last line, of a writer that was killed, is left out.

  ConfigError where there are none, or where one is damaged.
  """
  lines = []
  for path in jsonl.files(home / "evals.jsonl"):
    written = jsonl.read_text(path).splitlines(keepends=True)
    for number, text in enumerate(written, start=1):
      try:
        line = json.loads(text)
        if "pairs" in line or not line.get("verifies", True):   # held-out pairs; a task without right and wrong
          continue
        lines.append({"step": int(line["step"]), "variant": str(line["variant"]), "success": float(line["success"]),
                      "temperature": float(line["temperature"])})
        if not math.isfinite(lines[-1]["success"]):
          raise ValueError("success is not finite")
      except (ValueError, KeyError, TypeError) as error:
        if number == len(written) and not text.endswith("\n"):
          break
        raise ConfigError(f"{description}: {path} line {number} is damaged ({error}): mend it, or give {home}@STEP."
                          ) from error
  if not lines:
    raise ConfigError(f"{description}: {home} has no evaluations of success (evals.jsonl), so none of its steps is the "
                      f"best: give {home}@STEP.")
  return lines


def _listed(steps) -> str:
  return ", ".join(map(str, steps))
