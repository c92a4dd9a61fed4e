"""Mistral 0.1 looks back over a window in every layer, the later ones do not."""

import pytest

from sftrl_jax.checkpoints import families
from sftrl_jax.models import DecoderConfig

# Of mistralai/Mistral-7B-v0.1 and v0.3.
V01 = {"model_type": "mistral", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
       "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
       "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False,
       "vocab_size": 32000}
V03 = {**V01, "rope_theta": 1000000.0, "sliding_window": None, "vocab_size": 32768}
SEVEN_B = DecoderConfig(vocab=32000, width=4096, layers=32, heads=32, kv_heads=8, mlp_dim=14336, norm_eps=1e-5,
                        context=32768, window=4096, pattern=("local",))


def test_real_ones_are_read():
  assert families.describe(V01) == SEVEN_B
  later = families.describe(V03)
  assert (later.window, later.pattern, later.rope_theta) == (0, ("global",), 1e6)


def test_a_window_that_the_file_leaves_out_is_that_of_transformers():
  assert families.describe({name: value for name, value in V01.items() if name != "sliding_window"}) == SEVEN_B


@pytest.mark.parametrize("values, name", [(V01, "mistral"), (V03, "llama")])
def test_what_is_written_is_read_again(values, name):
  config = families.describe(values)
  assert families.describe({"model_type": "mistral", **families.mistral.written(config)}) == config
  assert families.of(config) == name
