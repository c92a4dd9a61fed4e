"""Tiles are those of transformers' processor with Pillow."""

import numpy as np
import pytest
from PIL import Image

from sftrl_jax.pictures.processors.mllama import MllamaProcessor, shapes

SIZES = [(1, 1), (386, 386), (512, 2048), (640, 333), (40, 30), (31, 400), (400, 31), (48, 96)]
TILE, TILES = 48, 4


@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_transformers(size):
  module = pytest.importorskip("transformers.models.mllama.image_processing_pil_mllama")
  theirs = module.MllamaImageProcessorPil(size={"height": TILE, "width": TILE}, max_image_tiles=TILES,
                                          image_mean=[0.5] * 3, image_std=[0.5] * 3)
  picture = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3)).astype(np.uint8)
  expected = theirs(Image.fromarray(picture), return_tensors="np")
  ours = MllamaProcessor(TILE, TILES, "bilinear")
  image, = ours.tiles(picture)
  assert image[-1, 0, 0] == expected["aspect_ratio_ids"][0, 0]
  count = int(expected["aspect_ratio_mask"][0, 0].sum())
  assert np.prod(ours.layout(*size)) == count == np.prod(shapes(TILES)[image[-1, 0, 0] - 1])
  tiles = image[:-1].reshape(TILES, TILE, TILE, 3)[:count]
  normalised = ((tiles.astype(np.float32) / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2)
  np.testing.assert_allclose(normalised, expected["pixel_values"][0, 0, :count], atol=1e-5)


def test_a_text_has_one_placeholder_for_a_picture_of_any_shape():
  assert MllamaProcessor(TILE, TILES, "bilinear").ids(2, 2, 7) == [7]
