"""A run read back: its config with changes, its kind, its parameters."""

import json

import jax
import numpy as np
import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import saved_run
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.start.checkpoint_ref import CheckpointRef


def test_a_config_is_read_back_with_overrides(finished):
  home = finished("sft")
  same, changed = saved_run.config_of(home, []), saved_run.config_of(home, [("evals.episodes", "5")])
  recorded = json.loads((home / "config.json").read_text())
  assert json.loads(json.dumps({**same.to_dict(), "verb": "sft"})) == recorded
  assert changed.evals.episodes == 5 and changed.seed == same.seed and saved_run.verb_of(home) == "sft"
  with pytest.raises(ConfigError, match="config.evals.episode is not a key"):
    saved_run.config_of(home, [("evals.episode", "5")])


def test_parameters_of_a_step_are_those_of_its_checkpoint(finished):
  home = finished("sft")
  experiment = build_experiment(saved_run.config_of(home, []), "sft")
  newest, step = saved_run.parameters(experiment, CheckpointRef(home))
  named, same_step = saved_run.parameters(experiment, CheckpointRef(home, step))
  assert step == same_step == 2
  jax.tree.map(np.testing.assert_array_equal, newest, named)


def test_a_study_is_no_run(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"verb": "study"}))
  with pytest.raises(ConfigError, match="is the workdir of `study`: give the workdir of one of its runs"):
    saved_run.verb_of(tmp_path)
