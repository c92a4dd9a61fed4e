"""A model opened by its name: the same one whatever file holds it, and one error for what cannot be opened."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import trees
from sftrl_jax.checkpoints import fill, gguf, hf
from sftrl_jax.models import DecoderConfig
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.start.open_model import open_model
from sftrl_jax.projections import STACK

CONFIG = DecoderConfig(vocab=16, width=8, layers=2, heads=2, kv_heads=2, mlp_dim=24, qkv_bias=True, context=32)


@pytest.fixture
def params():
  random = np.random.default_rng(0)
  return jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.bfloat16), fill.shapes_of(CONFIG))


@pytest.fixture
def directory(params, tmp_path):
  hf.save(tmp_path / "model", CONFIG, params)
  return tmp_path / "model"


def assert_same(params, expected):
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32)),
               params, expected)


def test_a_directory_is_opened_in_the_dtype_of_its_weights_unless_another_is_asked_for(directory, params):
  model = open_model(str(directory))
  assert (model.kind, model.path, model.tokenizer, model.config.dtype) == ("hf", directory, None, "bfloat16")
  assert model.params["embed"].dtype == "bfloat16"
  assert_same(model.params, params)
  model = open_model(str(directory), "float32")
  assert model.config.dtype == "float32" and model.params["embed"].dtype == "float32"
  assert_same(model.params, params)


def test_a_gguf_file_is_opened_in_float32(params, tmp_path):
  package = pytest.importorskip("gguf")
  path = tmp_path / "x.gguf"
  writer = package.GGUFWriter(str(path), "qwen2")
  for key, value in (("embedding_length", CONFIG.width), ("block_count", CONFIG.layers), ("context_length", 32),
                     ("feed_forward_length", CONFIG.mlp_dim),
                     ("attention.head_count", CONFIG.heads), ("attention.head_count_kv", CONFIG.heads)):
    writer.add_uint32(f"qwen2.{key}", value)
  writer.add_float32("qwen2.attention.layer_norm_rms_epsilon", CONFIG.norm_eps)
  writer.add_float32("qwen2.rope.freq_base", CONFIG.rope_theta)
  for name, leaf in trees.leaves(params).items():
    tensor, array = gguf.NAMES[name], np.asarray(leaf, np.float32)
    stacked = name.startswith(STACK)
    for n in range(len(array) if stacked else 1):
      writer.add_tensor(tensor.name.format(n=n), np.ascontiguousarray(tensor.outward(array[n] if stacked else array)))
  for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()
  model = open_model(str(path))
  assert (model.kind, model.path, model.config.dtype) == ("gguf", path, "float32")
  assert_same(model.params, params)


def test_a_model_is_split_over_a_mesh(directory, params):
  mesh = meshes.make(meshes.MeshConfig(tensor=2), jax.devices()[:2])
  model = open_model(str(directory), "float32", mesh)
  assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(model.params))
  assert_same(model.params, params)


@pytest.mark.parametrize("source, message", [
    ("nowhere", "'nowhere' is neither the workdir of a run"), ("x.gguf", "There is no file x.gguf"),
    ("MODEL", "model_type is .gpt2., which needs LayerNorm"), ("MODEL/config.json", "is neither the workdir of a run")])
def test_what_cannot_be_opened_is_one_error(directory, source, message):
  (directory / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
  with pytest.raises(ConfigError, match=message):
    open_model(source.replace("MODEL", str(directory)))
