"""config.json and preprocessor_config.json of Idefics3 and SmolVLM, as the released ones are written."""

import copy

import pytest

from sftrl_jax.checkpoints import families
from sftrl_jax.checkpoints.families.keys import Keys
from sftrl_jax.checkpoints.families.known import idefics3

SMOLVLM = {   # SmolVLM-256M: what it omits has transformers' defaults
    "model_type": "idefics3", "image_token_id": 49190, "scale_factor": 4, "tie_word_embeddings": False,
    "vocab_size": 49280,
    "text_config": {
        "head_dim": 64, "hidden_size": 576, "intermediate_size": 1536, "is_llama_config": True, "model_type": "llama",
        "max_position_embeddings": 8192, "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
        "qk_layer_norms": False, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_theta": 100000,
        "use_resampler": False, "vocab_size": 49280},
    "vision_config": {"hidden_size": 768, "image_size": 512, "max_image_size": {"longest_edge": 512},
                      "model_type": "idefics3", "num_attention_heads": 12, "patch_size": 16,
                      "size": {"longest_edge": 2048}, "use_base_siglip": True}}
PREPROCESSOR = {
    "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True, "do_rescale": True,
    "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "max_image_size": {"longest_edge": 512},
    "resample": 1, "rescale_factor": 0.00392156862745098, "size": {"longest_edge": 2048}}


def changed(table, *path, value):
  table = copy.deepcopy(table)
  inner = table
  for name in path[:-1]:
    inner = inner[name]
  inner[path[-1]] = value
  return table


def test_the_released_smolvlm():
  config = families.describe(SMOLVLM)
  assert (config.layers, config.width, config.kv_heads, config.rope_theta, config.norm_eps) == (30, 576, 3, 1e5, 1e-5)
  assert (config.tower_layers, config.tower_width, config.tower_mlp_dim) == (12, 768, 3072)
  assert (config.grid, config.image_tokens, config.image_id, config.tower_activation) == (
      (32, 32), 64, 49190, "gelu")
  larger = changed(changed(SMOLVLM, "vision_config", "image_size", value=384), "vision_config", "patch_size", value=14)
  assert families.describe(changed(larger, "scale_factor", value=3)).image_tokens == 81


def test_a_model_is_read_from_what_was_written_of_it():
  for layout in ("idefics3", "smolvlm"):
    config = families.describe({**SMOLVLM, "model_type": layout})
    assert families.of(config) == layout
    assert families.describe(idefics3.written(config)) == config


def test_the_released_preprocessor():
  fields = idefics3.read_pictures(Keys(PREPROCESSOR, "p", idefics3.PICTURE_DEFAULTS))
  assert fields == dict(image_height=512, image_width=512, image_longest=2048, image_splitting=True, images=17,
                        image_resample="lanczos", image_mean=(0.5,) * 3, image_std=(0.5,) * 3)


@pytest.mark.parametrize(("path", "value"), [
    (("text_config", "model_type"), "mistral"), (("text_config", "use_resampler"), True),
    (("vision_config", "hidden_act"), "mish"), (("vision_config", "num_channels"), 1), (("text_config",), None),
    (("vision_config", "image_size"), [512, 256]), (("image_token_id",), 60000), (("scale_factor",), 5)])
def test_what_no_model_here_has_is_refused_by_name(path, value):
  names = {"image_token_id": "image_id", "scale_factor": "shuffle"}
  with pytest.raises(ValueError, match=names.get(path[-1], path[-1])):
    families.describe(changed(SMOLVLM, *path, value=value))


@pytest.mark.parametrize(("name", "value"), [
    ("do_rescale", False), ("do_normalize", False), ("rescale_factor", 1.0), ("resample", 4), ("image_mean", [0.5]),
    ("image_std", [0, 1, 1]), ("size", {"shortest_edge": 3}), ("max_image_size", 5)])
def test_pixels_that_are_read_in_another_way_are_refused_by_name(name, value):
  with pytest.raises(ValueError, match=f"{name}|edge"):
    idefics3.read_pictures(Keys({**PREPROCESSOR, name: value}, "p", idefics3.PICTURE_DEFAULTS))
