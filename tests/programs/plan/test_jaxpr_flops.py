"""FLOPs of a traced function: every matmul, as often as it runs."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

from sftrl_jax import models
from sftrl_jax.models import DecoderConfig, flops, kernels
from sftrl_jax.programs.plan import jaxpr_flops

SQUARE = jax.ShapeDtypeStruct((8, 8), jnp.float32)
ONE = 2.0 * 8**3
DEEP = DecoderConfig(vocab=256, width=64, layers=6, heads=4, kv_heads=2, mlp_dim=192, remat="none", unroll=6)


def counted(function, *args, trips=1):
  return jaxpr_flops.count(jax.jit(function).trace(*args).jaxpr, trips)


def test_a_scan_is_charged_for_every_round():
  def repeat(x, times):
    return jax.lax.scan(lambda c, _: (c @ x, None), x, None, length=times)[0]
  assert counted(lambda x: repeat(x, 5), SQUARE).once == 5 * ONE
  assert counted(lambda x: jax.lax.map(lambda y: repeat(y, 3), jnp.stack([x, x])), SQUARE).once == 6 * ONE


def test_a_loop_whose_end_depends_on_data_is_counted_apart():
  loop = lambda x: jax.lax.while_loop(lambda c: jnp.sum(c) < 9, lambda c: c @ x, x)
  flops_of_both = counted(lambda x: loop(x) @ x, SQUARE)
  assert (flops_of_both.once, flops_of_both.looped) == (ONE, ONE)
  assert counted(lambda x: jax.lax.while_loop(lambda c: jnp.sum(c) < 9, loop, x), SQUARE, trips=7).looped == 7 * ONE


def test_the_dearer_branch_is_charged():
  branches = lambda x: jax.lax.cond(jnp.sum(x) > 0, lambda y: y @ y @ y, lambda y: y @ y, x)
  assert counted(branches, SQUARE).once == 2 * ONE


def loss_of(config):
  model = models.build(config)
  params = jax.eval_shape(model.init, jax.random.key(0))
  tokens = jax.ShapeDtypeStruct((4, 64), jnp.int32)
  return jax.grad(lambda p, t: jnp.sum(jax.nn.logsumexp(model.logits(p, t), axis=-1))), params, tokens


def test_a_train_step_costs_what_flops_says_and_what_the_compiler_says_of_an_unrolled_one():
  step = loss_of(DEEP)
  total = counted(*step).once
  assert total == pytest.approx(flops.train(DEEP, 4 * 64, 64), rel=0.05)
  assert total == pytest.approx(jax.jit(step[0]).lower(*step[1:]).cost_analysis()["flops"], rel=0.05)


def test_rolled_layers_cost_the_same_and_remat_costs_a_forward_pass_of_the_blocks_more():
  total = counted(*loss_of(DEEP)).once
  assert counted(*loss_of(dataclasses.replace(DEEP, unroll=1))).once == total
  blocks = flops.forward(DEEP, 4 * 64, 64, unembedded=0)
  again = counted(*loss_of(dataclasses.replace(DEEP, remat="full", unroll=1))).once - total
  assert 0.7 * blocks < again <= blocks   # what the backward pass does not need is not computed again


def test_a_body_that_runs_on_every_device_is_charged_for_each():
  mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
  spec = jax.sharding.PartitionSpec("x")
  split = jax.shard_map(lambda x: x @ jnp.ones((8, 8)), mesh=mesh, in_specs=spec, out_specs=spec)
  assert counted(split, jax.ShapeDtypeStruct((32, 8), jnp.float32)).once == 4 * ONE


@pytest.mark.parametrize("window, blocks", [(0, 36), (512, 15), (1024, 21)])   # of 512 tokens, 8 a row
def test_splash_is_charged_for_the_blocks_that_its_mask_leaves(window, blocks):
  q, k = (jax.ShapeDtypeStruct((1, heads, 4096, 128), jnp.float32) for heads in (4, 2))
  attend = lambda q, k, v: kernels.splash(q, k, v, jnp.ones((1, 4096), jnp.int32), window)
  one_product = 4 * 2.0 * 512**2 * 128 * blocks
  assert counted(attend, q, k, k).once == 2 * one_product
  backward = counted(jax.grad(lambda *qkv: jnp.sum(attend(*qkv)), (0, 1, 2)), q, k, k).once
  # Forward 2 products of blocks, d of queries 3, d of keys and values 4; and one product with a vector.
  assert backward == pytest.approx((2 + 3 + 4) * one_product, rel=1e-3)
