"""Gemma 3's text models: which layers are local, and two kinds of rotation."""

import pytest

from sftrl_jax.checkpoints import families
from sftrl_jax.models import DecoderConfig

# Of google/gemma-3-1b-it, as its file was first written.
ONE_B = {"model_type": "gemma3_text", "attention_bias": False, "attn_logit_softcapping": None,
         "final_logit_softcapping": None, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
         "hidden_size": 1152, "intermediate_size": 6912, "max_position_embeddings": 32768, "num_attention_heads": 4,
         "num_hidden_layers": 26, "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
         "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000,
         "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144}
READ = DecoderConfig(
    vocab=262144, width=1152, layers=26, heads=4, kv_heads=1, head_dim=256, mlp_dim=6912, activation="gelu",
    rope_theta=1e6, norm_eps=1e-6, tie_embeddings=True, context=32768, window=512,
    pattern=("local",) * 5 + ("global",), qk_norm=True,
    post_norms=True, norm_plus_one=True, embed_scale=1152**0.5, rope_local_theta=1e4)


def test_a_real_one_is_read_and_written():
  assert families.describe(ONE_B) == READ
  assert families.of(READ) == "gemma3_text"
  assert families.describe({"model_type": "gemma3_text", **families.gemma3.written(READ)}) == READ


def test_the_spelling_of_transformers_5_is_read():
  kinds = [["sliding_attention", "full_attention"][(n + 1) % 6 == 0] for n in range(26)]
  new = {name: value for name, value in ONE_B.items() if not name.startswith(("rope_", "sliding_window_"))}
  ropes = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
           "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}}
  config = families.describe({**new, "layer_types": kinds, "rope_parameters": ropes, "query_pre_attn_scalar": 168})
  assert (config.pattern, config.rope_scaling, config.rope_factor) == (READ.pattern, "linear", 8.0)
  assert (config.rope_theta, config.rope_local_theta, config.query_scale) == (1e6, 2e4, 168**-0.5)
  assert families.of(config) == "gemma3_text"
  assert families.describe({"model_type": "gemma3_text", **families.gemma3.written(config)}) == config


def test_without_local_layers_there_is_no_window():
  config = families.describe({**ONE_B, "layer_types": ["full_attention"] * 26})
  assert (config.window, config.pattern, config.rope_local_theta) == (0, ("global",), 0.0)


@pytest.mark.parametrize("change, message", [
    (dict(final_logit_softcapping=30.0), "final_logit_softcapping is 30.0"),
    (dict(attn_logit_softcapping=50.0), "attn_logit_softcapping is 50.0"),
    (dict(use_bidirectional_attention=True), "use_bidirectional_attention is True"),
    (dict(rope_parameters={"sliding_attention": {"rope_type": "linear", "factor": 2.0}}), "never stretch")])
def test_what_no_model_here_has_is_told(change, message):
  with pytest.raises(ValueError, match=message):
    families.describe({**ONE_B, **change})
