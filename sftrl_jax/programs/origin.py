"""FROM: which step of which run is meant by WORKDIR, WORKDIR@STEP and WORKDIR@best:VARIANT. Nothing is loaded here."""

import dataclasses
import json
import math
from pathlib import Path

from sftrl_jax import jsonl, places
from sftrl_jax.programs.mistakes import ConfigError, nearest, place

BEST = "best:"


@dataclasses.dataclass(frozen=True)
class Origin:
  """home: the workdir. step: None for the newest checkpoint. note: a line for a person where the step was chosen."""

  home: Path
  step: int | None = None
  note: str = ""

  def __str__(self):
    return str(self.home) if self.step is None else f"{self.home}@{self.step}"


def pinned(start: str) -> str:
  """config.start with the step in numbers where @best chooses it, which is also printed: whoever resumes goes on from
  what the run began with, even if the run it came from has gone on."""
  if BEST not in start:
    return start
  origin = parse(start, said(start))
  print(origin.note, flush=True)
  return str(origin)


def said(start: str) -> str:
  """How an error begins that is about config.start."""
  return f"config.start is {start!r}"


def home_of(source: str) -> Path:
  """The workdir that FROM names, whatever follows its @; a directory may have an @ in its own name."""
  if "@" not in source or place(source).is_dir():
    return place(source)
  return place(source.rpartition("@")[0])


def is_workdir(home: Path) -> bool:
  """Whether a directory is the workdir of a run or a study. A Hugging Face directory has a config.json too."""
  if (home / "checkpoints").is_dir() or (home / "study.json").is_file():
    return True
  try:
    return "verb" in json.loads((home / "config.json").read_text())
  except (OSError, ValueError, TypeError):
    return False


def parse(source: str, said: str = "") -> Origin:
  """The run and step that FROM names; ConfigError where there is no such checkpoint. Nothing is written.

  said: how a person gave it, for errors (source itself if "").

  @best:VARIANT is the step with the highest success on that variant in evals.jsonl: greedy if it was measured, else at
  the lowest temperature; the earlier of two equal ones; of those that have a checkpoint.
  """
  said, home = said or repr(source), home_of(source)
  kept = steps_of(home, said)
  if place(source) == home:
    return Origin(home)
  chosen = source.rpartition("@")[2]
  if chosen.startswith(BEST):
    return _best(home, chosen.removeprefix(BEST), kept, said)
  if not chosen.isdecimal():
    raise ConfigError(f"{said}: after @ comes the number of a step or {BEST}VARIANT, for example {home}@{kept[-1]}.")
  if int(chosen) not in kept:
    raise ConfigError(f"{said}: {home} has no checkpoint {int(chosen)}; steps there: {_listed(kept)}.")
  return Origin(home, int(chosen))


def steps_of(home: Path, said: str) -> list[int]:
  """The steps that have a checkpoint, in order. ConfigError where there is none."""
  there = home / "checkpoints"
  if (home / "study.json").is_file():
    runs = sorted(str(path) for path in (home / "runs").glob("*") if (path / "checkpoints").is_dir())
    raise ConfigError(f"{said}: {home} is a study; give one of its runs: {', '.join(runs) or '(none has begun)'}.")
  if not there.is_dir():
    raise ConfigError(f"{said}: {home} has no checkpoints/, so it is not the workdir of a run: give WORKDIR, "
                      f"WORKDIR@STEP or WORKDIR@{BEST}VARIANT.")
  steps = places.steps(there)
  if not steps:
    raise ConfigError(f"{said}: {home} has no checkpoint yet: wait for its first one (config.checkpoint.every), or "
                      "give another workdir.")
  return steps


def _best(home: Path, variant: str, kept: list[int], said: str) -> Origin:
  temperature, success = _measured(home, variant, said)
  first_best = lambda steps: max(sorted(steps), key=lambda step: success[step])  # max gives the first of equal ones
  at = "greedy" if temperature == 0 else f"at temperature {temperature:g}"
  best, saved = first_best(success), [step for step in success if step in kept]
  if not saved:
    raise ConfigError(f"{said}: no step that was evaluated on {variant} has a checkpoint (evaluated: "
                      f"{_listed(sorted(success))}; kept: {_listed(kept)}): raise config.checkpoint.keep, or give "
                      f"{home}@STEP.")
  step = first_best(saved)
  told = f"{home}@{BEST}{variant} is step {step}: success {success[step]:.1%}, {at}."
  if success[step] < success[best]:
    told += (f" Step {best} was better ({success[best]:.1%}), but has no checkpoint (kept: {_listed(kept)}); "
             "config.checkpoint.keep keeps more.")
  return Origin(home, step, told)


def _measured(home: Path, variant: str, said: str) -> tuple[float, dict[int, float]]:
  """(temperature, {step: success}) of a variant."""
  lines = _evaluations(home, said)
  mine = [line for line in lines if line["variant"] == variant]
  if not mine:
    known = dict.fromkeys(line["variant"] for line in lines)
    raise ConfigError(f"{said}: {home / 'evals.jsonl'} has no evaluation on {variant!r}{nearest(variant, known)}")
  temperature = min(line["temperature"] for line in mine)
  return temperature, {line["step"]: line["success"] for line in mine if line["temperature"] == temperature}


def _evaluations(home: Path, said: str) -> list[dict]:
  """The lines of evals.jsonl that hold what is asked here; half a last line, of a writer that was killed, is left out.

  ConfigError where there are none, or where one is damaged.
  """
  lines = []
  for path in jsonl.files(home / "evals.jsonl"):
    written = jsonl.read_text(path).splitlines(keepends=True)
    for number, text in enumerate(written, start=1):
      try:
        line = json.loads(text)
        lines.append({"step": int(line["step"]), "variant": str(line["variant"]), "success": float(line["success"]),
                      "temperature": float(line["temperature"])})
        if not math.isfinite(lines[-1]["success"]):
          raise ValueError("success is not finite")
      except (ValueError, KeyError, TypeError) as error:
        if number == len(written) and not text.endswith("\n"):
          break
        raise ConfigError(f"{said}: {path} line {number} is damaged ({error}): mend it, or give {home}@STEP."
                          ) from error
  if not lines:
    raise ConfigError(f"{said}: {home} has no evaluations (evals.jsonl), so none of its steps is the best: give "
                      f"{home}@STEP.")
  return lines


def _listed(steps) -> str:
  return ", ".join(map(str, steps))
