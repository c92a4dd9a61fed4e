"""What is computed of a token in a tile does not depend on how many others there are, nor on which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.models import tiles

RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(70, 24)), jnp.float32)
KERNEL = jnp.asarray(RANDOM.normal(size=(24, 50)), jnp.float32)


@jax.jit
def normalised(x):
  """What XLA rounds by the number of rows: a product, a maximum, a sum."""
  return tiles.each_of_last_axis(lambda x_MD: jax.nn.log_softmax(x_MD @ KERNEL, axis=-1), x)


def test_the_bits_of_a_token_are_the_same_in_any_batch():
  whole = np.asarray(normalised(X))
  np.testing.assert_allclose(whole, jax.nn.log_softmax(X @ KERNEL, axis=-1), rtol=1e-5)
  for first, count in ((0, 1), (3, 7), (11, 16), (20, 33)):
    np.testing.assert_array_equal(normalised(X[first : first + count]), whole[first : first + count])
  np.testing.assert_array_equal(normalised(X.reshape(7, 10, 24)).reshape(70, 50), whole)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_tokens_are_computed_once_by_their_keys_and_the_others_never(share):
  keys, computed = RANDOM.integers(0, 9, 70).astype(np.int32), RANDOM.random(70) < share
  order = tiles.ascending(jnp.asarray(keys), jnp.asarray(computed))
  places = np.asarray(order.places_A)[: int(order.tiles) * tiles.TOKENS]
  real = places[places < 70]
  assert sorted(real) == np.flatnonzero(computed).tolist() and (np.diff(keys[real]) >= 0).all()
  doubled = tiles.each(lambda x_MD: 2 * x_MD, order, X)
  np.testing.assert_array_equal(doubled, np.where(computed[:, None], 2 * X, 0.0))


def test_a_function_has_the_value_of_one_and_the_gradient_of_the_other():
  function = tiles.value_and_gradient_of(lambda scale, x: jnp.round(scale * x), lambda scale, x: scale * x)
  value, gradient = jax.value_and_grad(lambda x: function(jnp.float32(3.0), x))(jnp.float32(1.1))
  assert (value, gradient) == (3.0, 3.0)
