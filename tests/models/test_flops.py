"""FLOPs are counted as XLA counts them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
import pytest

from sftrl_jax import models, trees
from sftrl_jax.inputs import Inputs
from sftrl_jax.models import DecoderConfig, flops, lora
from sftrl_jax.objectives.batches import TokenBatch
from sftrl_jax.objectives.sft import sft_loss
from sftrl_jax.training import state as states
from sftrl_jax.training.score import make_score
from sftrl_jax.training.step import make_train_step

WIDE = DecoderConfig(vocab=256, width=64, layers=2, heads=4, kv_heads=2, mlp_dim=192, remat="none", unroll=2)
KINDS = {
    "gated": WIDE,
    "plain": dataclasses.replace(WIDE, mlp="plain", activation="relu", kv_heads=4),
    "tied": dataclasses.replace(WIDE, tie_embeddings=True, head_dim=32),
    "everything": dataclasses.replace(WIDE, pattern=("local", "global"), window=8, qkv_bias=True, qk_norm=True,
                                      post_norms=True, norm_plus_one=True, embed_scale=8.0, rope_local_theta=100.0),
    "capped": dataclasses.replace(WIDE, pattern=("unrotated", "global"), qkv_bias=True, o_bias=True, mlp_bias=True,
                                  qk_norm=True, qk_norm_whole=True, pre_norms=False, post_norms=True, rope_part=0.5,
                                  attention_softcap=50.0, residual_scale=0.5, logits_divisor=8.0, logits_softcap=30.0),
}
kinds = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def abstract(config):
  return jax.eval_shape(models.build(config).init, jax.random.key(0))


@kinds
def test_matmul_parameters_are_those_that_multiply_every_token(config):
  leaves = trees.leaves(abstract(config))
  kernels = sum(leaf.size for path, leaf in leaves.items() if path.endswith("kernel"))
  head = leaves["embed" if config.tie_embeddings else "unembed"].size
  assert flops.matmul_parameters(config) == kernels + head
  norms = sum(leaf.size for path, leaf in leaves.items() if path.endswith(("scale", "bias")))
  embedding = 0 if config.tie_embeddings else leaves["embed"].size
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
  whole = dataclasses.replace(WIDE, attention="xla")   # cut into blocks, keys that nobody sees cost nothing
  long, short = (by_xla(models.build(whole).logits, whole, rows, 512 // rows) for rows in (1, 8))
  ours = flops.forward(WIDE, 512, keys=512) - flops.forward(WIDE, 512, keys=64)
  assert ours == pytest.approx(long - short, rel=0.1)  # the softmax itself is in XLA's count only


@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "adapters"])
def test_a_whole_step_of_a_model_of_real_proportions_is_within_5_percent(adapted):
  """Unrolled and without remat, the optimizer and all: what the train step costs is what it is charged."""
  config = DecoderConfig(vocab=4096, width=512, layers=2, heads=8, kv_heads=2, mlp_dim=1408, remat="none", unroll=2)
  model, optimizer, settings = models.build(config), optax.adamw(1e-3), lora.LoraConfig(rank=8)
  base, rows = {"model": abstract(config)}, (4, 256)
  params = {"lora": jax.eval_shape(lambda key: lora.init(settings, base["model"], key),
                                   jax.random.key(0))} if adapted else base
  ints, floats = (jax.ShapeDtypeStruct(rows, dtype) for dtype in ("int32", "float32"))
  step = make_train_step(functools.partial(sft_loss, score=make_score(model)), optimizer, lambda n: 1.0,
                         full_params=functools.partial(lora.whole, lora=settings) if adapted else None)
  state = jax.eval_shape(lambda p: states.create(p, optimizer), params)
  batch = TokenBatch(Inputs(ints, ints, ints), ints, floats)
  counted = jax.jit(step).lower(state, batch, base if adapted else None).cost_analysis()["flops"]
  many = lora.count(settings, base["model"]) if adapted else 0
  assert flops.train(config, 4 * 256, 256, many) == pytest.approx(counted, rel=0.05)
  if not adapted:
    score = lambda params, batch: make_score(model)(params, batch.inputs, batch.targets_BT).logprobs_BT
    counted = jax.jit(score).lower(base, batch).cost_analysis()["flops"]
    assert flops.forward(config, 4 * 256, 256) == pytest.approx(counted, rel=0.05)


def test_training_costs_three_forward_passes():
  model = models.build(WIDE)
  loss = lambda params, tokens: jnp.sum(jax.nn.logsumexp(model.logits(params, tokens), axis=-1))
  assert flops.train(WIDE, 256, 64) == 3 * flops.forward(WIDE, 256, 64)
  assert flops.train(WIDE, 256, 64) == pytest.approx(by_xla(jax.grad(loss), WIDE, 4, 64), rel=0.06)


@dataclasses.dataclass(frozen=True)
class Sparse(models.DecoderConfig):
  """A family that computes half of what its numbers say."""
  share: float = 0.5

  def flops(self, tokens, keys, unembedded):
    return self.share * flops.forward(WIDE, tokens, keys, unembedded)


def test_a_family_says_itself_what_it_costs():
  assert flops.forward(Sparse(), 256, 64) == 0.5 * flops.forward(WIDE, 256, 64)
  assert flops.forward(Sparse(), 256, 64, unembedded=3) == 0.5 * flops.forward(WIDE, 256, 64, unembedded=3)
  assert flops.train(Sparse(), 256, 64) == 0.5 * flops.train(WIDE, 256, 64)
  for wrong in (0.0, -1.0, float("nan")):
    with pytest.raises(ValueError, match=r"Sparse\.flops\(256, 64, 256\) returned .*, but it must return the FLOPs"):
      flops.forward(Sparse(share=wrong), 256, 64)


def test_training_adapters_computes_no_gradient_of_what_is_frozen():
  model, settings, base = models.build(WIDE), lora.LoraConfig(rank=2), abstract(WIDE)
  adapters = jax.eval_shape(lambda key: lora.init(settings, base, key), jax.random.key(0))
  logits = lambda adapters, base, tokens: model.logits(lora.attach(base, adapters, settings), tokens)
  loss = lambda *given: jnp.sum(jax.nn.logsumexp(logits(*given), axis=-1))
  given, many = (adapters, base, jax.ShapeDtypeStruct((4, 64), jnp.int32)), lora.count(settings, base)
  counted = lambda function: jax.jit(function).lower(*given).cost_analysis()["flops"]
  assert flops.forward(WIDE, 256, 64, adapters=many) == pytest.approx(counted(logits), rel=0.06)
  assert flops.train(WIDE, 256, 64, many) == pytest.approx(counted(jax.grad(loss)), rel=0.06)
  assert flops.train(WIDE, 256, 64, many) < 0.85 * flops.train(WIDE, 256, 64)


def test_cost_is_linear_in_tokens_and_pays_for_unembedding_only_where_asked():
  whole = flops.forward(WIDE, 100, 64)
  assert flops.forward(WIDE, 200, 64) == 2 * whole
  none = flops.forward(WIDE, 100, 64, unembedded=0)
  head = 2 * WIDE.width * WIDE.vocab
  assert whole - none == 100 * head
  assert flops.forward(WIDE, 100, 64, unembedded=1) - none == head


def test_the_papers_formula_is_six_nd_and_two_nd_and_near_the_count_of_a_wide_model():
  assert flops.by_paper(7, 11) == 6 * 7 * 11 and flops.by_paper(7, 11, 13.0) == 6 * 7 * 11 + 2 * 7 * 13
  assert flops.by_paper(3, 4, 5.0) == flops.by_paper(3, 4) + flops.by_paper(3, 0, 5.0)
  wide = dataclasses.replace(WIDE, width=512, mlp_dim=2048, heads=8)
  parameters = trees.size(jax.eval_shape(models.build(wide).init, jax.random.key(0)))
  assert flops.by_paper(parameters, 1000) == pytest.approx(flops.train(wide, 1000, 8), rel=0.05)
