"""Parameters from tensors, into any sharding; and one report of all that is wrong."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from sftrl_jax import trees
from sftrl_jax.checkpoints import fill, hf
from sftrl_jax.checkpoints.families import llama
from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.parallel import mesh as meshes, rules

CONFIG = DecoderConfig(vocab=24, width=16, layers=3, heads=4, kv_heads=2, head_dim=4, mlp_dim=32)


def tensors():
  random = np.random.default_rng(0)
  shapes = fill.named(fill.shapes_of(CONFIG), llama.NAMES)
  return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("shape", [dict(data=2, fsdp=2, tensor=2), dict(fsdp=8), dict(tensor=4, data=2), dict(data=8)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_hold_what_one_device_holds(shape, dtype):
  mesh = meshes.make(meshes.MeshConfig(**{"fsdp": 1, **shape}), jax.devices())
  where = rules.shardings({"model": fill.shapes_of(CONFIG)}, mesh)["model"]
  there = tensors()
  whole = fill.fill(CONFIG, llama.NAMES, dtype, None, there.__getitem__)
  split = fill.fill(CONFIG, llama.NAMES, dtype, where, there.__getitem__)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), whole, split)
  jax.tree.map(lambda a, s: np.testing.assert_equal((a.sharding, str(a.dtype)), (s, dtype)), split, where)


def test_the_tree_is_the_models_own_and_kernels_are_weights_the_other_way_round():
  there = tensors()
  params = fill.fill(CONFIG, llama.NAMES, "float32", None, there.__getitem__)
  same = lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype))
  jax.tree.map(same, params, fill.shapes_of(CONFIG))
  q, o = (np.asarray(params["layers"]["block"]["attn"][name]["kernel"][1]) for name in "qo")
  weight_q, weight_o = (there[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qo")
  np.testing.assert_array_equal(q.reshape(16, 16), weight_q.T)
  np.testing.assert_array_equal(o.reshape(16, 16), weight_o.T)
  assert build(CONFIG).logits(params, np.zeros((1, 2), np.int32)).shape == (1, 2, 24)


def test_every_tensor_is_read_once_for_all_its_shards():
  mesh = meshes.make(meshes.MeshConfig(fsdp=2, tensor=4), jax.devices())
  where, there, asked = rules.shardings({"model": fill.shapes_of(CONFIG)}, mesh)["model"], tensors(), []
  fill.fill(CONFIG, llama.NAMES, "float32", where, lambda name: asked.append(name) or there[name])
  assert sorted(asked) == sorted(there)


def test_a_program_that_takes_parameters_over_leaves_them_sound():
  """On a CPU the parameters are the memory they were read into, which a donation must not reuse."""
  there = tensors()
  params = fill.fill(CONFIG, llama.NAMES, "float32", None, there.__getitem__)
  kept = jax.tree.map(np.array, params)
  add = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b + 1), add(params), kept)


def test_all_that_is_wrong_is_told_at_once():
  wanted = {"a": (2, 3), "b": (4,), "c": (1,)}
  with pytest.raises(ValueError) as caught:
    fill.refuse_others("here", {"b": (5,), "c": (1,), "d": (1,), "e": (9,)}, wanted, lambda name: name == "e")
  assert str(caught.value) == ("here does not hold the tensors of its model. 1 missing: a. 1 that this model does not "
                               "have: d. 1 of another shape: b is [5] instead of [4].")
  fill.refuse_others("here", {**wanted, "e": (9,)}, wanted, lambda name: name == "e")


MEASURE = """
import json, resource, sys
import jax
from sftrl_jax import trees
from sftrl_jax.checkpoints import hf

def held():
  with open("/proc/self/status") as file:
    return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024

config = hf.describe(sys.argv[1])
hf.load(sys.argv[2])   # a model of a few kB: whatever is imported on the way
before = held()
params = hf.load_params(sys.argv[1], config, sys.argv[3])
print(json.dumps([held() - before, sum(leaf.nbytes for leaf in jax.tree.leaves(params))]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", ["float32"])
def test_loading_holds_little_more_than_the_result(make, dtype):
  home = make("llama", name="large", vocab_size=4096, hidden_size=512, intermediate_size=1536, num_hidden_layers=8,
              num_attention_heads=8, num_key_value_heads=4, head_dim=64)
  done = subprocess.run([sys.executable, "-c", MEASURE, str(home), str(make(name="small")), dtype], text=True,
                        capture_output=True, check=True, env={**os.environ, "XLA_FLAGS": ""})
  held, result = json.loads(done.stdout)
  largest = 4096 * 512 * 4
  assert result == 4 * trees.size(fill.shapes_of(hf.describe(home))) > 100e6
  assert held < result + largest + 8e6, f"{held / 1e6:.0f} MB held for {result / 1e6:.0f} MB"
