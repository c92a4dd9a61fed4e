"""A tiny model with its value head, and batches with ragged masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.inputs import prefixes, right_pad
from sftrl_jax.models import DecoderConfig, build, heads
from sftrl_jax.objectives.batches import PolicyBatch, TokenBatch

ROWS, LENGTH, VOCAB = 8, 6, 11


@pytest.fixture(scope="session")
def model():
  return build(DecoderConfig(vocab=VOCAB, width=16, layers=1, heads=2, remat="none", init_std=0.3))


@pytest.fixture(scope="session")
def params(model):
  value = heads.init(16)
  return {"model": jax.jit(model.init)(jax.random.key(0)), "value": {**value, "kernel": value["kernel"] + 0.1}}


@pytest.fixture(scope="session")
def tiny():
  """tiny(path, ...): a tree of a few numbers by paths of a model, each array of its own small shape."""
  shapes = {"model/embed": (5, 4), "model/layers/block/attn/q/kernel": (2, 4, 2, 3),
            "model/layers/block/mlp/up/kernel": (2, 4, 3), "model/layers/block/attn_norm/scale": (2, 4),
            "value/bias": ()}

  def make(*paths):
    tree = {}
    for path in paths or shapes:
      *above, last = path.split("/")
      inner = tree
      for name in above:
        inner = inner.setdefault(name, {})
      numbers = np.cos(np.arange(np.prod(shapes[path]))).reshape(shapes[path])
      inner[last] = jnp.asarray(0.5 + 0.1 * numbers, jnp.float32)
    return tree

  return make


@pytest.fixture(scope="session")
def ragged():
  """(inputs, targets_BT, mask_BT): one row is all padding, and masks weigh between 0 and 5 tokens a row."""
  source = np.random.default_rng(0)
  ids = [source.integers(1, VOCAB, size).tolist() for size in (6, 2, 5, 0, 3, 6, 4, 1)]
  inputs = right_pad(ids, LENGTH)
  targets_BT = np.roll(inputs.tokens_BT, -1, axis=1)
  mask_BT = np.zeros((ROWS, LENGTH), np.float32)
  for row, items in enumerate(ids):
    mask_BT[row, min(row % 3, len(items)) : max(0, len(items) - 1)] = 1.0
  return inputs, targets_BT, mask_BT


@pytest.fixture(scope="session")
def token_batch(ragged):
  return TokenBatch(*ragged)


@pytest.fixture(scope="session")
def prefixed(token_batch):
  """Rows before each of which a teacher reads 0 to 4 ids; it skips the first id of those whose loss begins later."""
  source = np.random.default_rng(2)
  shown = [(source.integers(1, VOCAB, size).tolist(), int(token_batch.weights_BT[row, 0] == 0))
           for row, size in enumerate((3, 1, 4, 2, 0, 2, 3, 4))]
  return token_batch.replace(prefix=prefixes(shown, 4))


@pytest.fixture(scope="session")
def policy_batch(ragged):
  inputs, targets_BT, mask_BT = ragged
  source = np.random.default_rng(1)
  noise = lambda: source.normal(size=mask_BT.shape).astype(np.float32)
  turns_BT = np.where(mask_BT > 0, (np.arange(LENGTH) >= 3).astype(np.int32)[None], -1)
  return PolicyBatch(inputs, targets_BT, mask_BT, turns_BT, (-2.4 + 0.3 * noise()) * mask_BT, noise(),
                     noise() * mask_BT, noise() * mask_BT)
