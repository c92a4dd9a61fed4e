"""What `sftrl evaluate FROM` evaluates: a checkpoint of a run, or a model without a run by the parts of a config."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sftrl_jax.parallel import hosts
from sftrl_jax.programs.config.errors import ConfigError, as_path, recorded
from sftrl_jax.programs.experiment import saved_run
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.run_config import resolve_run, verb_of
from sftrl_jax.programs.start import checkpoint_ref, initial_params, mix, pretrained
from sftrl_jax.programs.start.checkpoint_ref import CheckpointRef


@dataclasses.dataclass(frozen=True)
class Subject:
  """What is evaluated.

  ref: the checkpoint of its run; None for a model without one
  out: where the lines go if no --workdir is given; None for evaluate/STEP in the run's workdir
  """

  experiment: Experiment
  ref: CheckpointRef | None = None
  out: Path | None = None

  @property
  def home(self) -> Path | None:
    """The workdir of its run."""
    return self.ref and self.ref.home

  def output(self, workdir: str, step: int, suffix: str = "") -> Path:
    """Where the lines go: --workdir, or evaluate/STEP in the run's workdir, or runs/evaluate/NAME without a run."""
    if workdir:
      return as_path(workdir)
    return self.out or self.home / "evaluate" / f"{step}{'-ema' * self.ref.ema}{suffix}"


def refuse_run(workdir: str) -> None:
  """ConfigError for a --workdir that holds a run."""
  if workdir and (as_path(workdir) / "config.json").is_file():
    raise ConfigError(f"--workdir={workdir} is the workdir of a run, whose evals.jsonl would be lost: give another, or "
                      "leave it out.")


def of_run(source: str, overrides: Sequence[tuple[str, str]]) -> Subject:
  """The checkpoint of a run that WORKDIR[@...] names."""
  home = checkpoint_ref.home_of(source)
  if not (home / "config.json").is_file() or not (checkpoint_ref.is_workdir(home) or recorded(home).get("verb")):
    raise ConfigError(f"{source} is no workdir of a run: a model without a run (a Hugging Face directory or id, a "
                      ".gguf file, smollm2, base:NAME) is evaluated on the task of a config: add --config=FILE.py.")
  ref = saved_run.parse(source)
  if ref.note:
    say(ref.note)
  config = saved_run.config_of(home, overrides)
  experiment = build_experiment(config, saved_run.verb_of(home), home, scored=_finds_reward_model(config))
  return Subject(experiment, ref)


def without_run(source: str, overrides: Sequence[tuple[str, str]], spec: str) -> Subject:
  """What a run of this config would begin with, if it began with `source`."""
  if checkpoint_ref.is_workdir(checkpoint_ref.home_of(source)):
    raise ConfigError(f"--config={spec} is for a model without a run, but {source} is the workdir of a run, which has "
                      "a config of its own: leave --config out, and change keys with --config.some.key=VALUE.")
  if any(key == "start" for key, _ in overrides):
    raise ConfigError(f"--config.start and FROM both name a model: leave --config.start out, FROM is {source}.")
  own = () if source == "scratch" or source.startswith(("base:", mix.PREFIX)) else (
      ("model.name", pretrained.NAME), ("tokenizer.name", pretrained.NAME))
  config, _ = resolve_run(spec, (*own, *overrides, ("start", source)))
  experiment = build_experiment(config, verb_of(config))
  initial_params.check_start(source, experiment.model)
  return Subject(experiment, out=output_of(source))


def output_of(source: str) -> Path:
  """Where the lines of a model without a run go."""
  name = re.sub(r"[^A-Za-z0-9._-]+", "-", source.rstrip("/").rpartition("/")[2]) or "model"
  return Path("runs") / "evaluate" / name


def say(text: str) -> None:
  """Prints a text in the first process."""
  if hosts.is_first_process():
    print(text)


def _finds_reward_model(config: Mapping) -> bool:
  """Whether the reward model of a run is there to score what is played; without it, all else is measured."""
  start = config.get("reward_model", {}).get("start")
  is_there = bool(start) and checkpoint_ref.is_workdir(checkpoint_ref.home_of(start))
  if start and not is_there:
    say(f"The reward model of this run, {start}, is not there: its scores are left out.")
  return is_there
