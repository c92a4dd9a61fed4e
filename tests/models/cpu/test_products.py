"""A projection by matrices is the projection."""

import jax
import numpy as np
import pytest

from sftrl_jax.models.cpu.products import by_matrices, flattened


@pytest.mark.parametrize("equation, x, kernel", [
    ("btd,dhc->bhtc", (2, 3, 8), (8, 2, 5)), ("bhtc,hcd->btd", (2, 4, 3, 5), (4, 5, 8)),
    ("btd,df->btf", (2, 3, 8), (8, 7))])
def test_a_projection_by_matrices_is_the_einsum(equation, x, kernel):
  random = np.random.default_rng(0)
  arrays = [random.normal(size=shape).astype(np.float32) for shape in (x, kernel)]
  want, back = jax.vjp(lambda *arrays: jax.numpy.einsum(equation, *arrays), *arrays)
  got, our_back = jax.vjp(lambda *arrays: by_matrices(equation, *arrays), *arrays)
  gradient = random.normal(size=want.shape).astype(np.float32)
  for left, right in zip((got, *our_back(gradient)), (want, *back(gradient)), strict=True):
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_products_are_flattened_where_one_cpu_computes(devices):
  with jax.set_mesh(jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices])):
    assert flattened(True) and not flattened(False)
    assert flattened("auto") == (devices == 1)
