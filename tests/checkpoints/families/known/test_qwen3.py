"""Qwen 3: norms on heads that are wider than the model's share."""

from sftrl_jax.checkpoints import families
from sftrl_jax.models import DecoderConfig

# Of Qwen/Qwen3-0.6B.
SMALL = {"model_type": "qwen3", "attention_bias": False, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
         "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
         "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
         "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
         "use_sliding_window": False, "vocab_size": 151936}
READ = DecoderConfig(vocab=151936, width=1024, layers=28, heads=16, kv_heads=8, head_dim=128, mlp_dim=3072,
                     norm_eps=1e-6, rope_theta=1e6, tie_embeddings=True, context=40960, qk_norm=True)


def test_a_real_one_is_read_and_written():
  assert families.describe(SMALL) == READ
  assert families.of(READ) == "qwen3"
  assert families.describe({"model_type": "qwen3", **families.qwen3.written(READ)}) == READ


def test_heads_are_128_wide_unless_it_says_so():
  assert families.describe({name: value for name, value in SMALL.items() if name != "head_dim"}) == READ
