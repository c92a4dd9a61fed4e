"""config.json, names and preprocessor_config.json of Llama-3.2-Vision."""

import dataclasses

import jax
import pytest

from sftrl_jax import models, trees
from sftrl_jax.checkpoints import families, fill
from sftrl_jax.checkpoints.families.keys import Keys
from sftrl_jax.checkpoints.families.known import mllama

RELEASED = {   # Llama-3.2-11B-Vision
    "model_type": "mllama", "image_token_index": 128256,
    "text_config": {
        "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38], "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 131072, "model_type": "mllama_text_model", "num_attention_heads": 32,
        "num_hidden_layers": 40, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "vocab_size": 128256,
        "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0},
    "vision_config": {
        "attention_heads": 16, "hidden_act": "gelu", "hidden_size": 1280, "image_size": 560, "intermediate_size": 5120,
        "intermediate_layers_indices": [3, 7, 15, 23, 30], "max_num_tiles": 4, "model_type": "mllama_vision_model",
        "norm_eps": 1e-5, "num_global_layers": 8, "num_hidden_layers": 32, "patch_size": 14, "vision_output_dim": 7680,
        "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]}}


def test_the_released_model_has_eleven_billion_parameters_and_every_tensor_a_name():
  config = families.describe(RELEASED)
  assert (config.layers, config.tile_tokens, config.tower_output, config.tower_activation) == (
      32, 1601, 7680, "erf_gelu")
  shapes = fill.shapes_of(config)
  assert 10.5e9 < trees.size(shapes) < 10.8e9
  names = fill.named(shapes, families.names_of(mllama, config))
  assert len(names) == len(set(names)) and names["language_model.model.embed_tokens.weight"] == (128264, 4096)
  assert names["language_model.lm_head.weight"] == (128256, 4096)
  assert names["language_model.model.layers.38.cross_attn.k_proj.weight"] == (1024, 4096)
  assert names["language_model.model.layers.39.self_attn.k_proj.weight"] == (1024, 4096)
  assert "language_model.model.layers.38.self_attn.k_proj.weight" not in names
  assert names["vision_model.gated_positional_embedding.tile_embedding.weight"] == (9, 4 * 1601 * 1280)
  assert names["vision_model.global_transformer.layers.7.gate_ffn"] == (1,)


def test_a_model_is_read_from_what_was_written_of_it():
  config = families.describe(RELEASED)
  assert families.of(config) == "mllama"
  assert families.describe({"model_type": "mllama", **mllama.written(config)}) == config


@pytest.mark.parametrize("theirs", [
    "language_model.model.layers.3.cross_attn_attn_gate", "model.language_model.layers.3.cross_attn_attn_gate",
    "language_model.layers.3.cross_attn_attn_gate"])
def test_tensors_have_one_name_in_every_spelling(theirs):
  assert families.spelled(mllama, theirs) == "language_model.model.layers.3.cross_attn_attn_gate"
  assert families.spelled(mllama, "lm_head.weight") == "language_model.lm_head.weight"
  assert families.spelled(mllama, "model.vision_model.class_embedding") == "vision_model.class_embedding"


def test_preprocessor_gives_tiles():
  fields = mllama.read_pictures(Keys({"size": {"height": 560, "width": 560}, "max_image_tiles": 4, "resample": 2,
                                      "image_mean": [0.48145466, 0.4578275, 0.40821073],
                                      "image_std": [0.26862954, 0.26130258, 0.27577711]}, "p"))
  assert (fields["tile"], fields["tiles"], fields["image_resample"]) == (560, 4, "bilinear")
  config = dataclasses.replace(families.describe(RELEASED), **fields)
  assert mllama.written_pictures(config)["preprocessor_config.json"]["image_mean"][1] == 0.4578275


@pytest.mark.parametrize(("section", "name", "value"), [
    ("text_config", "cross_attention_layers", None), ("text_config", "cross_attention_layers", [40]),
    ("vision_config", "vision_output_dim", 7681), ("vision_config", "supported_aspect_ratios", [[1, 1]]),
    ("vision_config", "hidden_act", "mish")])
def test_what_no_model_here_has_is_refused_by_name(section, name, value):
  with pytest.raises(ValueError, match="cross" if "cross" in name else name):
    families.describe({**RELEASED, section: {**RELEASED[section], name: value}})


def test_every_parameter_has_one_sharding_rule():
  from sftrl_jax.parallel import rules
  small = dataclasses.replace(families.describe(RELEASED), layers=4, cross=(3,), tower_layers=31)
  model = models.build(small)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  for tree in (shapes, jax.eval_shape(model.decoding, shapes)):
    for path, leaf in trees.leaves({"model": tree}).items():
      rules.axes_of(path, leaf.shape)
