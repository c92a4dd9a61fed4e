"""Granite: a factor for everything."""

import pytest

from sftrl_jax.checkpoints import families
from sftrl_jax.models import DecoderConfig

# Of ibm-granite/granite-3.3-2b-instruct.
TWO_B = {"model_type": "granite", "attention_bias": False, "attention_multiplier": 0.015625,
         "embedding_multiplier": 12.0, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192,
         "logits_scaling": 8.0, "max_position_embeddings": 131072, "mlp_bias": False, "num_attention_heads": 32,
         "num_hidden_layers": 40, "num_key_value_heads": 8, "residual_multiplier": 0.22, "rms_norm_eps": 1e-05,
         "rope_scaling": None, "rope_theta": 10000000.0, "tie_word_embeddings": True, "vocab_size": 49159}
READ = DecoderConfig(vocab=49159, width=2048, layers=40, heads=32, kv_heads=8, mlp_dim=8192, norm_eps=1e-5,
                     rope_theta=1e7, tie_embeddings=True, context=131072, embed_scale=12.0, query_scale=0.015625,
                     residual_scale=0.22, logits_divisor=8.0)


@pytest.mark.parametrize("change, read", [
    ({}, {}), ({"attention_multiplier": 0.125}, {"query_scale": 0.0}),
    ({"attention_bias": True}, {"qkv_bias": True, "o_bias": True})])
def test_a_real_one_is_read_and_written(change, read):
  config = families.describe({**TWO_B, **change})
  assert {name: getattr(config, name) for name in read} == read
  assert change or config == READ
  assert families.of(config) == "granite"
  assert families.describe({"model_type": "granite", **families.granite.written(config)}) == config


def test_a_factor_is_positive():
  with pytest.raises(ValueError, match="logits_scaling is 0; it must be a positive number"):
    families.describe({**TWO_B, "logits_scaling": 0})
