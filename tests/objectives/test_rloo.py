"""REINFORCE leave-one-out on tables: the parameters are the logits themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs
from sftrl_jax.metrics import floats
from sftrl_jax.objectives.batches import GroupBatch, Scores
from sftrl_jax.objectives.rloo import RLOOConfig, rloo_loss

B, T, V = 3, 5, 4
MASK = np.asarray([[1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]], np.float32)
ADVANTAGES = np.asarray([1.0, 0.5, -1.5], np.float32)


def score(params, _, targets_BT):
  logs = jax.nn.log_softmax(params["logits"])
  chosen = jnp.take_along_axis(logs, targets_BT[..., None], axis=-1)[..., 0]
  return Scores(chosen, -jnp.sum(jnp.exp(logs) * logs, -1), None, jnp.argmax(logs, -1) == targets_BT)


now = jax.jit(lambda params, targets_BT: score(params, None, targets_BT).logprobs_BT)


def example(moved=0.0):
  random = np.random.default_rng(0)
  normal = lambda *shape: random.normal(size=shape).astype(np.float32)
  logits, targets = normal(B, T, V), random.integers(0, V, (B, T)).astype(np.int32)
  batch = GroupBatch(inputs.right_pad([[0] * T] * B, T), targets, MASK, now({"logits": logits}, targets) * MASK, None,
                     ADVANTAGES)
  return {"logits": logits + moved * normal(B, T, V)}, jax.tree.map(jnp.asarray, batch)


@functools.partial(jax.jit, static_argnums=2)
def evaluate(params, batch, rloo):
  """(total, weight, metrics, gradient of the total)."""
  def total(params):
    value, metrics = rloo_loss(params, batch, rloo=rloo, score=score)
    return value.total, (value.weight, metrics)
  (value, (weight, metrics)), gradient = jax.value_and_grad(total, has_aux=True)(params)
  return value, weight, metrics, gradient["logits"]


@pytest.mark.parametrize("ratio, count", [("sequence", 3), ("token", 9)])
def test_the_first_update_is_reinforce(ratio, count):
  """Either way -A sum_t grad log pi, over episodes or over tokens: no token weighs less for standing in a long answer.
  """
  params, batch = example()
  _, weight, metrics, gradient = evaluate(params, batch, RLOOConfig(ratio=ratio))
  reinforce = jax.jit(jax.grad(lambda logits: -jnp.sum(
      MASK * ADVANTAGES[:, None] * now({"logits": logits}, batch.targets_BT))))
  np.testing.assert_allclose(gradient, reinforce(params["logits"]), atol=1e-6)
  assert weight == count and floats(metrics)["val/ratio"] == pytest.approx(1, abs=1e-6)
  assert floats(metrics)["label_tokens"] == 9


def test_the_ratio_of_an_episode_is_the_product_of_its_tokens_and_clipped_whole():
  params, batch = example(moved=0.3)
  ratio = np.exp((np.asarray(now(params, batch.targets_BT) - batch.old_logprobs_BT) * MASK).sum(1))
  total, _, metrics, _ = evaluate(params, batch, RLOOConfig(clip=0.1))
  want = -np.minimum(ratio * ADVANTAGES, np.clip(ratio, 0.9, 1.1) * ADVANTAGES).sum()
  np.testing.assert_allclose(total, want, rtol=1e-4)
  told = floats(metrics)
  assert told["val/ratio_max"] == pytest.approx(ratio.max(), rel=1e-4)
  assert told["policy/clipfrac_avg"] == pytest.approx(np.mean(np.abs(ratio - 1) > 0.1))


@pytest.mark.parametrize("ratio", ["sequence", "token"])
def test_a_batch_that_is_masked_altogether_is_zero_and_finite(ratio):
  params, batch = example(moved=0.3)
  empty = batch.replace(mask_BT=jnp.zeros((B, T)), old_logprobs_BT=jnp.full((B, T), jnp.nan))
  total, weight, metrics, gradient = evaluate(params, empty, RLOOConfig(ratio=ratio))
  assert total == 0 and weight == 0 and not gradient.any() and np.isfinite(floats(metrics)["val/ratio"])


@pytest.mark.parametrize("ratio", ["sequence", "token"])
def test_an_episode_in_several_rows_is_one_action_as_it_is_in_one(ratio):
  """The score here is of a token alone, so that an episode may be cut into rows anywhere: row s * B + b is of b."""
  params, batch = example(moved=0.4)
  cut = lambda x: jnp.concatenate([x[:, :2], jnp.pad(x[:, 2:4], ((0, 0), (0, 0)) + ((0, 0),) * (x.ndim - 2)),
                                   jnp.pad(x[:, 4:], ((0, 0), (0, 1)) + ((0, 0),) * (x.ndim - 2))])
  parts = GroupBatch(inputs.right_pad([[0] * 2] * (3 * B), 2), cut(batch.targets_BT), cut(batch.mask_BT),
                     cut(batch.old_logprobs_BT), None, jnp.tile(batch.advantages_B, 3))

  def total(params, batch, rows):
    value, metrics = rloo_loss(params, batch, rloo=RLOOConfig(ratio=ratio, clip=0.1), score=score, rows=rows)
    return value.total, (value.weight, metrics)

  (value, (weight, metrics)), gradient = jax.value_and_grad(total, has_aux=True)(params, batch, 1)
  (same, (also, told)), of_parts = jax.value_and_grad(total, has_aux=True)(
      {"logits": cut(jnp.asarray(params["logits"]))}, parts, 3)
  np.testing.assert_allclose(same, value, rtol=1e-5)
  assert weight == also
  np.testing.assert_allclose(of_parts["logits"], cut(gradient["logits"]), atol=1e-6)
  for name, number in floats(metrics).items():
    if name != "policy/entropy_avg":
      assert floats(told)[name] == pytest.approx(number, rel=1e-5), name
