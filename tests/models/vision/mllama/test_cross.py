"""A block that attends to pictures adds nothing where a token has none, nor while its gates are closed."""

import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.models.vision.mllama.config import MllamaFields
from sftrl_jax.models.vision.mllama.cross import CrossBlock

CONFIG = MllamaFields(vocab=16, image_id=8, width=16, heads=4, kv_heads=2, mlp_dim=12)


def test_closed_gates_and_tokens_without_pictures_change_nothing():
  random = np.random.default_rng(0)
  x, states = (jnp.asarray(random.normal(size=(2, size, 16)), jnp.float32) for size in (5, 7))
  allowed = jnp.asarray(random.integers(0, 2, (2, 5, 7)) > 0).at[0, :3].set(False).at[1, :, 0].set(True)
  block = CrossBlock(CONFIG)
  shapes = jax.eval_shape(block.init, jax.random.key(0), x, allowed, states)["params"]
  params = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)
  gates = lambda value: {**params, "attn_gate": value * np.ones(1), "mlp_gate": value * np.ones(1)}

  @jax.jit
  def both(params):
    apply = lambda *args: block.apply({"params": params}, *args)
    return apply(x, allowed, states), apply(x, allowed, None, apply(None, None, states))

  np.testing.assert_array_equal(both(gates(0.0))[0], x)
  out, by_kept = both(gates(1.0))
  np.testing.assert_array_equal(out[0, :3], x[0, :3])
  assert np.abs(out[1] - x[1]).max(axis=-1).min() > 0.01
  np.testing.assert_allclose(by_kept, out, atol=1e-5)
