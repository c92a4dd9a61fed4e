"""SmolLM3: layers that are not rotated, named by numbers whose name says the contrary."""

import pytest

from sftrl_jax.checkpoints import families
from sftrl_jax.models import DecoderConfig

# Of HuggingFaceTB/SmolLM3-3B.
THREE_B = {"model_type": "smollm3", "attention_bias": False, "hidden_act": "silu", "hidden_size": 2048,
           "intermediate_size": 11008, "layer_types": ["full_attention"] * 36, "max_position_embeddings": 65536,
           "max_window_layers": 28, "mlp_bias": False, "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0] * 9,
           "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 4, "pretraining_tp": 2,
           "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 5000000.0, "sliding_window": None,
           "use_sliding_window": False, "vocab_size": 128256}
READ = DecoderConfig(vocab=128256, width=2048, layers=36, heads=16, kv_heads=4, mlp_dim=11008, norm_eps=1e-6,
                     rope_theta=5e6, tie_embeddings=True, context=65536,
                     pattern=("global", "global", "global", "unrotated"))


def test_a_real_one_is_read_and_written():
  assert families.describe(THREE_B) == READ
  assert families.describe({name: value for name, value in THREE_B.items() if name != "no_rope_layers"}) == READ
  assert families.of(READ) == "smollm3"
  assert families.describe({"model_type": "smollm3", **families.smollm3.written(READ)}) == READ


def test_rotated_layers_may_have_a_window():
  windows = dict(use_sliding_window=True, sliding_window=512,
                 layer_types=["full_attention", "sliding_attention", "full_attention", "full_attention"] * 9)
  config = families.describe({**THREE_B, **windows})
  assert (config.window, config.pattern) == (512, ("global", "local", "global", "unrotated"))
  assert families.describe({"model_type": "smollm3", **families.smollm3.written(config)}) == config


@pytest.mark.parametrize("change, message", [
    (dict(no_rope_layers=[1, 0]), "no_rope_layers is .* for each of 36 layers"),
    (dict(no_rope_layers=["a"] * 36), "it must be 1 .rotated. or 0"),
    (dict(use_sliding_window=True, sliding_window=9, layer_types=None), "a layer that no_rope_layers does not rotate")])
def test_what_no_model_here_has_is_told(change, message):
  with pytest.raises(ValueError, match=message):
    families.describe({**THREE_B, **change})
