"""FLOPs are counted as XLA counts them."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from sftrl_jax import models, trees
from sftrl_jax.models import DecoderConfig, flops

WIDE = DecoderConfig(vocab=256, width=64, layers=2, heads=4, kv_heads=2, ffn=192, remat="none", unroll=2)
KINDS = {
    "gated": WIDE,
    "plain": dataclasses.replace(WIDE, mlp="plain", activation="relu", kv_heads=4),
    "tied": dataclasses.replace(WIDE, tied=True, channels=32),
}
kinds = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def abstract(config):
  return jax.eval_shape(models.build(config).init, jax.random.key(0))


@kinds
def test_matmul_parameters_are_those_that_multiply_every_token(config):
  leaves = trees.leaves(abstract(config))
  kernels = sum(leaf.size for path, leaf in leaves.items() if path.endswith("kernel"))
  head = leaves["embed" if config.tied else "unembed"].size
  assert flops.matmul_parameters(config) == kernels + head
  norms = sum(leaf.size for path, leaf in leaves.items() if path.endswith("scale"))
  embedding = 0 if config.tied else leaves["embed"].size
  assert sum(leaf.size for leaf in leaves.values()) == kernels + head + norms + embedding


def by_xla(function, config, rows, length):
  tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)
  return jax.jit(function).lower(abstract(config), tokens).cost_analysis()["flops"]


@kinds
def test_a_forward_pass_costs_what_xla_says(config):
  ours = flops.forward(config, 4 * 64, keys=64)
  assert ours == pytest.approx(by_xla(models.build(config).logits, config, 4, 64), rel=0.06)


def test_attention_is_in_it():
  """Only attention depends on how tokens are dealt into rows, so a difference of layouts shows it alone."""
  long, short = (by_xla(models.build(WIDE).logits, WIDE, rows, 512 // rows) for rows in (1, 8))
  ours = flops.forward(WIDE, 512, keys=512) - flops.forward(WIDE, 512, keys=64)
  assert ours == pytest.approx(long - short, rel=0.1)  # the softmax itself is in XLA's count only


def test_training_costs_three_forward_passes():
  model = models.build(WIDE)
  loss = lambda params, tokens: jnp.sum(jax.nn.logsumexp(model.logits(params, tokens), axis=-1))
  assert flops.train(WIDE, 256, 64) == 3 * flops.forward(WIDE, 256, 64)
  assert flops.train(WIDE, 256, 64) == pytest.approx(by_xla(jax.grad(loss), WIDE, 4, 64), rel=0.06)


def test_cost_is_linear_in_tokens_and_pays_for_unembedding_only_where_asked():
  whole = flops.forward(WIDE, 100, 64)
  assert flops.forward(WIDE, 200, 64) == 2 * whole
  none = flops.forward(WIDE, 100, 64, unembedded=0)
  head = 2 * WIDE.width * WIDE.vocab
  assert whole - none == 100 * head
  assert flops.forward(WIDE, 100, 64, unembedded=1) - none == head
