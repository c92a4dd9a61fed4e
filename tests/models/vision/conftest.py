"""A tiny vision-language model, its text model alone, and rows with 0, 1 and 2 pictures."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import models, trees
from sftrl_jax.inputs import Inputs
from sftrl_jax.models.vision.tiny import TinyVisionConfig

IMAGE = 23
CONFIG = TinyVisionConfig(vocab=24, width=16, layers=2, heads=2, mlp="plain", activation="relu", remat="none", unroll=2,
                          init_std=0.6, image_id=IMAGE, image_height=32, image_width=64, images=2,
                          channels=(2, 3, 4), connector=8, connector_std=0.6)
# (ids, pictures): a picture has two features.
ROWS = [([1, 4, 5, 6, 7], 0), ([1, IMAGE, IMAGE, 5, 6, 8], 1), ([1, IMAGE, IMAGE, 4, IMAGE, IMAGE, 9, 3], 2)]


@dataclasses.dataclass(frozen=True)
class Row:
  """ids, and the pictures [Y, X, 3] of their placeholders."""

  ids: list
  pictures: list


@pytest.fixture(scope="session")
def config():
  return CONFIG


@pytest.fixture(scope="session")
def vision():
  """The model, its parameters, and its functions compiled once for all tests."""
  model = models.build(CONFIG)
  params = jax.jit(model.init)(jax.random.key(1))
  decoding = jax.jit(model.decoding)(params)
  return types.SimpleNamespace(
      model=model, params=params, decoding=decoding, logits=jax.jit(model.logits),
      extend=jax.jit(functools.partial(model.extend, decoding)),
      prefill=jax.jit(functools.partial(model.prefill, decoding)))


@pytest.fixture(scope="session")
def text(vision):
  """(model of text, parameters) with the decoder of the vision model."""
  fields = {field.name: getattr(CONFIG, field.name) for field in dataclasses.fields(models.DecoderConfig)}
  params = {name: tree for name, tree in vision.params.items() if name != "vision"}
  return models.build(models.DecoderConfig(**fields)), params


@pytest.fixture(scope="session")
def shown():
  """Rows of ids with random pictures."""
  random = np.random.default_rng(3)
  draw = lambda: random.integers(0, 256, (CONFIG.image_height, CONFIG.image_width, 3)).astype(np.uint8)
  return [Row(ids, [draw() for _ in range(count)]) for ids, count in ROWS]


@pytest.fixture(scope="session")
def with_images():
  """with_images(inputs, pictures of each row) -> Inputs."""

  def add(batch, pictures):
    images = np.zeros((len(batch.tokens_BT), CONFIG.images, CONFIG.image_height, CONFIG.image_width, 3), np.uint8)
    for row, own in enumerate(pictures):
      for place, picture in enumerate(own):
        images[row, place] = picture
    return Inputs(*(jnp.asarray(x) for x in (batch.tokens_BT, batch.positions_BT, batch.segments_BT, images)))

  return add


@pytest.fixture(scope="session")
def leaves():
  return trees.leaves
