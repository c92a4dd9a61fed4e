"""One entry of the table is all that rules, adapters, labels, names and FLOPs need."""

import dataclasses
import subprocess
import sys

import jax
import pytest

from sftrl_jax import models, trees
from sftrl_jax.projections import AXES, PROJECTIONS, STACK

CONFIG = models.DecoderConfig(vocab=24, width=32, layers=3, heads=4, kv_heads=2, head_dim=6, mlp_dim=48)
CONFIGS = {"gated": CONFIG, "plain": dataclasses.replace(CONFIG, mlp="plain"),
           "biased": dataclasses.replace(CONFIG, qkv_bias=True)}

# Runs in a process of its own, for every table is made of PROJECTIONS when its module is imported.
NEW_ENTRY = """
from sftrl_jax.projections import PROJECTIONS, Projection
PROJECTIONS["mlp/shadow"] = Projection("mlp/shadow", ("ffn",), ("heads", "channels"), "mlp.shadow_proj", "ffn_shadow",
                                       bias="qkv_bias")
import jax
from sftrl_jax import models, trees
from sftrl_jax.checkpoints import fill, gguf
from sftrl_jax.checkpoints.families import table
from sftrl_jax.models import decoder, flops, lora
from sftrl_jax.parallel import rules
from sftrl_jax.training.optimizers import matrices

config = models.DecoderConfig(vocab=24, width=32, layers=3, heads=4, mlp_dim=48)
params = jax.eval_shape(models.build(config).init, jax.random.key(0))
layer = params["layers"]["block"]["mlp"]
layer["shadow"] = {"kernel": jax.ShapeDtypeStruct((3, 48, 4, 8), "float32"),
                   "bias": jax.ShapeDtypeStruct((3, 4, 8), "float32")}
path = "layers/block/mlp/shadow"

assert rules.axes_of(f"model/{path}/kernel", (3, 48, 4, 8)) == ("layers", "ffn", "heads", "channels")
assert rules.axes_of(f"model/{path}/bias", (3, 4, 8)) == ("layers", "heads", "channels")
assert rules.axes_of("model/layers/0/mlp/shadow/matrix", (32, 48)) == ("heads", "ffn")

settings = lora.LoraConfig(rank=2, targets=("*/shadow",))
adapters = jax.eval_shape(lambda key: lora.init(settings, params, key), jax.random.key(0))
shapes = {path: leaf.shape for path, leaf in trees.leaves(adapters).items()}
assert shapes == {f"{path}/a": (3, 48, 2), f"{path}/b": (3, 2, 4, 8)}, shapes
assert rules.axes_of(f"lora/{path}/a", (3, 48, 2)) == ("layers", "ffn", "rank")
assert rules.axes_of(f"lora/{path}/b", (3, 2, 4, 8)) == ("layers", "rank", "heads", "channels")

of = lambda tree: matrices.muon_dimensions(tree)["model"]["layers"]["block"]["mlp"]["shadow"]
kernel, factors = of({"model": params}), of({"model": adapters})
assert (kernel["kernel"].reduction_axis, kernel["kernel"].output_axis, kernel["bias"]) == ((1,), (2, 3), None)
assert (factors["a"].reduction_axis, factors["a"].output_axis) == ((1,), (2,))
assert (factors["b"].reduction_axis, factors["b"].output_axis) == ((1,), (2, 3))

names = {**table.LLAMA, **table.BIASES}
tensors = fill.named(params, names)
assert tensors["model.layers.2.mlp.shadow_proj.weight"] == (32, 48)
assert tensors["model.layers.2.mlp.shadow_proj.bias"] == (32,)
assert fill.named(params, gguf.NAMES)["blk.2.ffn_shadow.weight"] == (32, 48)

decoder.LARGE = 1
decoding = jax.eval_shape(lambda tree: decoder.unstack(tree, 3), params)
assert decoding["layers"][1]["mlp"]["shadow"]["matrix"].shape == (32, 48)

PROJECTIONS.pop("mlp/shadow")
before = flops.matmul_parameters(config)
PROJECTIONS["mlp/shadow"] = Projection("mlp/shadow", ("ffn",), ("heads", "channels"), "", "")
assert flops.matmul_parameters(config) - before == 3 * 48 * 4 * 8
"""


def test_everything_follows_from_a_new_entry():
  done = subprocess.run([sys.executable, "-c", NEW_ENTRY], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_table_says_which_kernels_and_biases_a_model_has(config):
  params = jax.eval_shape(models.build(config).init, jax.random.key(0))
  shapes = {path: leaf.shape for path, leaf in trees.leaves(params).items() if path.startswith(STACK)}
  expected = {}
  for path, projection in PROJECTIONS.items():
    if projection.present(config):
      shape = (config.layers, *projection.shape(config))
      expected[f"{STACK}{path}/kernel"] = shape
      if projection.has_bias(config):
        expected[f"{STACK}{path}/bias"] = (config.layers, *shape[1 + len(projection.reads):])
  assert {path: shape for path, shape in shapes.items() if not path.endswith("scale")} == expected


def test_checkpoints_have_weights_as_written_times_read():
  assert PROJECTIONS["attn/q"].weight_axes == "dhc -> hc d" and PROJECTIONS["attn/q"].bias_axes == "hc -> hc"
  assert PROJECTIONS["attn/o"].weight_axes == "hcd -> d hc" and PROJECTIONS["mlp/down"].weight_axes == "fd -> d f"


def test_no_two_axes_share_a_letter_and_every_projection_is_known_by_its_path():
  assert len({axis.letter for axis in AXES.values()}) == len(AXES)
  assert all(projection.path == path for path, projection in PROJECTIONS.items())
  for name in ("hf", "gguf"):
    assert len({getattr(projection, name) for projection in PROJECTIONS.values()}) == len(PROJECTIONS)
