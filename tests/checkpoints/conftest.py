"""Tiny random models in Hugging Face's files, of shapes that are worked out here and not by our tables."""

import json

import ml_dtypes
import numpy as np
import pytest

FEW = dict(vocab_size=40, hidden_size=24, intermediate_size=20, num_hidden_layers=3, num_attention_heads=4,
           num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6, max_position_embeddings=64, tie_word_embeddings=False)
VALUES = {
    "llama": dict(rope_theta=500.0, rope_scaling=None),
    "mistral": dict(rope_parameters={"rope_type": "default", "rope_theta": 500.0}, sliding_window=6),
    "qwen2": dict(tie_word_embeddings=True, rope_theta=500.0),
    "qwen3": dict(rope_theta=500.0),
    "gemma2": dict(tie_word_embeddings=True, sliding_window=6, query_pre_attn_scalar=8, rope_theta=500.0),
    "smollm3": dict(no_rope_layer_interval=2, attention_bias=True, mlp_bias=True),
    "phi3": dict(rope_theta=500.0, sliding_window=None, partial_rotary_factor=0.5),
    "olmo2": dict(rope_theta=500.0),
    "granite": dict(rope_theta=500.0, logits_scaling=8, residual_multiplier=0.3, embedding_multiplier=12,
                    attention_multiplier=0.1),
    "gemma3_text": dict(tie_word_embeddings=True, sliding_window=6, query_pre_attn_scalar=8, sliding_window_pattern=2),
}


def shapes_of(values):
  """{name: shape} as transformers' modules have them."""
  width, mlp_dim, head_dim = values["hidden_size"], values["intermediate_size"], values["head_dim"]
  q, kv = values["num_attention_heads"] * head_dim, values["num_key_value_heads"] * head_dim
  kind, top, layer = values["model_type"], {"embed_tokens.weight": (values["vocab_size"], width)}, {
      "self_attn.q_proj.weight": (q, width), "self_attn.k_proj.weight": (kv, width),
      "self_attn.v_proj.weight": (kv, width), "self_attn.o_proj.weight": (width, q),
      "mlp.gate_proj.weight": (mlp_dim, width), "mlp.up_proj.weight": (mlp_dim, width),
      "mlp.down_proj.weight": (width, mlp_dim),
      "input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,)}
  if kind == "qwen2":
    layer |= {f"self_attn.{name}_proj.bias": (size,) for name, size in (("q", q), ("k", kv), ("v", kv))}
  if values.get("attention_bias") and values.get("mlp_bias"):
    layer |= {name.replace("weight", "bias"): shape[:1] for name, shape in layer.items() if "_proj" in name}
  if kind in ("qwen3", "gemma3_text"):
    layer |= {f"self_attn.{name}_norm.weight": (head_dim,) for name in "qk"}
  if kind == "olmo2":
    layer |= {"self_attn.q_norm.weight": (q,), "self_attn.k_norm.weight": (kv,),
              "post_feedforward_layernorm.weight": layer.pop("input_layernorm.weight")}
  if kind == "phi3":
    kept = ("o_proj.weight", "down_proj.weight", "norm.weight")
    layer = {name: shape for name, shape in layer.items() if name.endswith(kept)} | {
        "self_attn.qkv_proj.weight": (q + 2 * kv, width), "mlp.gate_up_proj.weight": (2 * mlp_dim, width)}
  if kind in ("gemma2", "gemma3_text"):
    layer |= {f"{name}_feedforward_layernorm.weight": (width,) for name in ("pre", "post")}
  shapes = {f"model.{name}": shape for name, shape in {**top, "norm.weight": (width,)}.items()}
  for n in range(values["num_hidden_layers"]):
    shapes |= {f"model.layers.{n}.{name}": shape for name, shape in layer.items()}
  return shapes if values["tie_word_embeddings"] else {**shapes, "lm_head.weight": (values["vocab_size"], width)}


@pytest.fixture(scope="session")
def values_of():
  """values_of(family, **changes) -> a config.json of a tiny model."""
  return lambda family="llama", **changes: {"model_type": family, **FEW, **VALUES[family], **changes}


@pytest.fixture(scope="session")
def drawn():
  """drawn(values, dtype) -> {name: array} of random weights."""
  def draw(values, dtype="float32"):
    random = np.random.default_rng(7)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    return {name: random.normal(size=shape).astype(np.float32).astype(kind)
            for name, shape in shapes_of(values).items()}
  return draw


@pytest.fixture
def make(tmp_path, values_of, drawn):
  """make(family, dtype, name, files, **changes) -> a directory, written by the package safetensors."""
  def write(family="llama", dtype="float32", name="model", files=1, **changes):
    numpy = pytest.importorskip("safetensors.numpy")
    home = tmp_path / name
    home.mkdir()
    values = values_of(family, **changes)
    (home / "config.json").write_text(json.dumps(values))
    tensors = drawn(values, dtype)
    parts = [dict(list(tensors.items())[part::files]) for part in range(files)]
    called = [f"model-{part + 1}-of-{files}.safetensors" if files > 1 else "model.safetensors" for part in range(files)]
    for file, part in zip(called, parts, strict=True):
      numpy.save_file(part, home / file)
    if files > 1:
      where = {each: file for file, part in zip(called, parts, strict=True) for each in part}
      (home / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return home
  return write
