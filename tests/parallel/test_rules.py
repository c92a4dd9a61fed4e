"""Every parameter has one place, and where it lies changes no number."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from sftrl_jax import models, trees
from sftrl_jax.checkpoints import families as checkpoint_families
from sftrl_jax.inputs import Inputs
from sftrl_jax.models import DecoderConfig, heads, lora
from sftrl_jax.models.vision.idefics3 import Idefics3Config
from sftrl_jax.models.vision.mllama.model import MllamaConfig
from sftrl_jax.models.vision.tiny import TinyVisionConfig
from sftrl_jax.objectives.logprobs import logprobs
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.parallel.mesh import MeshConfig

CONFIG = DecoderConfig(vocab=32, width=32, layers=2, heads=8, kv_heads=8, mlp_dim=48)
FAMILIES = {
    "gated": CONFIG,
    "plain": dataclasses.replace(CONFIG, mlp="plain", kv_heads=2),
    "tied": dataclasses.replace(CONFIG, tie_embeddings=True, kv_heads=1, layers=12),
    "large": dataclasses.replace(CONFIG, width=256, head_dim=32, mlp_dim=512),
    "everything": dataclasses.replace(CONFIG, kv_heads=2, qkv_bias=True, o_bias=True, mlp_bias=True, qk_norm=True,
                                      post_norms=True),
    "tiny_vlm": TinyVisionConfig(vocab=32, width=32, layers=2, heads=8, image_id=3),
    "idefics3": Idefics3Config(vocab=32, width=32, layers=2, heads=8, image_id=3),
    "mllama": MllamaConfig(vocab=40, width=32, layers=2, heads=8, image_id=32, tower_biases=True),
}
LAYOUTS = {"8x1x1": MeshConfig(8, 1, 1), "1x8x1": MeshConfig(1, 8, 1), "2x2x2": MeshConfig(2, 2, 2)}
GOLDEN = pathlib.Path(__file__).parent / "golden"
families = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)


def everywhere(params):
  """Adapters of every projection."""
  parts = {path.partition("/")[0] for path in lora.projections(params)} - {"layers"}
  return lora.LoraConfig(rank=2, targets=(*lora.EVERYWHERE, *(f"{part}/*" for part in sorted(parts))))


@functools.cache
def abstract(config, apart=False):
  model = models.build(config)
  params = jax.eval_shape(model.init, jax.random.key(0))
  return {"model": jax.eval_shape(model.decoding, params) if apart else params,
          "lora": jax.eval_shape(lambda key: lora.init(everywhere(params), params, key), jax.random.key(0)),
          # A head with layers beside layers that are apart, so that both kinds are seen.
          "value": jax.eval_shape(functools.partial(heads.init, config.width, (8, 4) if apart else ()))}


@families
@pytest.mark.parametrize("apart", [False, True], ids=["stacked", "apart"])
def test_every_parameter_of_every_family_has_exactly_one_rule(config, apart):
  mesh = meshes.make(LAYOUTS["2x2x2"])
  for prefix in ("", "params/", "0/mu/"):
    for path, leaf in trees.leaves(abstract(config, apart)).items():
      assert len(rules.spec(prefix + path, leaf.shape, mesh)) == leaf.ndim


def test_the_layers_of_a_value_head_are_split_by_what_they_read():
  mesh = meshes.make(LAYOUTS["2x2x2"])
  value = {"value": jax.eval_shape(functools.partial(heads.init, 64, (32, 16)))}
  for prefix in ("", "params/", "0/mu/"):
    specs = {path: tuple(rules.spec(prefix + path, leaf.shape, mesh)) for path, leaf in trees.leaves(value).items()}
    assert specs["value/hidden/0/kernel"] == specs["value/hidden/1/kernel"] == ("fsdp", None)
    assert not any(axis for path, spec in specs.items() if not path.endswith("hidden/0/kernel")
                   and not path.endswith("hidden/1/kernel") for axis in spec)


# A tiny config.json of every family, tied and untied, with heads of every number.
CONFIG_JSON = {"hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
               "num_key_value_heads": 2, "num_hidden_layers": 2, "head_dim": 8, "vocab_size": 64,
               "tie_word_embeddings": False}
GEMMA_JSON = {"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 4, "sliding_window_pattern": 2,
              "tie_word_embeddings": True, "num_key_value_heads": 1}
JSONS = {"llama": {}, "mistral": {"num_key_value_heads": 4}, "qwen2": {"tie_word_embeddings": True}, "qwen3": {},
         "gemma3_text": GEMMA_JSON}


def tables(family) -> str:
  """The table of everything trained, and that of what decoding reads, on 2 x 2 x 2 devices."""
  config = checkpoint_families.describe({**CONFIG_JSON, **JSONS[family], "model_type": family})
  mesh = meshes.make(LAYOUTS["2x2x2"])
  decoding = {"model": abstract(config, apart=True)["model"]}
  lying = {"decoding": rules.STATIONARY_AXES, "decoding, gathered": rules.GATHERED_AXES}
  lines = [line for name, axes in lying.items() for line in (
      name, rules.table(decoding, mesh, rules.shardings(decoding, mesh, axes)))]
  return "\n\n".join(["trained", rules.table(abstract(config), mesh), *lines, ""])


@pytest.mark.parametrize("family", JSONS)
def test_the_table_of_a_family_is_the_one_on_record(family):
  """Where a family's arrays lie is written in golden/: a change of it is meant, and seen in the diff."""
  golden, table = GOLDEN / f"{family}.txt", tables(family)
  if os.environ.get("REWRITE_GOLDEN"):
    golden.write_text(table)
  assert table == golden.read_text(), f"if this is meant: REWRITE_GOLDEN=1 python -m pytest {__file__}"


@pytest.mark.parametrize("pattern", rules.PARAMETER_AXES)
def test_a_rule_that_is_removed_is_missed_by_name(pattern, monkeypatch):
  path, leaf = next((path, leaf) for config in FAMILIES.values() for apart in (False, True)
                    for path, leaf in trees.leaves(abstract(config, apart)).items() if re.fullmatch(pattern, path))
  monkeypatch.delitem(rules.PARAMETER_AXES, pattern)
  with pytest.raises(ValueError, match=f"^{path} matches 0 patterns of parallel/rules.py"):
    rules.shardings(nested(path, leaf), meshes.make(LAYOUTS["2x2x2"]))


def nested(path, leaf):
  return functools.reduce(lambda inside, name: {name: inside}, reversed(path.split("/")), leaf)


def test_every_rule_is_some_parameters_rule():
  trees_of_all = [abstract(config, apart) for config in FAMILIES.values() for apart in (False, True)]
  paths = {path for tree in trees_of_all for path in trees.leaves(tree)}
  for pattern in rules.PARAMETER_AXES:
    assert any(re.fullmatch(pattern, path) for path in paths), f"no parameter matches {pattern}"


def test_what_is_new_in_a_users_own_model_is_whole_everywhere():
  mesh = meshes.make(LAYOUTS["2x2x2"])
  for path in ("model/own/scale", "model/layers/block/own/gate/kernel", "0/mu/model/own/scale"):
    assert rules.spec(path, (8, 8), mesh) == PartitionSpec(None, None)
  with pytest.raises(ValueError, match="matches 0 patterns of parallel/rules.py"):
    rules.spec("model/owned", (8,), mesh)


def test_every_axis_of_a_rule_and_of_an_activation_has_a_place():
  activations = {"batch", "replicas", "across", "spread", "tokens", "width"}
  named = {axis for axes in rules.PARAMETER_AXES.values() for axis in axes} | activations
  assert named == set(rules.MESH_AXES) == set(rules.STATIONARY_AXES) == set(rules.GATHERED_AXES)
  places = {place for value in rules.MESH_AXES.values() for place in (value if isinstance(value, tuple) else (value,))}
  assert places == {*meshes.AXES, None}


def test_what_two_mesh_axes_do_not_divide_together_lies_as_it_is_trained():
  mesh = meshes.make(LAYOUTS["2x2x2"])
  still = lambda path, *shape: rules.spec(path, shape, mesh, rules.STATIONARY_AXES)
  assert still("model/embed", 8, 6) == PartitionSpec(("tensor", "fsdp"), None)
  assert still("model/embed", 6, 8) == PartitionSpec("tensor", "fsdp") == rules.spec("model/embed", (6, 8), mesh)
  assert still("model/layers/0/attn/k/kernel", 8, 2, 4) == PartitionSpec("fsdp", "tensor", None)
  assert still("model/layers/0/attn/k/matrix", 8, 8) == PartitionSpec(("tensor", "fsdp"), None)


@pytest.mark.parametrize("path", ["model/layers/block/attn/r/bias", "model/lora/kernel", "embed", "model/embed/more",
                                  "model/layers/x/attn/q/kernel", "remodel/embed"])
def test_a_parameter_without_a_rule_is_a_loud_error(path):
  with pytest.raises(ValueError, match=f"{path} matches 0 patterns of parallel/rules.py"):
    rules.spec(path, (8, 8), meshes.make(LAYOUTS["2x2x2"]))


def test_a_parameter_with_another_number_of_axes_is_an_error():
  with pytest.raises(ValueError, match="model/embed has 3 axes"):
    rules.spec("model/embed", (8, 8, 8), meshes.make(LAYOUTS["2x2x2"]))


def test_stacked_and_apart_spell_the_same_rule():
  mesh = meshes.make(LAYOUTS["2x2x2"])
  stacked = rules.spec("model/layers/block/attn/q/kernel", (2, 32, 8, 4), mesh)
  assert stacked == PartitionSpec(None, "fsdp", "tensor", None)
  assert rules.spec("model/layers/1/attn/q/kernel", (32, 8, 4), mesh) == PartitionSpec(*stacked[1:])


def test_an_axis_that_does_not_divide_stays_whole():
  mesh = meshes.make(LAYOUTS["2x2x2"])
  assert rules.spec("model/embed", (33, 32), mesh) == PartitionSpec(None, "fsdp")
  assert rules.spec("model/layers/0/attn/k/kernel", (32, 1, 4), mesh) == PartitionSpec("fsdp", None, None)


@pytest.mark.parametrize("optimizer", [optax.adamw(1e-3), optax.chain(optax.clip_by_global_norm(1.0), optax.lion(1e-3)),
                                       optax.adafactor(1e-3, min_dim_size_to_factor=8), optax.sgd(1e-3)],
                         ids=["adamw", "chain", "adafactor", "sgd"])
def test_an_optimizers_slots_lie_with_their_parameters(optimizer):
  mesh, params = meshes.make(LAYOUTS["2x2x2"]), abstract(CONFIG)
  placed = rules.shardings(params, mesh)
  state = jax.eval_shape(optimizer.init, params)
  shardings = trees.leaves(rules.like_parameters(state, placed, mesh))
  by_path, shapes = trees.leaves(placed), {path: leaf.shape for path, leaf in trees.leaves(params).items()}
  assert list(shardings) == list(trees.leaves(state))
  for slot, leaf in trees.leaves(state).items():
    owner = next((path for path in by_path if slot.endswith("/" + path)), None)
    follows = owner is not None and leaf.shape == shapes[owner]
    want = by_path[owner] if follows else meshes.replicated(mesh)
    assert shardings[slot].is_equivalent_to(want, leaf.ndim), slot


@functools.cache
def unsharded():
  """(model, params, tokens, [logits, loss, gradients]) on one device, of a model and its adapters both."""
  model, random = models.build(CONFIG), np.random.default_rng(0)
  draw = lambda path, x: np.float32(random.normal(size=x.shape) * (0.2 if x.ndim > 1 else 0.1) + path.endswith("scale"))
  params = trees.map_with_path(draw, abstract(CONFIG))
  tokens = random.integers(0, CONFIG.vocab, (8, 6)).astype(np.int32)
  return model, params, tokens, jax.jit(everything(model))(params, tokens)


def everything(model):

  def loss(params, tokens):
    positions = jnp.broadcast_to(jnp.arange(6, dtype=jnp.int32)[None], tokens.shape)
    adapted = lora.attach(params["model"], params["lora"], lora.LoraConfig(rank=2, alpha=0.5))
    hidden = model.hidden(adapted, Inputs(tokens, positions, jnp.ones_like(tokens)))
    logprobs_BT = logprobs(hidden, model.unembedding(params["model"]), tokens, chunk=4)[0]
    values = heads.scalar(params["value"], hidden, stop_gradient=False)
    return -jnp.sum(logprobs_BT) + 0.1 * jnp.sum(jnp.square(values)), hidden

  return jax.value_and_grad(loss, has_aux=True)


@contextlib.contextmanager
def on(mesh):
  with jax.set_mesh(mesh), rules.applied():
    yield


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_forward_loss_and_gradient_are_the_same_on_every_mesh(layout):
  model, params, tokens, want = unsharded()
  mesh = meshes.make(layout)
  placed = rules.shardings(params, mesh)
  with on(mesh):
    compiled = jax.jit(everything(model), out_shardings=(None, placed))
    got = compiled(jax.device_put(params, placed), meshes.shard_rows(mesh, tokens))
  for (path, mine), theirs in zip(trees.leaves(got).items(), jax.tree.leaves(want), strict=True):
    difference = np.linalg.norm(np.asarray(mine) - np.asarray(theirs))
    assert difference <= 2e-6 * np.linalg.norm(np.asarray(theirs)), path  # f32 sums in another order


def test_parameters_and_activations_are_really_split():
  model, params, tokens, _ = unsharded()
  mesh = meshes.make(LAYOUTS["2x2x2"])
  placed = jax.device_put(params, rules.shardings(params, mesh))
  kernel = placed["model"]["layers"]["block"]["attn"]["q"]["kernel"]
  assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 16, 4, 4)}
  with on(mesh):
    traced = str(jax.make_jaxpr(everything(model))(params, tokens))
  assert "sharding_constraint" in traced
  assert "('data', 'fsdp')" in traced
