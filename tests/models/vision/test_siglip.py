"""The tower reads patches row by row, at places counted by integers, with norms in f32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import trees
from sftrl_jax.models.vision.siglip import ACTIVATIONS, LayerNorm, Siglip, TowerConfig, cut, patches, positions


@dataclasses.dataclass(frozen=True)
class Alone(TowerConfig):
  """A tower without a connector."""

  image_tokens = 1

  def tower_flops(self):
    return 0.0


CONFIG = Alone(vocab=8, image_id=3)


def sized(side, table, patch=4):
  return dataclasses.replace(CONFIG, image_height=side, image_width=side, patch=patch, tower_side=table)


@pytest.mark.parametrize("count", [14, 26, 27, 30, 32, 64])
def test_a_picture_of_the_tables_size_takes_every_place_once(count):
  np.testing.assert_array_equal(positions(sized(4 * count, count)), np.arange(count**2))


def test_a_smaller_and_a_larger_picture_are_laid_over_the_table():
  np.testing.assert_array_equal(positions(sized(8, 4)), [0, 2, 8, 10])
  np.testing.assert_array_equal(positions(sized(16, 2)), [0, 0, 1, 1] * 2 + [2, 2, 3, 3] * 2)


def test_patches_are_cut_row_by_row_and_their_pixels_too():
  picture = np.arange(16).reshape(1, 4, 4, 1).repeat(3, axis=-1)
  rows = np.asarray(cut(jnp.asarray(picture), 2))[0, :, ::3]
  np.testing.assert_array_equal(rows, [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])


def test_pixels_are_normalised_by_channel_and_those_beyond_the_last_patch_left_out():
  config = dataclasses.replace(sized(6, 1), image_mean=(0.1, 0.2, 0.3), image_std=(0.5, 0.6, 0.7))
  picture = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3)).astype(np.uint8)
  expected = (picture[:, :4, :4] / 255 - config.image_mean) / config.image_std
  np.testing.assert_allclose(patches(config, picture)[:, 0], expected.reshape(2, -1), atol=1e-6)
  with pytest.raises(ValueError, match=r"\(5, 6, 3\)"):
    patches(config, picture[:, :5])


@pytest.mark.parametrize("remat", ["none", "light"])
def test_a_head_at_a_time_the_tower_says_the_same(remat):
  """With its gradients; on CPUs pictures of more than 320 patches are read so."""
  images = np.random.default_rng(4).integers(0, 256, (2, 80, 80, 3)).astype(np.uint8)

  def read(kernel):
    tower = Siglip(dataclasses.replace(sized(80, 20), attention=kernel, remat=remat, init_std=0.2))
    worth = lambda params: jnp.sum(jnp.sin(tower.apply(params, images)))
    return jax.jit(jax.value_and_grad(worth)), jax.jit(tower.init)(jax.random.key(0), images)

  (at_once, params), (by_heads, _), (ours, _) = map(read, ("xla", "blocks", "auto"))
  want, got, automatic = at_once(params), by_heads(params), ours(params)
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(want[1]))   # a bias of keys moves no softmax
  for (path, leaf), other in zip(trees.leaves(want).items(), jax.tree.leaves(got), strict=True):
    np.testing.assert_allclose(other, leaf, rtol=1e-4, atol=1e-6 * largest, err_msg=path)
  assert all(np.array_equal(*leaves) for leaves in zip(*map(jax.tree.leaves, (got, automatic)), strict=True))


def test_a_norm_of_half_precision_is_computed_in_f32():
  x = jnp.asarray(np.random.default_rng(1).normal(1000, 1, (2, 3, 64)), jnp.bfloat16)
  params = {"scale": jnp.full((64,), 2.0), "bias": jnp.full((64,), 0.5)}
  exact = np.asarray(x, np.float64)
  exact = 2 * (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True) + 0.5
  normed = LayerNorm(1e-6).apply({"params": params}, x)
  assert normed.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(normed, np.float64), exact, rtol=2**-8, atol=1e-3)   # of the result's own


def test_activations_are_those_of_torch():
  torch = pytest.importorskip("torch")
  x = np.linspace(-4, 4, 101, dtype=np.float32)
  gelu = lambda approximate: torch.nn.functional.gelu(torch.from_numpy(x), approximate=approximate).numpy()
  quick = (torch.from_numpy(x) * torch.sigmoid(1.702 * torch.from_numpy(x))).numpy()
  for name, expected in (("gelu", gelu("tanh")), ("erf_gelu", gelu("none")), ("quick_gelu", quick)):
    np.testing.assert_allclose(jax.jit(ACTIVATIONS[name])(x), expected, atol=1e-6)


@pytest.mark.parametrize(("change", "name"), [
    (dict(tower_heads=5), "tower_heads"), (dict(patch=100), "patch"), (dict(tower_layers=0), "tower_layers"),
    (dict(tower_activation="mish"), "tower_activation"), (dict(image_std=(1, 0, 1)), "image_std"),
    (dict(image_mean=(0.5,)), "image_mean"), (dict(tower_norm_eps=0), "tower_norm_eps")])
def test_a_config_that_cannot_be_is_refused_by_name(change, name):
  with pytest.raises(ValueError, match=name):
    dataclasses.replace(CONFIG, **change)
