"""Where parameters come from: born, shipped or trained."""

import jax
import numpy as np
import pytest

from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.programs import start as starts
from sftrl_jax.programs.mistakes import ConfigError
from sftrl_jax.programs.setup import assemble


@pytest.fixture(scope="module")
def parts(tiny):
  return assemble(tiny("sft"), "sft")


def equal(left, right):
  return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), left, right)))


def test_scratch_follows_from_the_seed(parts):
  one, same, other = (starts.load("scratch", parts.model, seed, parts.mesh) for seed in (1, 1, 2))
  assert equal(one, same) and not equal(one, other)


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_a_run_can_begin_where_another_ended(finished, parts, verb):
  workdir = finished(verb)
  starts.check(str(workdir))
  params, newest = (starts.load(f"{workdir}{at}", parts.model, 0, parts.mesh) for at in ("@2", ""))
  assert equal(params, newest) and not equal(params, starts.load("scratch", parts.model, 0, parts.mesh))


def test_the_best_step_loads_as_by_its_number(finished, parts):
  best = f"{finished('sft')}@best:rule_ood"
  starts.check(best, parts.model)
  params = starts.load(best, parts.model, 0, parts.mesh)
  assert equal(params, starts.load(f"{finished('sft')}@2", parts.model, 0, parts.mesh))


def test_shipped_parameters_come_back(parts, tmp_path, monkeypatch):
  from sftrl_jax import trees
  params = starts.load("scratch", parts.model, 5, parts.mesh)
  monkeypatch.setattr(starts, "BASES", tmp_path)
  np.savez(tmp_path / "mine.npz", **trees.leaves(jax.device_get(params)))
  starts.check("base:mine")
  assert equal(params, starts.load("base:mine", parts.model, 0, parts.mesh))
  wider = build(DecoderConfig(vocab=parts.model.config.vocab, width=32, layers=1, heads=2, mlp="plain"))
  with pytest.raises(ConfigError, match="mine.npz: .* has shape"):
    starts.load("base:mine", wider, 0, parts.mesh)
  gated = build(DecoderConfig(vocab=parts.model.config.vocab, width=16, layers=1, heads=2))
  with pytest.raises(ConfigError, match="other parameters than this model has"):
    starts.load("base:mine", gated, 0, parts.mesh)
  with pytest.raises(ConfigError, match="there are: base:mine"):
    starts.check("base:yours")


def test_a_start_that_cannot_be_is_told(finished, parts, tmp_path):
  with pytest.raises(ConfigError, match="has no checkpoints/"):
    starts.check(str(tmp_path))
  with pytest.raises(ConfigError, match="after @ comes the number of a step"):
    starts.check(f"{finished('sft')}@last")
  with pytest.raises(ConfigError, match="no checkpoint 9; steps there: 2"):
    starts.check(f"{finished('sft')}@9")
  with pytest.raises(ConfigError, match="give scratch, base:NAME"):
    starts.check("")
  wider = build(DecoderConfig(vocab=parts.model.config.vocab, width=32, layers=1, heads=2, mlp="plain"))
  with pytest.raises(ConfigError, match="trained with model.width = 16, but this config has 32"):
    starts.load(str(finished("sft")), wider, 0, parts.mesh)
