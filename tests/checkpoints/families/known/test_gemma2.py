"""Gemma 2: every other layer local, soft caps on scores and logits."""

import pytest

from sftrl_jax.checkpoints import families
from sftrl_jax.models import DecoderConfig

# Of google/gemma-2-2b-it.
TWO_B = {"model_type": "gemma2", "attention_bias": False, "attn_logit_softcapping": 50.0,
         "cache_implementation": "hybrid", "final_logit_softcapping": 30.0, "head_dim": 256,
         "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304,
         "intermediate_size": 9216, "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 26,
         "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
         "sliding_window": 4096, "vocab_size": 256000}
READ = DecoderConfig(
    vocab=256000, width=2304, layers=26, heads=8, kv_heads=4, head_dim=256, mlp_dim=9216, activation="gelu",
    norm_eps=1e-6, tie_embeddings=True, context=8192, window=4096, pattern=("local", "global"), post_norms=True,
    norm_plus_one=True, embed_scale=2304**0.5, attention_softcap=50.0, logits_softcap=30.0)


def test_a_real_one_is_read_and_written():
  assert families.describe(TWO_B) == READ
  assert families.of(READ) == "gemma2"
  assert families.describe({"model_type": "gemma2", **families.gemma2.written(READ)}) == READ


def test_caps_are_those_of_transformers_unless_they_are_null():
  caps = ("attn_logit_softcapping", "final_logit_softcapping")
  assert families.describe({name: value for name, value in TWO_B.items() if name not in caps}) == READ
  config = families.describe({**TWO_B, **dict.fromkeys(caps), "query_pre_attn_scalar": 144})
  assert (config.attention_softcap, config.logits_softcap, config.query_scale) == (0.0, 0.0, 1 / 12)
  assert families.describe({"model_type": "gemma2", **families.gemma2.written(config)}) == config


@pytest.mark.parametrize("change, message", [
    (dict(final_logit_softcapping=-1), "final_logit_softcapping is -1; it must be a positive number"),
    (dict(use_bidirectional_attention=True), "use_bidirectional_attention is True")])
def test_what_no_model_here_has_is_told(change, message):
  with pytest.raises(ValueError, match=message):
    families.describe({**TWO_B, **change})
