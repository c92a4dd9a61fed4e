"""Laws of an objective on tables, whose parameters are the logits themselves: it is its formula, with its gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.inputs import Inputs
from sftrl_jax.objectives.batches import Scores

B, T, V = 4, 9, 6


def score(params, _, targets_BT):
  logs = jax.nn.log_softmax(params["logits"])
  chosen = jnp.take_along_axis(logs, targets_BT[..., None], axis=-1)[..., 0]
  return Scores(chosen, -jnp.sum(jnp.exp(logs) * logs, -1), None, jnp.argmax(logs, -1) == targets_BT)


def table(seed=0):
  """(logits_BTV, targets_BT, mask_BT) in 64 bits: rows of 1 to T tokens, of which every third is not learned."""
  source = np.random.default_rng(seed)
  lengths = source.integers(1, T + 1, B)
  mask = (np.arange(T)[None] < lengths[:, None]) & (source.integers(0, 3, (B, T)) > 0)
  mask[:, 0] = True
  return source.normal(size=(B, T, V)), source.integers(0, V, (B, T)).astype(np.int32), mask.astype(float)


def blank_inputs():
  zeros = np.zeros((B, T), np.int32)
  return Inputs(zeros, np.arange(T, dtype=np.int32)[None] + zeros, zeros + 1)


def logprobs(logits, targets):
  """Of the targets, in plain numpy."""
  logits = logits - logits.max(-1, keepdims=True)
  logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return np.take_along_axis(logs, targets[..., None], -1)[..., 0]


def check(loss, logits, batch, total, weight, gradient=True):
  """loss(params, batch) -> (Mean, metrics) is total / weight to 1e-6 in 64 bits and 1e-5 in 32, and its gradient that
  of finite differences.

  gradient: False where a stop-gradient keeps the gradient from being that of the value
  """
  value = jax.jit(lambda params, batch: loss(params, batch)[0])
  params = {"logits": logits}
  with jax.enable_x64(True):
    exact = jax.tree.map(jnp.asarray, (params, batch))
    mean = value(*exact)
    np.testing.assert_allclose((mean.total, mean.weight), (total, weight), rtol=1e-6)
    by_logits = jax.jit(jax.grad(lambda params, batch: loss(params, batch)[0].total))(*exact)["logits"]
    source, step = np.random.default_rng(1), 1e-6
    for _ in range(3 * gradient):
      toward = source.normal(size=logits.shape)
      ends = [value({"logits": logits + sign * step * toward}, exact[1]).total for sign in (1, -1)]
      np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), (by_logits * toward).sum(), rtol=1e-5, atol=1e-8)
  single = jax.tree.map(lambda x: jnp.asarray(x, jnp.int32 if x.dtype == np.int32 else jnp.float32), (params, batch))
  mean = value(*single)
  np.testing.assert_allclose((mean.total, mean.weight), (total, weight), rtol=1e-5)
  return np.asarray(by_logits)


def check_mask(loss, logits, batch, poisoned, mask):
  """Where the mask is 0, logits may be NaN and whatever `poisoned`, a batch, holds instead: nothing changes."""
  off = np.asarray(mask) == 0
  assert off.any()
  grad = jax.jit(jax.value_and_grad(lambda params, batch: loss(params, batch)[0].total))
  single = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.int32 if x.dtype == np.int32 else jnp.float32), tree)
  clean, dirty = grad({"logits": single(logits)}, single(batch)), grad(
      {"logits": jnp.where(off[..., None], jnp.nan, single(logits))}, single(poisoned))
  assert clean[0] == dirty[0] and np.isfinite(clean[0])
  on = lambda gradient: np.where(off[..., None], 0, gradient["logits"])
  np.testing.assert_array_equal(on(dirty[1]), on(clean[1]))
  assert not np.asarray(clean[1]["logits"])[off].any()
