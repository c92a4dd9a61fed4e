"""What FROM names: a step of a run or what a run would begin with, each with the place of its lines."""

import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.evaluate.subject import of_run, output_of, refuse_run, without_run

TASK = "configs/general_points/ppo.py"
LITTLE = [("rollout.rows", "6"), ("rollout.shrink", "()"), ("batch", "6"), ("ppo.minibatches", "1"),
          ("compute.microbatches", "1"), ("mesh.cpu_threads", "0"), ("log.writers", "()")]


def test_a_run_has_its_own_config_with_changes_and_lines_beside_its_checkpoints(finished):
  home = finished("sft")
  subject = of_run(f"{home}@2", [("evals.episodes", "5")])
  assert subject.home == home and subject.ref.step == 2 and subject.experiment.evals.episodes == 5
  assert subject.output("", 2) == home / "evaluate" / "2"
  assert subject.output("", 2, "-interpolated") == home / "evaluate" / "2-interpolated"
  assert str(subject.output("elsewhere", 2)) == "elsewhere"


def test_a_model_without_a_run_has_the_parts_of_a_config(one_device, monkeypatch):
  monkeypatch.setenv("NPROC", "1")
  subject = without_run("base:general_points_0", LITTLE, TASK)
  assert subject.home is None and subject.experiment.start == "base:general_points_0"
  assert subject.output("", 0) == output_of("base:general_points_0")


@pytest.mark.parametrize(("source", "name"), [
    ("base:general_points_0", "base-general_points_0"), ("models/a b/", "a-b"), ("HuggingFaceTB/SmolLM2", "SmolLM2"),
    ("/", "model")])
def test_the_lines_of_a_model_without_a_run_are_under_its_name(source, name):
  assert str(output_of(source)) == f"runs/evaluate/{name}"


def test_a_workdir_with_a_run_takes_no_lines(finished, tmp_path):
  refuse_run("")
  refuse_run(str(tmp_path))
  with pytest.raises(ConfigError, match="is the workdir of a run, whose evals.jsonl would be lost"):
    refuse_run(str(finished("sft")))


def test_what_is_neither_says_what_is_missing(finished):
  with pytest.raises(ConfigError, match="nowhere is no workdir of a run: a model without a run"):
    of_run("nowhere", [])
  with pytest.raises(ConfigError, match="which has a config of its own: leave --config out"):
    without_run(str(finished("sft")), [], TASK)
  with pytest.raises(ConfigError, match="both name a model"):
    without_run("scratch", [("start", "scratch")], TASK)
