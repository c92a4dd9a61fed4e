"""A workdir has one writer, one config, and the labels of its environment."""

import json

import jax
import pytest

from sftrl_jax.envs.general_points.env import CODE_LABELS, VARIANT_LABELS
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.workdir import complete, workdir_of


def test_the_labels_of_the_environment_are_beside_the_config(tiny, tmp_path):
  experiment = build_experiment(tiny("sft"), "sft")
  with workdir_of(experiment, tmp_path / "run"):
    labels = json.loads((tmp_path / "run" / "labels.json").read_text())
  assert labels == {"codes": CODE_LABELS, "variants": VARIANT_LABELS}
  assert list(labels["codes"]) == list(CODE_LABELS)   # in the environment's order
  assert "labels" not in json.loads((tmp_path / "run" / "config.json").read_text())
  (tmp_path / "run" / "labels.json").unlink()   # as in a workdir of an older version
  with workdir_of(experiment, tmp_path / "run"):
    assert (tmp_path / "run" / "labels.json").is_file()


def test_what_lies_whole_on_every_device_is_told_when_a_run_begins(tiny, monkeypatch, tmp_path, capsys):
  make = meshes.make
  monkeypatch.setattr(meshes, "make", lambda config, devices=None: make(config, jax.devices()))
  monkeypatch.setattr(rules, "LARGE", 2**7)
  experiment = build_experiment(tiny("sft", batch=8, mesh__data=1, mesh__fsdp=2, mesh__tensor=4, schedule__warmup=0,
                                     model__heads=4, model__kv_heads=2, model__head_dim=8), "sft")
  assert len(experiment.notes) == 2
  with workdir_of(experiment, tmp_path / "run"):
    told = capsys.readouterr().out
  assert all(note in told for note in experiment.notes)
  assert "config.mesh.tensor is 4, and the model's kv_heads is 2" in told and "the model's vocab is" in told


def test_a_workdir_that_is_a_file_is_refused_and_left_alone(tiny, run_of, tmp_path):
  (tmp_path / "run").write_text("mine")
  with pytest.raises(ConfigError, match="is a file"):
    run_of(tiny("sft"), tmp_path / "run")
  assert (tmp_path / "run").read_text() == "mine"


def test_a_workdir_has_one_writer(tiny, tmp_path):
  experiment = build_experiment(tiny("sft"), "sft")
  with workdir_of(experiment, tmp_path / "run"):
    with pytest.raises(ConfigError, match="is being written by"), workdir_of(experiment, tmp_path / "run"):
      pass
  with workdir_of(experiment, tmp_path / "run"):
    pass


def test_a_run_may_last_longer_and_be_looked_after_otherwise(finished, tiny):
  workdir = finished("sft")
  assert complete(workdir, build_experiment(tiny("sft"), "sft"))
  longer = build_experiment(tiny("sft", steps=4, mesh__data=-1, mesh__fsdp=1), "sft")   # and over other devices
  assert not complete(workdir, longer)
  resolve.refuse_another({**build_experiment(tiny("sft"), "sft").config}, longer.config, workdir)
