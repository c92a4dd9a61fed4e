"""A scalar is read off, and by default nothing is pulled back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import trees
from sftrl_jax.models import heads


def head():
  return {"kernel": jnp.arange(4.0) - 1, "bias": jnp.float32(0.5)}


def test_a_newborn_head_says_zero():
  hidden = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
  assert (heads.scalar(heads.init(4), hidden) == 0).all()


def test_a_scalar_is_affine_in_the_hidden_state():
  hidden = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
  np.testing.assert_allclose(heads.scalar(head(), hidden), hidden @ head()["kernel"] + 0.5, rtol=1e-5, atol=1e-6)


def test_values_are_f32_whatever_the_trunk():
  hidden = jnp.ones((1, 2, 4), jnp.bfloat16)
  assert heads.scalar(head(), hidden).dtype == jnp.float32


def test_the_trunk_is_moved_only_when_asked():
  hidden = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
  pull = lambda **how: jax.grad(lambda h: jnp.sum(heads.scalar(head(), h, **how)))(hidden)
  assert (pull() == 0).all()
  np.testing.assert_allclose(pull(stop_gradient=False), jnp.broadcast_to(head()["kernel"], hidden.shape), rtol=1e-6)
  own = jax.grad(lambda params: jnp.sum(heads.scalar(params, hidden)))(head())
  np.testing.assert_allclose(own["kernel"], hidden.sum((0, 1)), rtol=1e-5, atol=1e-6)
  assert own["bias"] == 6


def test_a_newborn_head_with_layers_says_zero_and_passes_a_gradient_on():
  hidden = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
  params = heads.init(4, (8, 5), seed=1)
  assert (heads.scalar(params, hidden) == 0).all()
  pull = jax.grad(lambda params: jnp.sum(heads.scalar(params, hidden)))(params)
  assert (pull["kernel"] != 0).any() and pull["kernel"].shape == (5,)
  jax.tree.map(np.testing.assert_array_equal, params, heads.init(4, (8, 5), seed=1))
  assert (params["hidden"]["0"]["kernel"] != heads.init(4, (8, 5), seed=2)["hidden"]["0"]["kernel"]).any()


def test_layers_are_a_relu_network():
  random = np.random.default_rng(0)
  fill = lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32)
  params = jax.tree.map(fill, heads.init(4, (8, 5)))
  hidden = fill(np.zeros((2, 3, 4)))
  h = np.asarray(hidden)
  for layer in (params["hidden"]["0"], params["hidden"]["1"]):
    h = np.maximum(h @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
  np.testing.assert_allclose(heads.scalar(params, hidden), h @ np.asarray(params["kernel"]) + params["bias"], rtol=1e-4,
                             atol=1e-5)


def test_hidden_layers_keep_the_size_of_what_they_read():
  """With variance 2 / inputs, relu(h W) has the mean square of h."""
  params = heads.init(256, (512, 256))
  h = np.random.default_rng(0).normal(size=(64, 256))
  for number in "01":
    h = np.maximum(h @ np.asarray(params["hidden"][number]["kernel"]), 0)
    assert np.mean(h ** 2) == pytest.approx(1, rel=0.15)


def test_what_multiplies_is_every_kernel_and_a_linear_head_counts_nothing():
  assert heads.matmul_parameters(4, ()) == 0
  kernels = {path: leaf.size for path, leaf in trees.leaves(heads.init(4, (8, 5))).items() if path.endswith("kernel")}
  assert heads.matmul_parameters(4, (8, 5)) == sum(kernels.values()) == 4 * 8 + 8 * 5 + 5
