"""Which matrices Muon and GaLore take, and that a stack of layers is to an optimizer what its layers are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sftrl_jax import trees
from sftrl_jax.models import lora
from sftrl_jax.training.optimizers.catalogue import entry
from sftrl_jax.training.optimizers.matrices import axes, by_layer, muon_dimensions
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig, make_optimizer

QKV, DENSE = ((1,), (2, 3)), ((1,), (2,))
BLOCKS = {f"model/layers/block/{path}/kernel": both for path, both in {
    "attn/q": QKV, "attn/k": QKV, "attn/v": QKV, "attn/o": ((1, 2), (3,)), "mlp/gate": DENSE, "mlp/up": DENSE,
    "mlp/down": DENSE}.items()}
OTHERS = {"model/embed", "model/unembed", "model/final_norm/scale", "model/layers/block/attn_norm/scale",
          "model/layers/block/mlp_norm/scale", "value/kernel", "value/bias"}
UP = "model/layers/block/mlp/up/kernel"
O_A, O_B = ((1, 2), (3,)), DENSE
ADAPTERS = {f"lora/layers/block/{path}": both for path, both in {
    **{f"attn/{name}/a": DENSE for name in "qkv"}, **{f"attn/{name}/b": QKV for name in "qkv"}, "attn/o/a": O_A,
    "attn/o/b": O_B, **{f"mlp/{name}/{side}": DENSE for name in ("gate", "up", "down") for side in "ab"}}.items()}


def test_every_leaf_of_a_model_goes_to_muon_or_to_adam(params):
  is_axes = lambda x: x is None or isinstance(x, optax.contrib.MuonDimensionNumbers)
  dimensions = jax.tree_util.tree_flatten_with_path(muon_dimensions(params), is_leaf=is_axes)[0]
  dimensions = {trees.path_of(keys): numbers for keys, numbers in dimensions}
  assert dimensions.keys() == trees.leaves(params).keys() == BLOCKS.keys() | OTHERS
  for path, numbers in dimensions.items():
    if path in BLOCKS:
      assert (tuple(numbers.reduction_axis), tuple(numbers.output_axis)) == BLOCKS[path] == axes(path), path
      assert axes(f"critic/{path}") == axes(path)
    else:
      assert numbers is None and axes(path) is None, path
  slots = trees.leaves(jax.eval_shape(make_optimizer(OptimizerConfig("muon"), float).init, params))
  of = lambda group: {path.split("/mu/")[1] for path in slots if f"inner_states/{group}/" in path and "/mu/" in path}
  assert of("muon") == BLOCKS.keys() and of("adam") == OTHERS


def test_both_factors_of_every_adapter_go_to_muon(params):
  adapters = {"lora": lora.init(lora.LoraConfig(rank=2), params["model"], jax.random.key(0)), "value": params["value"]}
  assert trees.leaves(adapters).keys() == ADAPTERS.keys() | {"value/kernel", "value/bias"}
  assert {path: axes(path) for path in trees.leaves(adapters)} == {**ADAPTERS, "value/kernel": None, "value/bias": None}
  optimizer = make_optimizer(OptimizerConfig("muon", clip=0.0), lambda n: 1.0)
  grads = jax.tree.map(jnp.zeros_like, adapters)   # as those of all a are while b is 0
  grads["lora"]["layers"]["block"]["attn"]["q"]["b"] = jnp.ones((1, 2, 2, 8))
  updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(adapters), adapters)
  moved = {path: bool(jnp.any(update != 0)) for path, update in trees.leaves(updates).items()}
  assert [path for path in moved if moved[path]] == ["lora/layers/block/attn/q/b"]
  assert all(np.isfinite(update).all() for update in jax.tree.leaves(updates))


def test_muon_makes_every_matrix_of_a_stack_orthogonal(tiny):
  params = tiny(UP)
  optimizer = make_optimizer(OptimizerConfig("muon", clip=0.0, args={"consistent_rms": 1.0, "ns_steps": 10}),
                             lambda n: 1.0)
  grads = jax.tree.map(lambda x: jnp.cos(jnp.arange(float(x.size)) ** 2).reshape(x.shape), params)
  updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
  for update in trees.leaves(updates)[UP]:   # [4, 3] each, times sqrt(4): singular values near 2
    np.testing.assert_allclose(np.linalg.svd(update, compute_uv=False) / 2, 1.0, atol=0.35)


def test_galore_moves_every_matrix_of_a_stack_in_its_own_subspace(tiny):
  params = tiny(UP, "model/embed")
  optimizer = make_optimizer(OptimizerConfig("galore", clip=0.0, args={"rank": 1, "update_proj_gap": 2}), lambda n: 1.0)
  grads = jax.tree.map(lambda x: jnp.cos(jnp.arange(float(x.size)) ** 2).reshape(x.shape), params)
  updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
  values = np.stack([np.linalg.svd(update, compute_uv=False) for update in trees.leaves(updates)[UP]])
  assert (values[:, 0] > 0.1).all() and (values[:, 1:] < 1e-5).all()
  np.testing.assert_allclose(np.abs(updates["model"]["embed"]), 1.0, rtol=1e-3)   # adam's first step


@pytest.mark.parametrize("name, args", [
    ("lamb", {}), ("novograd", {}), ("adafactor", dict(min_dim_size_to_factor=2, clipping_threshold=0.1))])
def test_a_stack_learns_as_its_layers_do_apart(tiny, name, args):
  stack = trees.leaves(tiny(UP))[UP] * jnp.array([1.0, 3.0])[:, None, None]
  optimizer = entry(name).factory(0.1, **args)
  trained = {"stacked": (by_layer(optimizer), {"model": {"layers": {"block": {"w": stack}}}}),
             "apart": (optimizer, {"0": stack[0], "1": stack[1]})}

  @jax.jit
  def twice():
    params_by_kind = {}
    for kind, (rule, params) in trained.items():
      state = rule.init(params)
      for _ in range(2):
        updates, state = rule.update(jax.tree.map(jnp.square, params), state, params)
        params = optax.apply_updates(params, updates)
      params_by_kind[kind] = params
    return params_by_kind

  params_by_kind = twice()
  together = jax.tree.leaves(params_by_kind["stacked"])[0]
  np.testing.assert_allclose(together, np.stack(jax.tree.leaves(params_by_kind["apart"])), rtol=1e-5)
  assert np.any(together != stack)
