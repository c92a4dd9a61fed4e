"""Qwen 2.5: biases, and windows that are mostly off."""

import pytest

from sftrl_jax.checkpoints import families
from sftrl_jax.models import DecoderConfig

# Of Qwen/Qwen2.5-0.5B.
SMALL = {"model_type": "qwen2", "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864,
         "max_position_embeddings": 32768, "max_window_layers": 24, "num_attention_heads": 14, "num_hidden_layers": 24,
         "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
         "tie_word_embeddings": True, "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936}


def test_a_real_one_is_read():
  assert families.describe(SMALL) == DecoderConfig(
      vocab=151936, width=896, layers=24, heads=14, kv_heads=2, mlp_dim=4864, norm_eps=1e-6, rope_theta=1e6,
      tie_embeddings=True, context=32768, qkv_bias=True)


@pytest.mark.parametrize("changes, kinds", [
    (dict(max_window_layers=20), ("global",) * 20 + ("local",) * 4), (dict(max_window_layers=0), ("local",) * 24),
    (dict(layer_types=["full_attention", "sliding_attention"] * 12), ("global", "local") * 12),
    (dict(max_window_layers=24), ("global",) * 24)])
def test_windows_where_they_are_used(changes, kinds):
  config = families.describe({**SMALL, "use_sliding_window": True, **changes})
  assert config.kinds == kinds and config.window == (32768 if "local" in kinds else 0)
  assert families.of(config) == "qwen2"
  assert families.describe({"model_type": "qwen2", **families.qwen2.written(config)}) == config


def test_what_is_written_is_read_again():
  config = families.describe(SMALL)
  assert families.of(config) == "qwen2"
  assert families.describe({"model_type": "qwen2", **families.qwen2.written(config)}) == config
