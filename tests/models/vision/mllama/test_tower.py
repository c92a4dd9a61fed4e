"""Features of a picture are its own; what a tile that is not there holds changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.models.vision.mllama.config import MllamaFields
from sftrl_jax.models.vision.mllama.tower import Tower, tiles_of
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.pictures.processors.mllama import MllamaProcessor

CONFIG = MllamaFields(vocab=16, image_id=8, tile=8, patch=4, tower_side=2, tower_width=8, tower_heads=2,
                      tower_mlp_dim=12, tower_layers=1, intermediate=(0,), remat="none")


@pytest.fixture(scope="module")
def tower():
  """(apply, pictures of one tile and of two)"""
  random = np.random.default_rng(0)
  processor = MllamaProcessor(8, 4, "bilinear")
  pictures = np.concatenate([processor.tiles(random.integers(0, 256, (*size, 3)).astype(np.uint8))
                             for size in ((8, 8), (8, 16))])
  module = Tower(CONFIG)
  shapes = jax.eval_shape(module.init, jax.random.key(0), pictures)["params"]
  params = jax.tree.map(lambda x: 0.3 + 0.3 * random.normal(size=x.shape).astype(np.float32), shapes)   # open gates
  return jax.jit(lambda pictures: module.apply({"params": params}, pictures)), pictures


def test_pictures_of_a_batch_are_read_each_by_itself(tower):
  apply, pictures = tower
  both = apply(pictures)
  assert both.shape == (2, 4 * CONFIG.tile_tokens, 2 * CONFIG.tower_width)
  for row in range(2):
    np.testing.assert_allclose(apply(np.stack([pictures[row]] * 2))[0], both[row], atol=1e-5)


def test_a_kernel_computes_the_features_of_pictures_with_fewer_tiles(tower):
  """On eight devices that divide pictures and heads, as on one; with its gradients."""
  pictures, random = np.concatenate([tower[1]] * 2), np.random.default_rng(1)
  shapes = jax.eval_shape(Tower(CONFIG).init, jax.random.key(0), pictures)["params"]
  params = jax.tree.map(lambda x: 0.3 + 0.3 * random.normal(size=x.shape).astype(np.float32), shapes)
  squares = lambda config: jax.jit(jax.value_and_grad(
      lambda params: jnp.sum(jnp.square(Tower(config).apply({"params": params}, pictures)))))
  want = squares(CONFIG)(params)
  with jax.set_mesh(meshes.make(meshes.MeshConfig(2, 2, 2))), rules.applied():
    got = squares(dataclasses.replace(CONFIG, attention="splash", remat="full"))(params)
  for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert np.linalg.norm(mine - np.asarray(theirs)) <= 1e-2 * np.linalg.norm(theirs)


def test_pixels_of_tiles_that_are_not_there_are_not_read(tower):
  apply, pictures = tower
  other = pictures.copy()
  other[0, 8:32], other[1, 16:32], other[:, 32, 1:] = 200, 90, 7
  np.testing.assert_array_equal(apply(other), apply(pictures))
  other[1, 8] = 255 - other[1, 8]
  assert not np.array_equal(apply(other)[1], apply(pictures)[1])


def test_which_tiles_there_are_follows_from_the_id_of_the_shape():
  counts = tiles_of(CONFIG, np.arange(9)).sum(axis=1).tolist()
  assert counts == [0, 1, 2, 3, 4, 2, 4, 3, 4]


def test_a_picture_of_another_size_is_refused(tower):
  with pytest.raises(ValueError, match="id of its shape"):
    tower[0](tower[1][:, :-1])
