"""Cross-entropy by hand, and its variants against plain numpy."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs
from sftrl_jax.metrics import floats
from sftrl_jax.objectives.batches import Scores, TokenBatch
from sftrl_jax.objectives.logprobs import forward_kl
from sftrl_jax.objectives.sft import SFTConfig, sft_loss

module = importlib.util.spec_from_file_location("laws", pathlib.Path(__file__).parents[1] / "formula_laws.py")
laws = importlib.util.module_from_spec(module)
module.loader.exec_module(laws)

VARIANTS = {loss: SFTConfig(loss=loss) for loss in ("nll", "dft", "psft", "distill")}
variants = pytest.mark.parametrize("name", VARIANTS)
TEACHER = np.random.default_rng(7).normal(size=(laws.B, laws.T, laws.V))


def taught(params, _, targets_BT):
  """`laws.score` with the KL to a table of a teacher's logits."""
  log_q = jax.nn.log_softmax(jnp.asarray(TEACHER, params["logits"].dtype))
  return laws.score(params, _, targets_BT)._replace(kl_BT=forward_kl(jax.nn.log_softmax(params["logits"]), log_q))


def score(logits_BTV, _, targets_BT):
  """The parameters are the logits."""
  logs = jax.nn.log_softmax(logits_BTV)
  chosen = jnp.take_along_axis(logs, targets_BT[..., None], axis=-1)[..., 0]
  return Scores(chosen, -jnp.sum(jnp.exp(logs) * logs, -1), None, jnp.argmax(logs, -1) == targets_BT)


def example(weights=((1, 0, 1), (0, 1, 0.5))):
  logits = jnp.log(jnp.asarray([[[1, 1, 2], [1, 2, 1], [6, 1, 1]], [[1, 1, 2], [2, 5, 1], [1, 1, 2]]], jnp.float32))
  targets = jnp.asarray([[2, 0, 1], [0, 1, 2]], jnp.int32)
  return logits, TokenBatch(inputs.right_pad([[0] * 3] * 2, 3), targets, jnp.asarray(weights, jnp.float32))


def test_the_loss_is_the_weighted_sum_of_negative_log_probabilities():
  """p of the targets: 2/4 . 1/8 and . 5/8 2/4; weights 1 . 1 and . 1 1/2; all but 1/8 are the likeliest."""
  loss, metrics = sft_loss(*example(), score=score)
  np.testing.assert_allclose(loss.total, np.log(2) + np.log(8) + np.log(8 / 5) + 0.5 * np.log(2), rtol=1e-6)
  assert loss.weight == 3.5
  np.testing.assert_allclose(metrics["mean_token_accuracy"].value(), 2.5 / 3.5, rtol=1e-6)
  entropy = lambda *p: -sum(x * np.log(x) for x in p)
  want = 1.5 * entropy(0.25, 0.25, 0.5) + entropy(0.75, 0.125, 0.125) + entropy(0.25, 0.625, 0.125)
  np.testing.assert_allclose(metrics["entropy"].total, want, rtol=1e-6)


def test_the_gradient_is_the_weighted_difference_of_probability_and_target():
  logits, batch = example()
  gradient = jax.grad(lambda logits: sft_loss(logits, batch, score=score)[0].total)(logits)
  want = (jax.nn.softmax(logits) - jax.nn.one_hot(batch.targets_BT, 3)) * batch.weights_BT[..., None]
  np.testing.assert_allclose(gradient, want, atol=1e-6)


def test_nothing_to_learn_is_no_loss():
  loss, metrics = sft_loss(*example(np.zeros((2, 3))), score=score)
  assert (loss.total, loss.weight, loss.value()) == (0, 0, 0)
  assert all(metric.value() == 0 for name, metric in metrics.items() if name != "compute/real_share")


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_learned_may_be_anything(poison):
  logits, batch = example()
  clean = sft_loss(logits, batch, score=score)
  dirty = sft_loss(jnp.where(batch.weights_BT[..., None] > 0, logits, poison), batch, score=score)
  for mine, theirs in zip(jax.tree.leaves(dirty), jax.tree.leaves(clean), strict=True):
    assert mine == theirs
  given = lambda logprobs, *_: Scores(logprobs, logprobs, None, logprobs > 0)
  bare = lambda logprobs: sft_loss(logprobs, batch, score=given)[0].total
  off = jnp.where(batch.weights_BT > 0, -1.0, poison)
  np.testing.assert_allclose(jax.grad(bare)(off), -batch.weights_BT)


def test_a_batch_is_worth_its_rows():
  logits, batch = example()
  whole, _ = sft_loss(logits, batch, score=score)
  rows = [sft_loss(logits[i:i + 1], jax.tree.map(lambda x, i=i: x[i:i + 1], batch), score=score)[0] for i in range(2)]
  np.testing.assert_allclose((rows[0] + rows[1]).value(), whole.value(), rtol=1e-6)


def ragged(seed=0):
  """(logits, batch) in 64 bits: weights that are no whole numbers, and a policy that has moved since the snapshot."""
  logits, targets, mask = laws.table(seed)
  source = np.random.default_rng(seed + 100)
  old = laws.logprobs(logits + 0.5 * source.normal(size=logits.shape), targets)
  return logits, TokenBatch(laws.blank_inputs(), targets, mask * source.uniform(0.5, 1, mask.shape), old)


def by_formula(logits, batch, sft):
  logs = laws.logprobs(logits, batch.targets_BT)
  ratio = np.exp(logs - batch.old_logprobs_BT)
  log_p, log_q = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (logits, TEACHER))
  each = {"distill": (np.exp(log_q) * (log_q - log_p)).sum(-1), "nll": -logs, "dft": -np.exp(logs) * logs,
          "psft": -np.minimum(ratio, np.clip(ratio, 0.8, 1 + sft.clip_high))}
  return (batch.weights_BT * each[sft.loss]).sum(), batch.weights_BT.sum()


@variants
@pytest.mark.parametrize("seed", [0, 1])
def test_a_variant_is_its_formula_on_ragged_rows(name, seed):
  sft, (logits, batch) = VARIANTS[name], ragged(seed)
  loss = functools.partial(sft_loss, score=taught, sft=sft)
  gradient = laws.check(loss, logits, batch, *by_formula(logits, batch, sft), gradient=name != "dft")
  if name == "dft":   # p times the gradient of cross-entropy, a token at a time
    p = np.exp(laws.logprobs(logits, batch.targets_BT))
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    of_nll = batch.weights_BT[..., None] * (softmax - np.eye(laws.V)[batch.targets_BT])
    np.testing.assert_allclose(gradient, p[..., None] * of_nll, rtol=1e-6, atol=1e-12)


@variants
def test_no_variant_reads_what_is_not_learned(name):
  logits, batch = ragged()
  poisoned = batch.replace(old_logprobs_BT=np.where(batch.weights_BT > 0, batch.old_logprobs_BT, np.nan))
  laws.check_mask(functools.partial(sft_loss, score=taught, sft=VARIANTS[name]), logits, batch, poisoned,
                  batch.weights_BT)


def test_before_the_first_update_psft_has_the_gradient_of_cross_entropy_and_beyond_the_clip_none():
  logits, batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.int32 if x.dtype == np.int32 else jnp.float32), ragged())
  now = laws.score({"logits": logits}, None, batch.targets_BT).logprobs_BT
  total = lambda logits, batch, sft: sft_loss({"logits": logits}, batch, score=laws.score, sft=sft)[0].total
  grad = lambda batch, sft: jax.grad(total)(logits, batch, sft)
  psft = VARIANTS["psft"]
  np.testing.assert_allclose(grad(batch.replace(old_logprobs_BT=now), psft), grad(batch, VARIANTS["nll"]), atol=1e-6)
  beyond = batch.replace(old_logprobs_BT=now - np.log(1.3))
  assert not grad(beyond, psft).any() and grad(batch.replace(old_logprobs_BT=now - np.log(1.25)), psft).any()
  metrics = floats(sft_loss({"logits": logits}, beyond, score=laws.score, sft=psft)[1])
  assert metrics["policy/clipfrac_avg"] == 1 and metrics["val/ratio"] == pytest.approx(1.3, rel=1e-5)
