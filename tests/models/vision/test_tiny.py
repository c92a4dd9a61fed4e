"""The small model: its sizes are those of its parts, and its features those of the formula."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import models
from sftrl_jax.models import flops
from sftrl_jax.models.vision.tiny import TinyVisionConfig
from sftrl_jax.parallel import rules


def test_features_are_the_cells_of_a_picture(vision, shown):
  """A feature of one picture does not depend on the others of its row, and unused places change nothing."""
  first, second = shown[2].pictures
  blank = np.zeros_like(first)
  features = jax.jit(vision.model.features)
  both, alone = (np.asarray(features(vision.params, np.stack(row)[None])) for row in ([first, second], [first, blank]))
  assert both.shape == (1, 4, 16)
  np.testing.assert_allclose(both[0, :2], alone[0, :2], atol=1e-6)
  assert np.abs(both[0, 2:] - alone[0, 2:]).max() > 1e-3


@pytest.mark.parametrize("cell", [16, 32])
def test_a_feature_is_that_of_its_own_cell(config, cell):
  """In rows from left to right: of a picture that is grey but for one cell, the others read the same."""
  side = 64
  model = models.build(dataclasses.replace(config, image_height=side, image_width=side, cell=cell, images=1))
  params, images = model.init(jax.random.key(0)), np.full((2, 1, side, side, 3), 90, np.uint8)
  images[1, 0, side - 8 :, :8] = 255   # a corner, which no window of another cell sees
  before, after = np.asarray(jax.jit(model.features)(params, images))
  changed = np.flatnonzero(np.abs(after - before).max(-1) > 1e-6)
  assert len(before) == (side // cell) ** 2 and changed.tolist() == [len(before) - side // cell]


def test_pixels_are_read_from_minus_scale_to_scale(config):
  """Nothing but the pixels differs: a picture of half the contrast is the same picture at twice the scale."""
  model, loud = (models.build(dataclasses.replace(config, pixel_scale=scale)) for scale in (1.0, 2.0))
  params = model.init(jax.random.key(0))
  image = np.random.default_rng(0).integers(0, 2, (1, 2, 32, 64, 3)).astype(np.uint8) * 255
  faint = np.where(image, 191.25, 63.75)   # between two levels: as a float, which features take alike
  np.testing.assert_allclose(model.features(params, image), loud.features(params, jnp.asarray(faint)), atol=1e-5)


@pytest.mark.parametrize("cell", [16, 32])
def test_flops_of_the_tower_are_those_of_its_products(config, cell):
  """By the sizes of the arrays: outputs of each convolution times its kernel, and the connector once a feature."""
  config = dataclasses.replace(config, cell=cell)
  shapes = jax.eval_shape(models.build(config).init, jax.random.key(0))["vision"]
  count, side = 0, (config.image_height, config.image_width)
  for number in range(3):
    side = tuple(size // 2 for size in side)
    count += math.prod(side) * shapes["tower"]["conv"][str(number)]["kernel"].size
  count += config.image_tokens * sum(shapes["connector"][name]["kernel"].size for name in ("up", "down"))
  assert config.tower_flops() == 2 * count
  assert flops.pictures(config, 3) == 3 * 2 * config.tower_flops()
  assert flops.pictures(config, 3, training=True) == 3 * flops.pictures(config, 3)
  assert flops.pictures(config, 3, training=True, adapters=8) == flops.pictures(config, 3)
  assert flops.pictures(config, 3, training=True, adapters=8, adapted=True) == 2 * flops.pictures(config, 3)
  assert 2 * flops.pictures(config, 3, images=1) == flops.pictures(config, 3)
  assert flops.pictures(models.DecoderConfig(vocab=9), 3, training=True) == 0.0


def test_what_decoding_reads_is_without_the_tower(vision, text):
  model, _ = text
  decoding = {name: tree for name, tree in vision.decoding.items() if name != "vision"}
  sizes = [flops.decode_bytes(config, params, 4, 9) for config, params in (
      (vision.model.config, vision.decoding), (model.config, decoding))]
  assert sizes[0] == sizes[1]


def test_every_parameter_has_one_rule(config, leaves):
  shapes = jax.eval_shape(models.build(config).init, jax.random.key(0))
  for path, leaf in leaves({"model": shapes}).items():
    assert len(rules.axes_of(path, leaf.shape)) == leaf.ndim


@pytest.mark.parametrize("change, rule", [
    (dict(image_height=40), "multiple of 32"), (dict(cell=20), "cell is 20"), (dict(cell=0), "cell is 0"),
    (dict(cell=64), "multiple of 64"), (dict(channels=(8, 16)), "channels is"), (dict(images=0), "images is 0"),
    (dict(connector_std=0.0), "positive"), (dict(image_id=24), "image_id is 24"),
    (dict(pixel_scale=0.0), "pixel_scale")])
def test_a_wrong_field_is_named(config, change, rule):
  with pytest.raises(ValueError, match=rule):
    dataclasses.replace(config, **change)


def test_the_prototypes_size(leaves):
  """vision_twin.md, section 2: tower and connector have 80,088 parameters, and positions of three features."""
  shapes = jax.eval_shape(models.build(TinyVisionConfig(vocab=63, image_id=62)).init, jax.random.key(0))
  assert sum(leaf.size for leaf in leaves(shapes["vision"]).values()) == 80_088 + 3 * 64
