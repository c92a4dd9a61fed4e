"""The order of blocks, the sizes that follow, and what cannot be."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from sftrl_jax.models import flops
from sftrl_jax.models.vision.mllama.config import EXTRA_IDS, MllamaFields
from sftrl_jax.models.vision.mllama.model import MllamaConfig
from sftrl_jax.programs.experiment.network import parts

CONFIG = MllamaFields(vocab=24, image_id=16)


def test_the_released_order_is_groups_of_five_blocks():
  released = dataclasses.replace(CONFIG, layers=32, cross=tuple(range(3, 40, 5)))
  assert released.group == ("text", "text", "text", "picture", "text") and len(released.order) == 40
  odd = dataclasses.replace(CONFIG, layers=4, cross=(0, 2))
  assert odd.group == odd.order == ("picture", "text", "picture", "text", "text", "text")


def test_sizes_follow_from_tiles():
  assert (CONFIG.image_height, CONFIG.image_width) == (4 * 64 + 1, 64) and CONFIG.image_tokens == 1
  assert (CONFIG.tile_tokens, CONFIG.padded_tile_tokens, CONFIG.picture_columns) == (17, 24, 4 * 17)
  assert dataclasses.replace(CONFIG, dtype="bfloat16").image_height == CONFIG.image_height


def test_a_tokenizer_of_our_own_gets_a_row_of_the_head_for_each_text():
  """vocab=0 is the tokenizer's size and the ids that the head lacks."""
  env, mesh = types.SimpleNamespace(words=()), Mesh(np.asarray(jax.devices()[:1]), "data")
  tokenizer = parts.build_tokenizer(parts.TokenizerConfig("bytes"), env, "scratch", None, dataclasses.replace(
      CONFIG, vocab=0, image_id=0))
  section = MllamaConfig(width=32, layers=1, heads=4, tower_layers=1)
  plain = {"start": "scratch", "model": {"name": "mllama"}}
  model = parts.build_model(plain, section, tokenizer, mesh, None)
  assert model.config.vocab - EXTRA_IDS == tokenizer.size and model.config.image_id == tokenizer.image
  with pytest.raises(parts.ConfigError, match=f"vocab is {tokenizer.size}, but the tokenizer"):
    parts.build_model(plain, dataclasses.replace(section, vocab=tokenizer.size), tokenizer, mesh, None)


def test_flops_of_a_token_count_its_head_its_blocks_and_all_places_of_pictures():
  c = CONFIG
  more = dataclasses.replace(c, cross=(1, 2))
  block = 2 * c.width * c.width + 3 * c.width * c.mlp_dim + 2 * c.width * c.picture_columns
  assert flops.forward(more, 3, 5) - flops.forward(c, 3, 5) == 2 * 3 * block
  assert flops.forward(c, 3, 5) - flops.forward(c, 3, 5, unembedded=1) == 2 * 2 * c.width * (c.vocab - EXTRA_IDS)


@pytest.mark.parametrize(("change", "name"), [
    (dict(cross=()), "cross"), (dict(cross=(9,)), "cross"), (dict(cross=(1, 1)), "cross"),
    (dict(intermediate=(2,)), "intermediate"), (dict(tie_embeddings=True), "tie_embeddings"), (dict(tile=0), "tile"),
    (dict(tower_side=3), "tower_side"), (dict(window=4, pattern=("local",)), "pattern"),
    (dict(global_layers=0), "global_layers")])
def test_a_config_that_cannot_be_is_refused_by_name(change, name):
  with pytest.raises(ValueError, match=name):
    dataclasses.replace(CONFIG, **change)
