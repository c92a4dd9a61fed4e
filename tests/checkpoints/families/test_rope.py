"""Rotary keys of transformers before and after 5 are read alike, and written so that both read them."""

import pytest

from sftrl_jax.checkpoints.families import rope
from sftrl_jax.checkpoints.families.keys import Keys
from sftrl_jax.models import DecoderConfig

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}   # of Qwen 2.5's README
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


# The figures are those of transformers: 0.1 log(factor) + 1.
@pytest.mark.parametrize("change, low, high, gain", [
    ({}, 1.0, 32.0, 1.1386294), ({"beta_slow": 2, "beta_fast": 16}, 2.0, 16.0, 1.1386294),
    ({"attention_factor": 0.9}, 1.0, 32.0, 0.9), ({"mscale": 2.0, "mscale_all_dim": 1.0}, 1.0, 32.0, 1.1217521)])
def test_yarn_is_read_as_qwen_writes_it(change, low, high, gain):
  fields = rope.read(Keys({"rope_theta": 1e6, "rope_scaling": {**YARN, **change}}))
  assert fields.pop("rope_gain") == pytest.approx(gain, rel=1e-6)
  assert fields == {"rope_theta": 1e6, "rope_scaling": "yarn", "rope_factor": 4.0, "rope_context": 32768,
                    "rope_low": low, "rope_high": high}


@pytest.mark.parametrize("fields", [
    {}, {"rope_scaling": "linear", "rope_factor": 4.0}, {**READ, "rope_theta": 3e4},
    {**READ, "rope_scaling": "yarn", "rope_gain": 1.2}])
def test_what_is_written_is_read_again_in_either_spelling(fields):
  config = DecoderConfig(vocab=4, **fields)
  keys = rope.write(config)
  for names in (("rope_parameters",), ("rope_theta", "rope_scaling")):
    spelling = {name: keys[name] for name in names}
    assert DecoderConfig(vocab=4, **rope.read(Keys(spelling))) == config


@pytest.mark.parametrize("values, message", [
    ({"rope_scaling": {"rope_type": "ntk", "factor": 4.0}}, "is 'ntk', .* known: default, linear, llama3, yarn"),
    ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "is 'dynamic', .*change with the length of the row"),
    ({"rope_scaling": {"type": "longrope"}}, "is 'longrope', .*other frequencies for rows beyond the first context"),
    ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "original_max_position_embeddings is None"),
    ({"rope_scaling": {**YARN, "truncate": False}}, "truncate is False"),
    ({"rope_scaling": {**YARN, "beta_fast": -1}}, "rope beta_fast is -1; it must be a positive number"),
    ({"rope_scaling": {"rope_type": "linear"}}, "rope factor is None"), ({"rope_theta": -1}, "rope_theta is -1"),
    ({"rope_parameters": {"full_attention": {}}}, "rope_parameters has full_attention"),
    ({"rope_scaling": 3}, "must be a table"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"), ({"rope_parameters": {"rope_theta": "x"}}, "'x'"),
], ids=str)
def test_what_no_model_here_has_is_told(values, message):
  with pytest.raises(ValueError, match=message):
    rope.read(Keys(values, defaults={"rope_theta": 1e4}))
