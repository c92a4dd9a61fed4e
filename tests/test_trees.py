"""Leaves are found by where they stand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from sftrl_jax import trees


class Pair(NamedTuple):
  left: object
  right: object


@struct.dataclass
class State:
  params: dict
  slots: tuple


def tree():
  return State({"b": {"kernel": jnp.arange(6.0).reshape(2, 3)}, "a": jnp.float32(2)},
               (Pair(jnp.arange(4), jnp.ones(2, jnp.bfloat16)), [jnp.zeros(())]))


def test_paths_spell_dictionaries_fields_and_places():
  assert list(trees.leaves(tree())) == ["params/a", "params/b/kernel", "slots/0/left", "slots/0/right", "slots/1/0"]


def test_leaves_are_the_trees_leaves_in_order():
  for mine, theirs in zip(trees.leaves(tree()).values(), jax.tree.leaves(tree()), strict=True):
    np.testing.assert_array_equal(mine, theirs)


def test_mapping_keeps_the_structure_and_tells_the_path():
  seen = trees.map_with_path(lambda path, leaf: (path, leaf.shape), tree())
  assert seen.params["b"]["kernel"] == ("params/b/kernel", (2, 3))
  assert seen.slots[0].right == ("slots/0/right", (2,))
  same = trees.map_with_path(lambda path, leaf: leaf, tree())
  assert jax.tree.structure(same) == jax.tree.structure(tree())


def test_exactly_one_pattern_matches_the_whole_path():
  table = {r"a/.*": 1, r"b/kernel": 2, r"b/(kernel|bias)": 3}
  assert trees.the_one(table, "a/x", "the table") == 1
  assert trees.the_one(table, "b/bias", "the table") == 3
  for path in ("b/kernel", "c", "xa/x", "b/bias/more"):
    with pytest.raises(ValueError, match=f"{path} matches . patterns of the table"):
      trees.the_one(table, path, "the table")


def test_size_counts_numbers():
  assert trees.size(tree()) == 6 + 1 + 4 + 2 + 1
  assert trees.size({}) == 0
  assert trees.size(jax.eval_shape(tree)) == trees.size(tree())


def test_casting_leaves_integers_alone():
  dtypes = {path: leaf.dtype for path, leaf in trees.leaves(trees.cast(tree(), jnp.bfloat16)).items()}
  assert dtypes.pop("slots/0/left") == tree().slots[0].left.dtype
  assert set(dtypes.values()) == {jnp.dtype(jnp.bfloat16)}


def test_the_norm_is_that_of_all_leaves_as_one_vector():
  flat = np.concatenate([np.asarray(leaf, np.float32).ravel() for leaf in jax.tree.leaves(tree())])
  np.testing.assert_allclose(trees.norm(tree()), np.linalg.norm(flat), rtol=1e-6)
  many = {"x": jnp.full(4096, 3.0, jnp.bfloat16)}  # summed in bf16 this would be far off
  np.testing.assert_allclose(trees.norm(many), 3 * 64, rtol=1e-6)
