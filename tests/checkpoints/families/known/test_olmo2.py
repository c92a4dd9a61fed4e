"""OLMo 2: norms after, none before, and over whole projections."""

from sftrl_jax.checkpoints import families
from sftrl_jax.models import DecoderConfig

# Of allenai/OLMo-2-0425-1B-Instruct.
ONE_B = {"model_type": "olmo2", "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu",
         "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 4096, "num_attention_heads": 16,
         "num_hidden_layers": 16, "num_key_value_heads": 16, "rms_norm_eps": 1e-06, "rope_scaling": None,
         "rope_theta": 500000, "tie_word_embeddings": False, "vocab_size": 100352}
READ = DecoderConfig(vocab=100352, width=2048, layers=16, heads=16, mlp_dim=8192, norm_eps=1e-6, rope_theta=5e5,
                     context=4096, qk_norm=True, qk_norm_whole=True, pre_norms=False, post_norms=True)


def test_a_real_one_is_read_and_written():
  assert families.describe(ONE_B) == READ
  assert families.of(READ) == "olmo2"
  assert families.describe({"model_type": "olmo2", **families.olmo2.written(READ)}) == READ
