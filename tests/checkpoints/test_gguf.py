"""A GGUF file holds the model of a Hugging Face directory: llama.cpp's conversion, done here by hand, read back."""

import shutil
import struct

import jax
import numpy as np
import pytest

from sftrl_jax.checkpoints import gguf, hf, safetensors
from sftrl_jax.parallel import mesh as meshes

package = pytest.importorskip("gguf")
SHORT = {
    "model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm", "model.layers.": "blk.",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm"}
FLOATS = {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
          "attention.scale": "attention_multiplier", "embedding_scale": "embedding_multiplier",
          "residual_scale": "residual_multiplier", "logit_scale": "logits_scaling"}
FREQUENCIES = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}


def renamed(name, family):
  if family in ("gemma3_text", "gemma2", "olmo2"):
    name = name.replace("post_attention_layernorm", "post_attention_norm")
  for long, short in SHORT.items():
    name = name.replace(long, short)
  return name


def converted(home, values, path, kind="F32", extra=None, keys=None, **parts):
  """The directory as a GGUF file, the way convert_hf_to_gguf.py goes about it. parts: how it is split, if at all."""
  family = values["model_type"]
  architecture = family.removesuffix("_text")
  writer = package.GGUFWriter(str(path), architecture, **parts)
  integers = {"embedding_length": "hidden_size", "block_count": "num_hidden_layers",
              "context_length": "max_position_embeddings", "feed_forward_length": "intermediate_size",
              "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
              "attention.key_length": "head_dim"}
  for key, name in integers.items():
    writer.add_uint32(f"{architecture}.{key}", values[name])
  writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", values["rms_norm_eps"])
  writer.add_float32(f"{architecture}.rope.freq_base", values.get("rope_theta", 1e6))
  for key, value in (keys or {}).items():
    writer.add_float32(f"{architecture}.{key}", value)
  for key, name in FLOATS.items():
    if name in values:
      writer.add_float32(f"{architecture}.{key}", values[name])
  if family in ("gemma2", "gemma3_text"):
    writer.add_uint32(f"{architecture}.attention.sliding_window", values["sliding_window"])
  for name, entry in safetensors.entries(home).items():
    array = np.array(entry.read())
    if family in ("llama", "granite", "smollm3") and ("q_proj" in name or "k_proj" in name):
      heads = values["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
      array = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    if family in ("gemma2", "gemma3_text") and "norm" in name:
      array = array + 1
    block = "F32" if array.ndim == 1 or array.shape[1] % 32 and kind.startswith("Q") else kind
    wanted = package.GGMLQuantizationType[block]
    writer.add_tensor(renamed(name, family), array if block == "F32" else package.quants.quantize(array, wanted),
                      raw_dtype=wanted)
  for name, array in (extra or {}).items():
    writer.add_tensor(name, array)
  for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()
  return path


@pytest.mark.parametrize("family, changes", [
    ("llama", dict(attention_bias=True, mlp_bias=True)), ("qwen2", {}), ("olmo2", {}), ("granite", {}),
    ("smollm3", dict(num_hidden_layers=5, no_rope_layer_interval=4, rope_theta=500.0)),
    ("gemma2", dict(attn_logit_softcapping=20.0, final_logit_softcapping=10.0)),
    ("qwen3", dict(tie_word_embeddings=True)), ("gemma3_text", dict(num_hidden_layers=8, sliding_window_pattern=6))])
def test_a_file_holds_the_model_of_the_directory(make, values_of, tmp_path, family, changes):
  home = make(family, **changes)
  path = converted(home, values_of(family, **changes), tmp_path / "x.gguf")
  here, there = gguf.load(path), hf.load(home)
  assert here.config == there.config and here.tokenizer is None
  close = lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=3e-7)
  exact = lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
  jax.tree.map(close if family.startswith("gemma") else exact, here.params, there.params)


def test_blocks_are_multiplied_out_into_any_dtype_and_sharding(make, values_of, tmp_path):
  changes = dict(hidden_size=32, intermediate_size=64)
  home = make(**changes)
  path = converted(home, values_of(**changes), tmp_path / "x.gguf", "Q8_0")
  mesh = meshes.make(meshes.MeshConfig(data=2, fsdp=2, tensor=2), jax.devices())
  here, there = gguf.load(path, "bfloat16", mesh), hf.load(home)
  assert here.config.dtype == "bfloat16" and here.params["embed"].dtype == "bfloat16"
  near = lambda a, b: np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b), rtol=0.01, atol=0.03)
  jax.tree.map(near, here.params, there.params)


def test_stretched_frequencies_of_llama_3_are_recognised(make, values_of, tmp_path):
  theta = 500_000.0
  frequencies = 1 / theta ** (np.arange(0, 64, 2) / 64)
  waves = 2 * np.pi / frequencies
  smooth = (8192 / waves - 1) / 3
  factors = np.where(waves < 8192 / 4, 1, np.where(waves > 8192, 32.0, 1 / ((1 - smooth) / 32.0 + smooth)))
  changes = dict(head_dim=64, rope_theta=theta, rope_scaling=FREQUENCIES, max_position_embeddings=131072)
  home, values = make(**changes), values_of(**changes)
  path = converted(home, values, tmp_path / "x.gguf", extra={"rope_freqs.weight": factors.astype(np.float32)})
  assert gguf.describe(path) == hf.describe(home)
  gguf.load_params(path, gguf.describe(path))
  path = converted(home, values, tmp_path / "y.gguf", extra={"rope_freqs.weight": np.linspace(1, 32, 32, dtype="f")})
  with pytest.raises(ValueError, match="does not stretch frequencies as Llama 3 does"):
    gguf.describe(path)


def test_what_is_missing_or_too_much_is_one_report(make, values_of, tmp_path):
  home = make()
  path = converted(home, values_of(), tmp_path / "x.gguf", extra={"blk.0.ffn_gate_inp.weight": np.ones((2, 2), "f")})
  with pytest.raises(ValueError, match="x.gguf does not hold .*1 that this model does not have: blk.0.ffn_gate_inp"):
    gguf.load(path)


@pytest.fixture
def split(make, values_of, tmp_path):
  """(a model's directory, its GGUF in four parts), as llama.cpp names them."""
  home = make()
  converted(home, values_of(), tmp_path / "x.gguf", split_max_tensors=9)
  parts = sorted(tmp_path.glob("x-*.gguf"))
  assert [part.name for part in parts] == [f"x-{number:05}-of-00004.gguf" for number in range(1, 5)]
  return home, parts


@pytest.mark.parametrize("given", [0, 2, 3])
def test_parts_are_read_together_whichever_is_given(split, given):
  home, parts = split
  here, there = gguf.load(parts[given]), hf.load(home)
  assert here.config == there.config
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), here.params, there.params)


def test_parts_that_are_missing_renamed_or_of_another_model_are_told(split, make, values_of, tmp_path):
  home, parts = split
  shutil.copy(parts[0], tmp_path / "alone.gguf")
  with pytest.raises(ValueError, match=r"alone.gguf is part 1 of 4 \(split.count\).* llama-gguf-split --merge"):
    gguf.describe(tmp_path / "alone.gguf")
  parts[2].rename(tmp_path / "aside")
  for given in (0, 3):
    with pytest.raises(ValueError, match="one of 4 parts .*, of which x-00003-of-00004.gguf is missing in .*fetch it"):
      gguf.load(parts[given])
  shutil.copy(parts[1], parts[2])
  with pytest.raises(ValueError, match="x-00003-of-00004.gguf is part 2 of 4 .* but its name says 3 of 4"):
    gguf.load(parts[0])
  (tmp_path / "aside").rename(parts[2])
  content = bytearray(parts[0].read_bytes())
  at = content.index(b"split.tensors.count") + len("split.tensors.count") + 4
  content[at : at + 4] = struct.pack("<i", 31)
  parts[0].write_bytes(content)
  with pytest.raises(ValueError, match="hold 30 tensors instead of 31"):
    gguf.load(parts[0])
  parts[1].write_bytes(parts[1].read_bytes()[:-40])
  with pytest.raises(ValueError, match="x-00002-of-00004.gguf is cut off"):
    gguf.load(parts[0])


def test_a_head_of_its_own_is_used_and_none_is_the_embedding(make, values_of, tmp_path):
  home = make(tie_word_embeddings=True)
  path = converted(home, values_of(), tmp_path / "tied.gguf")
  assert gguf.load(path).config.tie_embeddings
  head = np.random.default_rng(1).normal(size=(40, 24)).astype(np.float32)
  loaded = gguf.load(converted(home, values_of(), tmp_path / "own.gguf", extra={"output.weight": head}))
  assert not loaded.config.tie_embeddings
  np.testing.assert_array_equal(loaded.params["unembed"].T, head)


def test_positions_stretched_as_files_of_2023_say(make, values_of, tmp_path):
  changes = dict(rope_scaling={"rope_type": "linear", "factor": 4.0})
  home = make(**changes)
  for key in ("rope.scale_linear", "rope.scaling.factor"):   # without rope.scaling.type
    path = converted(home, values_of(**changes), tmp_path / f"{key}.gguf", keys={key: 4.0})
    assert gguf.describe(path) == hf.describe(home)


def test_a_number_of_layers_that_is_a_lie_is_told_at_once(make, values_of, tmp_path):
  home = make()
  path = converted(home, {**values_of(), "num_hidden_layers": 2**31}, tmp_path / "x.gguf")
  with pytest.raises(ValueError, match="llama.block_count is 2147483648; it must be at most 10000"):
    gguf.describe(path)
  path = converted(home, {**values_of(), "num_hidden_layers": 100}, tmp_path / "y.gguf")
  with pytest.raises(ValueError, match="block_count is 100, but the file holds 30 tensors"):
    gguf.describe(path)


@pytest.mark.parametrize("architecture, message", [("gpt2", "'gpt2', an unknown architecture; known: llama, qwen2"),
                                                ("llama", "holds no token_embd.weight")])
def test_another_architecture_is_told(tmp_path, architecture, message):
  writer = package.GGUFWriter(str(tmp_path / "x.gguf"), architecture)
  for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()
  with pytest.raises(ValueError, match=message):
    gguf.describe(tmp_path / "x.gguf")
  with pytest.raises(ValueError, match="There is no file"):
    gguf.describe(tmp_path / "y.gguf")
