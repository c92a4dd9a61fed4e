"""Llama's config.json as Meta, Hugging Face and we write it."""

import dataclasses

import pytest

from sftrl_jax.checkpoints import families
from sftrl_jax.models import DecoderConfig

# Of meta-llama/Llama-3.2-1B and HuggingFaceTB/SmolLM2-135M, without what says nothing about the model.
LLAMA32 = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": True,
    "vocab_size": 128256, "rope_scaling": {
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3",
        "original_max_position_embeddings": 8192}}
SMOLLM2 = {
    "hidden_act": "silu", "hidden_size": 576, "intermediate_size": 1536, "max_position_embeddings": 8192,
    "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
    "tie_word_embeddings": True, "vocab_size": 49152}


def test_real_ones_are_read():
  assert families.describe(LLAMA32) == DecoderConfig(
      vocab=128256, width=2048, layers=16, heads=32, kv_heads=8, head_dim=64, mlp_dim=8192, norm_eps=1e-5,
      rope_theta=5e5, tie_embeddings=True, rope_scaling="llama3", rope_factor=32.0, rope_low=1.0,
      rope_high=4.0, rope_context=8192, context=131072)
  assert families.describe(SMOLLM2) == DecoderConfig(
      vocab=49152, width=576, layers=30, heads=9, kv_heads=3, head_dim=64, mlp_dim=1536, norm_eps=1e-5, rope_theta=1e5,
      tie_embeddings=True, context=8192)


@pytest.mark.parametrize("values", [
    LLAMA32, SMOLLM2, {**SMOLLM2, "attention_bias": True}, {**SMOLLM2, "attention_bias": True, "mlp_bias": True},
    {**SMOLLM2, "hidden_act": "gelu_pytorch_tanh", "head_dim": 8}])
def test_what_is_written_is_read_again(values):
  config = families.describe(values)
  assert families.of(config) == "llama"
  assert families.describe({"model_type": "llama", **families.llama.written(config)}) == config


def test_a_model_of_our_own_shape_has_a_name_there():
  """Whatever was trained from scratch with gated MLPs can be exported."""
  assert families.of(DecoderConfig(vocab=99, heads=4, activation="relu", init_std=0.1, remat="none")) == "llama"


@pytest.mark.parametrize("change, lacks", [
    (dict(mlp="plain"), "mlp='plain'"), (dict(qkv_bias=True, qk_norm=True), "qk_norm=True"),
    (dict(pattern=("unrotated",), qk_norm=True), "pattern"),
    (dict(embed_scale=2.0, qkv_bias=True), "embed_scale=2.0"), (dict(logits_softcap=2.0), "logits_softcap=2.0"),
    (dict(rope_part=0.5, o_bias=True), "o_bias=True")])
def test_a_model_of_no_family_is_told_what_the_nearest_lacks(change, lacks):
  with pytest.raises(ValueError, match=f"comes nearest, but has no .*{lacks}"):
    families.of(DecoderConfig(vocab=9, **change))


def test_a_users_own_model_has_no_name_there():
  own = dataclasses.make_dataclass("Own", [], bases=(DecoderConfig,), frozen=True)(vocab=9)
  with pytest.raises(ValueError, match="Own is a model of your own"):
    families.of(own)


@pytest.mark.parametrize("values, message", [
    ({}, "model_type is None, an unknown architecture"), ({"model_type": "rwkv"}, "known: llama, mistral, qwen2"),
    ({"model_type": "mixtral"}, "model_type is 'mixtral', which needs mixtures of experts; models here have none"),
    ({"model_type": "gpt2"}, "which needs LayerNorm and learned positions"),
    ({"model_type": "gemma3"}, "which takes images"), ({"model_type": ["llama"]}, "unknown architecture"),
    ({**SMOLLM2, "num_key_value_heads": 2}, "kv_heads is 2; it must"),
    ({**SMOLLM2, "attention_bias": 1}, "attention_bias is 1; it must be true or false")])
def test_another_architecture_is_one_error_that_names_the_file(values, message):
  with pytest.raises(ValueError, match=f"^place/config.json: .*{message}"):
    families.describe(values, "place/config.json")
