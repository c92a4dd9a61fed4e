"""What a teacher must be: a start whose tokenizer is the policy's. Every mistake is one error, before it is loaded."""

import json
import shutil

import jax
import numpy as np
import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.network.teacher import TeacherConfig, describe
from sftrl_jax.programs.start import initial_params
from sftrl_jax.text.tokenizer import byte


@pytest.fixture(scope="module")
def experiment(tiny):
  return build_experiment(tiny("dagger"), "rl")


def described(experiment, start, tokenizer=None):
  return describe(TeacherConfig(str(start)), experiment.config, experiment.model, tokenizer or experiment.tokenizer,
                  experiment.mesh)


def test_a_run_is_a_teacher_with_the_parameters_that_it_ended_with(experiment, finished):
  workdir = finished("sft")
  teacher = described(experiment, workdir)
  want = initial_params.load_start(str(workdir), experiment.model, 0, experiment.mesh)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(teacher.load(experiment.mesh)), jax.device_get(want))
  assert jax.tree.map(lambda x: x.shape, teacher.abstract(experiment.mesh)) == jax.tree.map(lambda x: x.shape, want)
  assert described(experiment, "") is None and described(experiment, "scratch").model == experiment.model


def test_its_model_is_its_own(experiment, finished, tmp_path):
  home = tmp_path / "wider"
  shutil.copytree(finished("sft"), home)
  config = json.loads((home / "config.json").read_text())
  config["model"]["width"] = 32
  (home / "config.json").write_text(json.dumps(config))
  assert described(experiment, home).model.config.width == 32 > experiment.model.config.width


@pytest.mark.parametrize("start, message", [
    ("nowhere", "config.teacher.start is 'nowhere', which cannot be a teacher: .* has no checkpoints/"),
    ("base:nobody", "config.teacher.start is 'base:nobody', .* is not shipped"),
    ("base:virl_0", "config.teacher.start is 'base:virl_0', .* shape|other parameters")])
def test_what_is_no_teacher_is_refused_by_its_key(experiment, start, message):
  with pytest.raises(ConfigError, match=message):
    described(experiment, start)


def test_another_tokenizer_is_refused(experiment, finished):
  with pytest.raises(ConfigError, match=r"config.teacher.start is .*, whose tokenizer \(words of \d+ ids.*bytes of 2"):
    described(experiment, finished("sft"), byte())


def test_it_has_room_for_the_demonstration_that_it_reads(experiment):
  rollout = experiment.actor.rollout
  room = lambda *section: describe(TeacherConfig("scratch", *section), experiment.config, experiment.model,
                                   experiment.tokenizer, experiment.mesh).prefix_tokens
  assert (room(), room("expert"), room("expert", 7)) == (0, rollout.prompt_tokens + rollout.max_new_tokens, 7)
  with pytest.raises(ValueError, match="^demonstration is 'mine'; it must be one of , expert"):
    TeacherConfig("scratch", "mine")
