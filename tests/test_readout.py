"""Products become logits: divided, capped, and without probability for columns that are no ids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.readout import Readout


@pytest.mark.parametrize("readout", [Readout(), Readout(divisor=8.0), Readout(softcap=2.0), Readout(3, 4.0, 1.5),
                                     Readout(softcap=2.0, barred=(1,)), Readout(4, barred=(0, 2))])
def test_logits_and_their_gradient_are_those_of_the_formula(readout):
  products = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5)) * 6, jnp.float32)
  scaled = products / readout.divisor
  formula = readout.softcap * jnp.tanh(scaled / readout.softcap) if readout.softcap else scaled
  logits, known = readout.logits(products), (np.arange(5) < (readout.ids or 5)) & ~np.isin(np.arange(5), readout.barred)
  np.testing.assert_allclose(logits[:, known], formula[:, known], rtol=1e-6)
  assert (logits[:, ~known] == -1e9).all()
  d_logits = jnp.asarray(np.where(known, 1.0 + np.arange(5), 0.0) * np.ones((2, 1)), jnp.float32)
  wanted = jax.grad(lambda products: jnp.sum(readout.logits(products) * d_logits))(products)
  np.testing.assert_allclose(readout.backward(d_logits, logits), wanted, rtol=1e-5, atol=1e-6)
