"""Where parameters come from: born, shipped or trained."""

import dataclasses

import jax
import numpy as np
import pytest

from sftrl_jax.models import DecoderConfig, Model, build
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.start import initial_params


@pytest.fixture(scope="module")
def experiment(tiny):
  return build_experiment(tiny("sft"), "sft")


def equal(left, right):
  return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), left, right)))


def test_scratch_follows_from_the_seed(experiment):
  one, same, other = (initial_params.load_start("scratch", experiment.model, seed, experiment.mesh)
                      for seed in (1, 1, 2))
  assert equal(one, same) and not equal(one, other)


@dataclasses.dataclass(frozen=True)
class ListConfig(DecoderConfig):
  """A family of one's own with a field that has no hash."""

  branches: list = dataclasses.field(default_factory=lambda: [1, 2])

  def build(self):
    return Model(self)


@pytest.mark.parametrize("family", [DecoderConfig, ListConfig])
def test_a_model_traces_its_shapes_once_and_a_caller_may_change_its_tree(family):
  model = build(family(vocab=31, layers=2, width=16, heads=2))
  first, second = (initial_params.param_shapes(model) for _ in range(2))
  assert first == second == jax.eval_shape(model.init, jax.random.key(3))
  assert jax.tree.leaves(first)[0] is jax.tree.leaves(second)[0]
  del first["embed"]
  assert initial_params.param_shapes(model) == second
  assert initial_params.param_shapes(build(dataclasses.replace(model.config, width=32)))["embed"].shape == (31, 32)


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_a_run_can_begin_where_another_ended(finished, experiment, verb):
  workdir = finished(verb)
  initial_params.check_start(str(workdir))
  params, newest = (initial_params.load_start(f"{workdir}{at}", experiment.model, 0, experiment.mesh)
                    for at in ("@2", ""))
  scratch = initial_params.load_start("scratch", experiment.model, 0, experiment.mesh)
  assert equal(params, newest) and not equal(params, scratch)


def test_the_best_step_loads_as_by_its_number(finished, experiment):
  best = f"{finished('sft')}@best:rule_ood"
  initial_params.check_start(best, experiment.model)
  params = initial_params.load_start(best, experiment.model, 0, experiment.mesh)
  assert equal(params, initial_params.load_start(f"{finished('sft')}@2", experiment.model, 0, experiment.mesh))


def test_shipped_parameters_come_back(experiment, tmp_path, monkeypatch):
  from sftrl_jax import trees
  params = initial_params.load_start("scratch", experiment.model, 5, experiment.mesh)
  monkeypatch.setattr(initial_params, "BASES", tmp_path)
  np.savez(tmp_path / "mine.npz", **trees.leaves(jax.device_get(params)))
  initial_params.check_start("base:mine")
  assert equal(params, initial_params.load_start("base:mine", experiment.model, 0, experiment.mesh))
  wider = build(DecoderConfig(vocab=experiment.model.config.vocab, width=32, layers=1, heads=2, mlp="plain"))
  with pytest.raises(ConfigError, match="mine.npz: .* has shape"):
    initial_params.load_start("base:mine", wider, 0, experiment.mesh)
  gated = build(DecoderConfig(vocab=experiment.model.config.vocab, width=16, layers=1, heads=2))
  with pytest.raises(ConfigError, match="other parameters than this model has"):
    initial_params.load_start("base:mine", gated, 0, experiment.mesh)
  with pytest.raises(ConfigError, match="there are: base:mine"):
    initial_params.check_start("base:yours")


def test_a_start_that_cannot_be_is_told(finished, experiment, tmp_path):
  with pytest.raises(ConfigError, match="has no checkpoints/"):
    initial_params.check_start(str(tmp_path))
  with pytest.raises(ConfigError, match="after @ comes the number of a step"):
    initial_params.check_start(f"{finished('sft')}@last")
  with pytest.raises(ConfigError, match="no checkpoint 9; steps there: 2"):
    initial_params.check_start(f"{finished('sft')}@9")
  with pytest.raises(ConfigError, match="give scratch, base:NAME"):
    initial_params.check_start("")
  wider = build(DecoderConfig(vocab=experiment.model.config.vocab, width=32, layers=1, heads=2, mlp="plain"))
  with pytest.raises(ConfigError, match="trained with model.width = 16, but this config has 32"):
    initial_params.load_start(str(finished("sft")), wider, 0, experiment.mesh)
