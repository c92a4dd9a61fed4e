"""A tiny model that reads pictures, and generates pieces of 4 words."""

import dataclasses

import jax
import pytest

from sftrl_jax.models import build
from sftrl_jax.models.vision.tiny import TinyVisionConfig
from sftrl_jax.programs.experiment.network.parts import reading_pictures
from sftrl_jax.text.tokenizer import words


@pytest.fixture(scope="package")
def pictured_generator(generator):
  """It reads pictures of 32 x 32 pixels, which matter: embeddings and the connector are large."""
  tokenizer = words(tuple("abcdefghijklmnopqrstuvwxyz"), image=True)
  config = TinyVisionConfig(vocab=tokenizer.size, width=16, layers=1, heads=2, kv_heads=1, remat="none", init_std=0.6,
                            image_id=tokenizer.image, image_width=32, images=2, channels=(2, 3, 4), connector=8,
                            connector_std=0.6)
  model = build(config)
  decoding = jax.jit(lambda key: model.decoding(model.init(key)))(jax.random.key(3))
  return dataclasses.replace(generator, model=model, tokenizer=reading_pictures(tokenizer, model), params=decoding)
