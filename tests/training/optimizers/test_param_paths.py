"""Which parameters decay, learn at their own rate or stay, by their paths; patterns that mean nothing are told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import trees
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig, make_optimizer
from sftrl_jax.training.optimizers.param_paths import check, decay_step, decays, factor_of, scale_by_path

MATRICES = {"model/embed", "model/unembed", *(f"model/layers/block/{part}/kernel" for part in (
    "attn/q", "attn/k", "attn/v", "attn/o", "mlp/gate", "mlp/up", "mlp/down"))}


def test_matrices_decay_and_norms_and_heads_do_not(params):
  assert {path for path in trees.leaves(params) if decays(path)} == MATRICES
  assert {path for path in trees.leaves({"critic": params}) if decays(path)} == {f"critic/{path}" for path in MATRICES}
  steps = trees.leaves(decay_step(jax.tree.map(jnp.ones_like, params), 0.5, {"*/mlp/*": 0.5}))
  for path, step in steps.items():
    np.testing.assert_array_equal(step, 0.0 if path not in MATRICES else -0.25 if "/mlp/" in path else -0.5, path)


def test_adapters_decay_towards_the_base_and_biases_do_not():
  assert decays("lora/layers/block/attn/o/a") and decays("lora/layers/block/mlp/up/b")
  assert not decays("model/layers/block/attn/q/bias")


def test_updates_are_scaled_by_the_pattern_of_their_path(tiny):
  factors = {"model/layers/*": 0.5, "value/*": 2.0}
  scaled, _ = scale_by_path(factors).update(jax.tree.map(jnp.ones_like, tiny()), ())
  assert {path: float(leaf.max()) for path, leaf in trees.leaves(scaled).items()} == {
      path: factor_of(factors, path) for path in trees.leaves(tiny())}
  assert [factor_of(factors, path) for path in ("model/embed", "model/layers/x", "value/bias")] == [1.0, 0.5, 2.0]


@pytest.mark.parametrize("factors, freeze, message", [
    ({"model/embd": 0.5}, (), r"config\.optimizer\.factors: 'model/embd' matches no parameter; there are model/embed"),
    ({}, ("modl/*",), r"config\.optimizer\.freeze: 'modl/\*' matches no parameter"),
    ({"model/*": 0.5, "*/embed": 0.1}, (), r"model/embed matches \['model/\*', '\*/embed'\]; let one pattern match"),
    ({"value/*": 0.0}, ("model/*", "value/*"), "leaves nothing to train")])
def test_patterns_that_cannot_be_meant_are_told(tiny, factors, freeze, message):
  with pytest.raises(ValueError, match=message):
    check(tiny(), factors, freeze)
  with pytest.raises(ValueError, match=message):
    make_optimizer(OptimizerConfig(factors=factors, freeze=freeze), float).init(tiny())
