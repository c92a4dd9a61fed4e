"""A workdir has one writer, one config, the labels of its environment, and the checkpoints that its run names."""

import json
import shutil

import jax
import pytest

from sftrl_jax import paths
from sftrl_jax.envs.general_points.env import CODE_LABELS, VARIANT_LABELS
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.workdir import complete, workdir_of
from sftrl_jax.programs.loop import session as session_loop


def test_the_labels_of_the_environment_are_beside_the_config(tiny, tmp_path):
  experiment = build_experiment(tiny("sft"), "sft")
  with workdir_of(experiment, tmp_path / "run"):
    labels = json.loads((tmp_path / "run" / "labels.json").read_text())
  assert labels == {"codes": CODE_LABELS, "variants": VARIANT_LABELS, "parts": {}}
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


@pytest.fixture
def error_after(monkeypatch):
  """error_after(step): an error of a task or reward ends the run after that step, while its checkpoint is written."""
  real = session_loop.after_step

  def arrange(step):
    def after_step(experiment, run_state, state, done, *rest):
      after = real(experiment, run_state, state, done, *rest)
      if done.position.step == step:
        raise RuntimeError("the task failed")
      return after
    monkeypatch.setattr(session_loop, "after_step", after_step)

  return arrange


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_an_error_waits_for_the_checkpoint_that_is_being_written_and_names_it(tiny, run_of, tmp_path, error_after,
                                                                               capsys, verb):
  error_after(2)
  with pytest.raises(RuntimeError, match="the task failed"):
    run_of(tiny(verb, steps=3, checkpoint__every=1, evals__variants="()"), tmp_path)
  assert paths.steps(tmp_path / "checkpoints") == [1, 2]
  assert "Its newest checkpoint is step 2: the same command goes on from there." in capsys.readouterr().out


def test_an_error_before_the_first_checkpoint_says_that_there_is_none(tiny, run_of, tmp_path, error_after, capsys):
  error_after(1)
  with pytest.raises(RuntimeError, match="the task failed"):
    run_of(tiny("sft", steps=3, evals__variants="()"), tmp_path)
  assert "It has no checkpoint yet: the same command begins again." in capsys.readouterr().out


def test_a_save_that_fails_ends_the_run_at_the_next_step_and_keeps_the_lock(tiny, run_of, lines_of, tmp_path,
                                                                             monkeypatch):
  real = session_loop.stores.save

  def save(store, step, *rest, **more):
    real(store, step, *rest, **more)
    store.wait_until_finished()
    monkeypatch.setattr(store, "wait_until_finished", lambda: (_ for _ in ()).throw(OSError(28, "No space left")))

  monkeypatch.setattr(session_loop.stores, "save", save)
  config = tiny("sft", steps=9, checkpoint__every=4, evals__variants="()")
  with pytest.raises(session_loop.stores.SaveFailed, match="No space left. Step 4 is complete"):
    run_of(config, tmp_path)
  assert [line["step"] for line in lines_of(tmp_path, "metrics.jsonl")] == [1, 2, 3, 4]   # and step 5 is not settled
  with pytest.raises(ConfigError, match="is being written by"):
    run_of(config, tmp_path)


def test_a_complete_run_that_lost_its_checkpoints_is_refused_with_the_way_out(tiny, run_of, tmp_path):
  config = tiny("sft", evals__variants="()")
  run_of(config, tmp_path)
  shutil.rmtree(tmp_path / "checkpoints")
  before = (tmp_path / "metrics.jsonl").read_text()
  for steps in (2, 3, 1):
    with pytest.raises(ConfigError, match="was complete .* has no checkpoint: restore it .* remove progress.json"):
      run_of(tiny("sft", steps=steps, evals__variants="()"), tmp_path)
  assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_run_without_a_checkpoint_to_go_on_from_says_so_and_keeps_its_old_lines(tiny, run_of, lines_of, tmp_path,
                                                                                   capsys):
  config = tiny("sft", evals__variants="()")
  run_of(config, tmp_path)
  shutil.rmtree(tmp_path / "checkpoints")
  before = (tmp_path / "metrics.jsonl").read_text()
  for number in ("1", "2"):
    (tmp_path / "progress.json").unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    run_of(config, tmp_path)
    printed = capsys.readouterr().out
    assert "tells of 2 steps and has no checkpoint to go on from: training begins again at step 1" in printed
    assert (tmp_path / "earlier" / number / "metrics.jsonl").is_file()
    assert [line["step"] for line in lines_of(tmp_path, "metrics.jsonl")] == [1, 2]
  assert (tmp_path / "earlier" / "1" / "metrics.jsonl").read_text() == before
