"""A run read back from its workdir: config with changes, parameters of a step."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sftrl_jax.checkpoints import store
from sftrl_jax.checkpoints.export import ScoreHead
from sftrl_jax.parallel import rules
from sftrl_jax.programs.config.errors import ConfigError, read_json, recorded
from sftrl_jax.programs.config.resolve import resolve
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.experiment.network.reward_model import SCALE
from sftrl_jax.programs.start import checkpoint_ref, initial_params, trainable
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


def parameters(experiment: Experiment, ref: CheckpointRef) -> tuple[dict, int]:
  """(parameters of `model`, step) of a checkpoint; adapters are merged into their base."""
  model, mesh = experiment.model, experiment.mesh
  if initial_params.adapters_of(ref.home):
    return initial_params.load_with_adapters(ref.home, ref.step, model, mesh, experiment.lora, experiment.start,
                                             ref.ema)[:2]
  return store.restore_params(ref.home, ref.step, initial_params.abstract_params(model, mesh), ema=ref.ema)


def is_reward_model(experiment: Experiment) -> bool:
  """Whether a run trains a model that scores; RL has a head too, of values."""
  return experiment.objective is not None and experiment.head_layers is not None


def score_head(experiment: Experiment, home: Path, step: int) -> ScoreHead:
  """The head of a checkpoint of a reward model, with the scale of its scores if they were measured at this step.

  ConfigError for a head with hidden layers.
  """
  refuse_deep_head(experiment)
  shapes = {"value": jax.eval_shape(lambda: trainable.value_head(experiment)["value"])}
  abstract = initial_params.abstract_with(shapes, rules.shardings(shapes, experiment.mesh))
  value, _ = store.restore_params(home, step, abstract["value"], root="value")
  path = home / SCALE
  scale = read_json(path, "restore it, or remove it") if path.is_file() else {}
  return ScoreHead(np.asarray(value["kernel"]), float(value["bias"]), scale if scale.get("step") == step else {})


def refuse_deep_head(experiment: Experiment) -> None:
  """ConfigError for a reward model that is to be exported, but whose head has hidden layers."""
  if experiment.head_layers:
    raise ConfigError(f"config.bradley_terry.layers is {experiment.head_layers}, but a score of transformers"
                      " is linear: it can be kept as a workdir only.")
