"""A run read back from its workdir: config with changes, parameters of a step."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sftrl_jax.checkpoints import store
from sftrl_jax.programs.config.errors import ConfigError, recorded
from sftrl_jax.programs.config.resolve import resolve
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.start import checkpoint_ref, initial_params
from sftrl_jax.programs.start.checkpoint_ref import CheckpointRef


def parse(source: str) -> CheckpointRef:
  """What WORKDIR, WORKDIR@STEP or WORKDIR@best:VARIANT means; ConfigError for what is no workdir of a run."""
  home = checkpoint_ref.home_of(source)
  if not (home / "config.json").is_file():
    raise ConfigError(f"{home} is no workdir of a run: it holds no config.json.")
  recorded(home)
  return checkpoint_ref.parse(source)


def verb_of(home: Path) -> str:
  """The kind of training of the run in a workdir; ConfigError for a study."""
  verb = recorded(home).get("verb")
  if verb not in KINDS:
    raise ConfigError(f"{home} is the workdir of `{verb}`: give the workdir of one of its runs.")
  return verb


def config_of(home: Path, overrides: Sequence[tuple[str, str]]) -> ConfigDict:
  """The config recorded in a workdir, with overrides ((dotted key, text), ...). ConfigError."""
  config = {key: value for key, value in recorded(home).items() if key != "verb"}
  return resolve(ConfigDict(config), list(overrides), KINDS[verb_of(home)].schema)


def parameters(experiment: Experiment, home: Path, step: int | None) -> tuple[dict, int]:
  """(parameters of `model`, step) of a checkpoint; adapters are merged into their base."""
  model, mesh = experiment.model, experiment.mesh
  if initial_params.adapters_of(home):
    return initial_params.load_with_adapters(home, step, model, mesh, experiment.lora, experiment.start)[:2]
  return store.restore_params(home, step, initial_params.abstract_params(model, mesh))
