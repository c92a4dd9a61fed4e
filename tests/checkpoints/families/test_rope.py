"""Rotary keys of transformers before and after 5 are read alike, and written so that both read them."""

import pytest

from sftrl_jax.checkpoints.families import rope
from sftrl_jax.checkpoints.families.keys import Keys
from sftrl_jax.models import DecoderConfig

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
READ = {"rope_theta": 5e5, "rope_scaling": "llama3", "rope_factor": 8.0, "rope_low": 1.0, "rope_high": 4.0,
        "rope_context": 8192}


@pytest.mark.parametrize("values, fields", [
    ({"rope_theta": 5e5}, {"rope_theta": 5e5}), ({}, {"rope_theta": 1e4}), ({"rope_theta": 500}, {"rope_theta": 500.0}),
    ({"rope_theta": 5e5, "rope_scaling": LLAMA3}, READ), ({"rope_parameters": {**LLAMA3, "rope_theta": 5e5}}, READ),
    ({"rope_scaling": {"type": "linear", "factor": 2}},
     {"rope_theta": 1e4, "rope_scaling": "linear", "rope_factor": 2.0}),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}, "rope_scaling": None}, {"rope_theta": 7.0}),
], ids=str)
def test_both_spellings_are_read(values, fields):
  assert rope.read(Keys(values, defaults={"rope_theta": 1e4})) == fields


@pytest.mark.parametrize("fields", [{}, {"rope_scaling": "linear", "rope_factor": 4.0}, {**READ, "rope_theta": 3e4}])
def test_what_is_written_is_read_again_in_either_spelling(fields):
  config = DecoderConfig(vocab=4, **fields)
  keys = rope.write(config)
  for names in (("rope_parameters",), ("rope_theta", "rope_scaling")):
    spelling = {name: keys[name] for name in names}
    assert DecoderConfig(vocab=4, **rope.read(Keys(spelling))) == config


@pytest.mark.parametrize("values, message", [
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn', .* known: default, linear, llama3"),
    ({"rope_scaling": {"rope_type": "linear"}}, "rope factor is None"), ({"rope_theta": -1}, "rope_theta is -1"),
    ({"rope_parameters": {"full_attention": {}}}, "rope_parameters has full_attention"),
    ({"rope_scaling": 3}, "must be a table"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"), ({"rope_parameters": {"rope_theta": "x"}}, "'x'"),
], ids=str)
def test_what_no_model_here_has_is_told(values, message):
  with pytest.raises(ValueError, match=message):
    rope.read(Keys(values, defaults={"rope_theta": 1e4}))
