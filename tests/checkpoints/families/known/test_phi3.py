"""Phi 3 and 4: tensors that hold several projections, and heads that are rotated in part."""

import numpy as np
import pytest

from sftrl_jax.checkpoints import families, hf, peft, safetensors
from sftrl_jax.models import DecoderConfig

# Of microsoft/Phi-3-mini-4k-instruct and microsoft/phi-4.
MINI = {"model_type": "phi3", "attention_bias": False, "embd_pdrop": 0.0, "hidden_act": "silu", "hidden_size": 3072,
        "intermediate_size": 8192, "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": False,
        "vocab_size": 32064}
FOUR = {**MINI, "hidden_size": 5120, "intermediate_size": 17920, "max_position_embeddings": 16384,
        "num_attention_heads": 40, "num_hidden_layers": 40, "num_key_value_heads": 10, "rope_theta": 250000,
        "original_max_position_embeddings": 16384, "sliding_window": None, "vocab_size": 100352}
READ = DecoderConfig(vocab=32064, width=3072, layers=32, heads=32, mlp_dim=8192, norm_eps=1e-5, context=4096,
                     window=2047, pattern=("local",))


def test_real_ones_are_read_and_written():
  assert families.describe(MINI) == READ
  four = families.describe(FOUR)
  assert (four.kv_heads, four.window, four.rope_theta, four.rope_part) == (10, 0, 250000.0, 1.0)
  part = families.describe({**FOUR, "partial_rotary_factor": 0.75})
  assert (part.rotated, families.of(part)) == (96, "phi3")
  for config in (READ, four, part):
    assert families.describe({"model_type": "phi3", **families.phi3.written(config)}) == config


def test_longrope_is_refused_by_name():
  with pytest.raises(ValueError, match="rope_type is 'longrope', which no model here has .it has other frequencies"):
    families.describe({**MINI, "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}})


def test_rows_of_a_tensor_are_queries_then_keys_then_values(make):
  """And gate before up: the order in which transformers splits them."""
  home = make("phi3")
  params, entries = hf.load(home).params["layers"]["block"], safetensors.entries(home)
  q, k, v = (np.asarray(params["attn"][name]["kernel"])[1] for name in "qkv")
  rows = np.concatenate([x.reshape(24, -1).T for x in (q, k, v)])
  np.testing.assert_array_equal(rows, entries["model.layers.1.self_attn.qkv_proj.weight"].read())
  gate, up = (np.asarray(params["mlp"][name]["kernel"])[2].T for name in ("gate", "up"))
  np.testing.assert_array_equal(np.concatenate([gate, up]),
                                entries["model.layers.2.mlp.gate_up_proj.weight"].read())


def test_adapters_of_peft_are_refused():
  with pytest.raises(ValueError, match=r"phi3 keeps several projections in one tensor \(qkv_proj\)"):
    peft.names_of(families.describe({**MINI, "sliding_window": None, "partial_rotary_factor": 0.5}))
