"""A train step from its shapes: what the decoder of this package computes, and laws of sharding."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from sftrl_jax import models
from sftrl_jax.inputs import Inputs
from sftrl_jax.models import DecoderConfig
from sftrl_jax.programs.plan import jaxpr_flops
from sftrl_jax.programs.plan.published import runs, train_step
from sftrl_jax.programs.plan.published.train_step import TrainStep

CONFIG = DecoderConfig(vocab=96, width=32, layers=3, heads=4, kv_heads=2, head_dim=16, mlp_dim=80, attention="xla")
B, T = 2, 8
SAVED_LIGHT = (runs.ATTENTION, "mlp/gate", "mlp/up")   # what the decoder marks, see models/decoder.py


def traced_flops(config):
  """FLOPs of value and gradient of a loss over all logits, as they are traced."""
  model, tokens = models.build(config), jnp.zeros((B, T), jnp.int32)
  params = jax.eval_shape(model.init, jax.random.key(0))
  inputs = Inputs(tokens, tokens, tokens + 1)
  loss = lambda params: jnp.sum(model.unembed(params, model.hidden(params, inputs)) ** 2)
  return jaxpr_flops.count(jax.jit(jax.value_and_grad(loss)).trace(params).jaxpr).once


@pytest.mark.parametrize(("remat", "saved", "ours", "flash"), [
    ("none", (*runs.PROJECTED, runs.ATTENTION), 6, 7), ("full", (), 8, 9), ("light", SAVED_LIGHT, 8, 7)])
@pytest.mark.parametrize("mlp", ["gated", "plain"])
def test_it_is_what_the_decoder_computes_but_for_the_kernel_of_attention(remat, saved, ours, flash, mlp):
  # The XLA kernel computes all scores, in 6 products or 8; a flash kernel half of them, in 7 or 9.
  config = dataclasses.replace(CONFIG, remat=remat, mlp=mlp)
  product = 2 * B * T * config.layers * config.heads * config.head_dim
  by_shapes = TrainStep(config, B * T, T, 1, saved=saved).computed_flops
  assert traced_flops(config) - ours * product * T == pytest.approx(by_shapes - flash * product * (T + 1) / 2)


def test_all_parameters_are_counted():
  for config in (CONFIG, dataclasses.replace(CONFIG, tie_embeddings=True)):
    params = jax.eval_shape(models.build(config).init, jax.random.key(0))
    assert train_step.parameters(config) == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_alone_a_chip_sends_nothing_and_more_chips_hold_less():
  alone = TrainStep(CONFIG, 64, 8, 1)
  assert alone.traffic.sent == 0
  shared = dataclasses.replace(alone, chips=8, tensor=2)
  assert 0 < shared.traffic.bytes < alone.traffic.bytes and shared.traffic.sent > 0
  assert dataclasses.replace(alone, chips=8).traffic.sent < dataclasses.replace(alone, chips=64).traffic.sent


def test_saving_more_computes_less():
  steps = [TrainStep(CONFIG, 64, 8, 1, saved=saved).computed_flops for saved in (
      (), runs.QKV, runs.QKVO, runs.PROJECTED, (*runs.PROJECTED, runs.ATTENTION))]
  assert steps == sorted(steps, reverse=True) and len(set(steps)) == len(steps)
