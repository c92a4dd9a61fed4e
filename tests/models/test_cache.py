"""A cache holds what was read, in the rows and at the places where it was read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs
from sftrl_jax.models import cache


@pytest.fixture(scope="module")
def read(grouped, ragged):
  """(extend, a cache of 7 places that has read the ragged rows)."""
  prompt, extend = inputs.left_pad(ragged, 7), grouped.extend
  return extend, extend(cache.empty(grouped.model.config, 4, 7), prompt)[1]


def next_token():
  """One more token of each ragged row."""
  return inputs.Inputs(*(jnp.asarray(x, jnp.int32)[:, None] for x in ([1, 2, 3, 4], [3, 7, 1, 5], [1] * 4)))


def test_an_empty_cache_holds_nothing(grouped):
  config = grouped.model.config
  past = cache.empty(config, 3, 5)
  assert past.segments_BS.sum() == 0 and past.index == 0
  assert len(past.keys_BKSC) == len(past.values_BKSC) == config.layers
  assert {x.shape for x in (*past.keys_BKSC, *past.values_BKSC)} == {(3, config.kv_heads, 5, config.head_dim)}


def test_a_cache_has_the_dtype_of_the_activations(half):
  assert cache.empty(half.model.config, 1, 2).keys_BKSC[0].dtype == jnp.bfloat16


def test_growing_keeps_everything_and_adds_empty_places(read):
  _, past = read
  grown = cache.grow(past, 11)
  assert grown.index == past.index and grown.segments_BS[:, 7:].sum() == 0
  for left, right in zip(jax.tree.leaves(cache.grow(past, 7)), jax.tree.leaves(past), strict=True):
    np.testing.assert_array_equal(left, right)
  for old, new in zip((*past.keys_BKSC, *past.values_BKSC), (*grown.keys_BKSC, *grown.values_BKSC), strict=True):
    assert new.shape[2] == 11
    np.testing.assert_array_equal(new[:, :, :7], old)


def test_a_cache_does_not_shrink(read):
  with pytest.raises(ValueError, match="7 tokens cannot grow to 6"):
    cache.grow(read[1], 6)


def test_taking_rows_commutes_with_growing_and_may_repeat(read):
  _, past = read
  rows = jnp.asarray([2, 0, 2])
  left, right = cache.grow(cache.take(past, rows), 9), cache.take(cache.grow(past, 9), rows)
  for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    np.testing.assert_array_equal(x, y)
  np.testing.assert_array_equal(left.keys_BKSC[1][0], left.keys_BKSC[1][2])
  np.testing.assert_array_equal(left.positions_BS[1, :7], past.positions_BS[0])


def test_reserving_marks_the_next_places_only(read):
  past = cache.grow(read[1], 11)
  positions, segments = jnp.full((4, 2), 9, jnp.int32), jnp.asarray([[1, 1], [1, 0], [0, 0], [1, 1]], jnp.int32)
  after = cache.reserve(past, positions, segments)
  assert after.index == past.index + 2
  np.testing.assert_array_equal(after.segments_BS[:, 7:9], segments)
  np.testing.assert_array_equal(after.positions_BS[:, 7:9], positions)
  for name in ("positions_BS", "segments_BS"):
    np.testing.assert_array_equal(getattr(after, name)[:, :7], getattr(past, name)[:, :7])
    assert not getattr(after, name)[:, 9:].any()


def test_how_much_room_there_is_changes_nothing(read, same):
  extend, past = read
  token = next_token()
  tight, _ = extend(cache.grow(past, 8), token)
  roomy, _ = extend(cache.grow(past, 20), token)
  same(tight, roomy)


def test_what_lies_in_empty_places_changes_nothing(read):
  extend, past = read
  past = cache.grow(past, 9)
  token = next_token()
  unseen = (past.segments_BS == 0)[:, None, :, None]
  dirty = past.replace(keys_BKSC=tuple(jnp.where(unseen, 99.0, x) for x in past.keys_BKSC),
                       values_BKSC=tuple(jnp.where(unseen, -99.0, x) for x in past.values_BKSC))
  np.testing.assert_array_equal(extend(past, token)[0], extend(dirty, token)[0])


def test_rows_that_were_taken_are_put_back_where_they_came_from(read):
  _, past = read
  rows = np.asarray([2, 0, 9])   # 9: of no row
  newer = cache.take(past, jnp.asarray([2, 0, 1]))
  newer = jax.tree.map(lambda x: x + 1, newer)
  whole = cache.put(past, jnp.asarray(rows), newer)
  assert whole.index == newer.index
  for old, new, put in zip(*(jax.tree.leaves(each.replace(index=None)) for each in (past, newer, whole)), strict=True):
    np.testing.assert_array_equal(put[2], new[0])
    np.testing.assert_array_equal(put[0], new[1])
    np.testing.assert_array_equal(put[jnp.asarray([1, 3])], old[jnp.asarray([1, 3])])


def test_the_layers_of_a_cache_make_it_up(read):
  _, past = read
  layers = cache.layers_of(past)
  assert len(layers) == len(past.keys_BKSC) and all(len(layer.keys_BKSC) == 1 for layer in layers)
  for left, right in zip(jax.tree.leaves(cache.of_layers(layers)), jax.tree.leaves(past), strict=True):
    np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("index, newer_index", [(0, 7), (4, 7), (11, 7), (5, 2)])
def test_what_enters_a_ring_stands_before_its_index_in_order(read, index, newer_index):
  _, past = read
  ring = cache.grow(past, 11).replace(index=jnp.int32(index))
  newer = jax.tree.map(lambda x: jnp.roll(x + 1, newer_index, axis=-1 if x.ndim == 2 else 2) if x.ndim else x, past)
  entered = cache.enter(ring, jnp.asarray([2, 4, 0, 4]), newer.replace(index=jnp.int32(newer_index)))
  assert entered.index == index and cache.wrapped(entered).index == index % 11
  for name, axis in (("keys_BKSC", 2), ("values_BKSC", 2), ("positions_BS", 1), ("segments_BS", 1)):
    leaves = lambda tree, name=name: jax.tree.leaves(getattr(tree, name))
    for old, new, source in zip(leaves(ring), leaves(entered), leaves(past), strict=True):
      straight = np.roll(new, -index, axis)
      np.testing.assert_array_equal(np.take(straight, range(4, 11), axis)[[2, 0]], source[np.asarray([0, 2])] + 1)
      assert not np.take(straight, range(4), axis)[[2, 0]].any()
      np.testing.assert_array_equal(new[np.asarray([1, 3])], old[np.asarray([1, 3])])   # others, and those left out
