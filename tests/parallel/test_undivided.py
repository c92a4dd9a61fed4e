"""What a mesh cannot split is refused with numbers that would do, or told of."""

import re

import jax
import pytest

from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.parallel import mesh as meshes, undivided
from sftrl_jax.parallel.mesh import MeshConfig


def tree(**change):
  """Shapes of a model whose every matrix is large (8 or more layers of 128 x 1024)."""
  shape = dict(vocab=8192, width=128, layers=64, heads=8, kv_heads=8, head_dim=128, mlp_dim=1024)
  return {"model": jax.eval_shape(build(DecoderConfig(**{**shape, **change})).init, jax.random.key(0))}


def notes(fsdp, tensor, **change):
  return undivided.check(tree(**change), meshes.make(MeshConfig(8 // fsdp // tensor, fsdp, tensor)))


@pytest.mark.parametrize("fsdp, tensor", [(8, 1), (2, 4), (1, 8), (1, 1)])
def test_nothing_is_said_of_what_is_split(fsdp, tensor):
  assert notes(fsdp, tensor) == ()


@pytest.mark.parametrize("fsdp, tensor, change, message", [
    (1, 4, dict(heads=6, kv_heads=6), r"^config.mesh.tensor is 4, but the model's kv_heads is 6, .*attn/k/kernel would "
                                      "not be split: use 1 or 2.$"),
    (2, 4, dict(heads=6, kv_heads=2), "config.mesh.tensor is 4, but the model's heads is 6, .*: use 1 or 2"),
    (1, 8, dict(mlp_dim=1001), "config.mesh.tensor is 8, but the model's mlp_dim is 1001, .*: use 1.$"),
    (8, 1, dict(width=132), "config.mesh.fsdp is 8, but the model's width is 132, .*: use 1, 2 or 4.$")])
def test_what_need_not_lie_whole_is_refused_with_both_numbers_and_what_would_do(fsdp, tensor, change, message):
  with pytest.raises(ValueError, match=message):
    notes(fsdp, tensor, **change)


@pytest.mark.parametrize("tensor, change, message", [
    (8, dict(kv_heads=2), "config.mesh.tensor is 8, and the model's kv_heads is 2: .*attn/v/kernel and its like"),
    (4, dict(vocab=16382), "config.mesh.tensor is 4, and the model's vocab is 16382: .* could have "
                          "--config.model.vocab=16384")])
def test_what_nobody_can_help_is_told_once(tensor, change, message):
  note, = notes(1, tensor, **change)
  assert re.search(message, note)


def test_small_models_may_lie_as_they_like_and_one_device_has_everything():
  small = {"model": jax.eval_shape(build(DecoderConfig(vocab=9, heads=3, width=24)).init, jax.random.key(0))}
  assert undivided.check(small, meshes.make(MeshConfig(1, 1, 8))) == ()
  assert undivided.check(tree(heads=3, kv_heads=3), meshes.make(MeshConfig(), jax.devices()[:1])) == ()


def test_what_a_users_own_model_adds_is_told_of_when_it_is_large():
  own = {"model": {"own": {"table": jax.ShapeDtypeStruct((2048, 1024), "float32")}}}
  note, = undivided.check(own, meshes.make(MeshConfig()))
  assert note == "model/own/table, of a model of your own, has 2,097,152 numbers and is whole on every device."
