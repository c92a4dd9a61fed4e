"""A scalar is read off, and by default nothing is pulled back."""

import jax
import jax.numpy as jnp
import numpy as np

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
