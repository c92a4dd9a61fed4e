"""Trees of arrays: their leaves by path, mapped by pattern, counted and cast."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def path_of(keys) -> str:
  """`layers/attn/q/kernel` for a key path as jax.tree_util gives it."""
  return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in keys)


def leaves(tree) -> dict[str, Any]:
  """Path -> leaf, in the tree's order."""
  return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def map_with_path(function: Callable[[str, Any], Any], tree):
  """`function(path, leaf)` on every leaf; the structure stays."""
  return jax.tree_util.tree_map_with_path(lambda keys, leaf: function(path_of(keys), leaf), tree)


def the_one(patterns: Mapping[str, Any], path: str, table: str):
  """The value of the only pattern that matches the whole path; none or two is an error that names the table."""
  found = [pattern for pattern in patterns if re.fullmatch(pattern, path)]
  if len(found) != 1:
    raise ValueError(f"{path} matches {len(found)} patterns of {table} {found}: give it exactly one.")
  return patterns[found[0]]


def size(tree) -> int:
  """How many numbers the tree holds."""
  return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def cast(tree, dtype):
  """Floating leaves in another dtype; integers stay."""
  return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def norm(tree) -> jax.Array:
  """Global L2 norm in f32."""
  return jnp.sqrt(sum(jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree)))
