"""Cross-entropy by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs
from sftrl_jax.objectives.batches import Scores, TokenBatch
from sftrl_jax.objectives.sft import sft_loss


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
