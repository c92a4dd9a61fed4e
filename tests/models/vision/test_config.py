"""The config of a model that reads pictures."""

import dataclasses

import pytest

from sftrl_jax import models
from sftrl_jax.models.vision.config import VisionConfig
from sftrl_jax.models.vision.model import VisionModel
from sftrl_jax.models.vision.tiny import TinyVisionConfig

CONFIG = TinyVisionConfig(vocab=9, width=16, heads=2, image_id=8)


def test_a_family_says_how_many_features_a_picture_has_and_what_they_cost():
  assert CONFIG.barred_ids == (8,)
  with pytest.raises(TypeError, match="abstract.*image_tokens.*tower_flops"):
    VisionConfig(vocab=9, image_id=8)


def test_a_family_says_what_its_features_are():
  with pytest.raises(TypeError, match="abstract.*features.*init_vision"):
    VisionModel(CONFIG)


@pytest.mark.parametrize("change, rule", [
    (dict(image_height=0), "image_height is 0"), (dict(image_width=10**6), "image_width is 1000000"),
    (dict(images=-1), "images is -1"), (dict(image_id=9), "image_id is 9"), (dict(image_id=-1), "image_id is -1"),
    (dict(width=0), "width is 0")])
def test_a_wrong_field_is_named(change, rule):
  with pytest.raises(ValueError, match=rule):
    dataclasses.replace(CONFIG, **change)


def test_it_is_a_decoder_config():
  assert isinstance(CONFIG, models.DecoderConfig)
