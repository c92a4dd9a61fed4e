"""Batches are trees of arrays: they go through jit and are cut by rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs, shapes
from sftrl_jax.objectives.batches import LOGPROBS, GroupBatch, PolicyBatch, Scores, TokenBatch, old_logprobs


def some(kind):
  """A batch of a kind with every array numbered by its row."""
  rows = inputs.right_pad([[1, 2, 3], [4], [5, 6]], 4)
  names = [field.name for field in dataclasses.fields(kind) if field.name not in ("inputs", "prefix")]
  by_token = np.repeat(np.arange(3.0)[:, None], 4, axis=1)
  prefix = dict(prefix=inputs.prefixes([((9, 8), 0), ((), 0), ((7,), 1)], 5))
  return kind(rows, **{name: by_token if name.endswith("_BT") else by_token[:, 0] for name in names},
              **(prefix if kind is TokenBatch else {}))


@pytest.mark.parametrize("kind", [TokenBatch, PolicyBatch])
def test_a_batch_goes_through_jit_and_is_cut_by_rows(kind):
  chosen = jax.jit(lambda batch, order: jax.tree.map(lambda x: jnp.take(x, order, axis=0), batch))(
      some(kind), jnp.asarray([2, 0]))
  assert isinstance(chosen, kind)
  np.testing.assert_array_equal(chosen.targets_BT[:, 0], [2, 0])
  np.testing.assert_array_equal(chosen.inputs.tokens_BT, [[5, 6, 0, 0], [1, 2, 3, 0]])
  if kind is TokenBatch:
    np.testing.assert_array_equal(chosen.prefix.tokens_BP, [[0, 0, 0, 0, 7], [0, 0, 0, 9, 8]])
    np.testing.assert_array_equal(chosen.prefix.skipped_B, [1, 0])


@pytest.mark.parametrize("kind", [TokenBatch, PolicyBatch])
def test_every_array_of_a_batch_is_by_row_and_token(kind):
  batch = some(kind)
  arrays = {**vars(batch.inputs), **{name: x for name, x in vars(batch).items() if name not in ("inputs", "prefix")}}
  assert shapes.check(**{name: x for name, x in arrays.items() if x is not None}) == {"B": 3, "T": 4}
  if kind is TokenBatch:
    assert shapes.check(**vars(batch.prefix)) == {"B": 3, "P": 5}


def test_scores_without_a_value_head_are_a_tree_too():
  scores = jax.jit(lambda x: Scores(x, x, None, x > 0))(jnp.ones((2, 3)))
  assert scores.values_BT is None and scores.correct_BT.dtype == bool


def test_old_logprobs_are_those_of_the_batch_or_the_new_ones_without_gradient():
  new, old = jnp.full((3, 4), -2.0), jnp.full((3, 4), -1.0)
  batch = lambda old: GroupBatch(*[None] * 3, old, None, None)
  scores = lambda x: Scores(x, x, None, x > 0)
  assert old_logprobs(batch(old), scores(new)) == (old, {})
  chosen, metrics = old_logprobs(batch(None), scores(new))
  np.testing.assert_array_equal(chosen, new)
  np.testing.assert_array_equal(metrics[LOGPROBS], new)
  gradient = jax.grad(lambda x: jnp.sum(old_logprobs(batch(None), scores(x))[0]))(new)
  assert not gradient.any()
