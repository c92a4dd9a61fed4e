"""Trees of arrays: leaves by path, patterns of paths, sizes, casts and the norm."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def path_of(keys: tuple) -> str:
  """`layers/attn/q/kernel` for a key path of jax.tree_util."""
  return jax.tree_util.keystr(keys, simple=True, separator="/")


def leaves(tree: Any) -> dict[str, Any]:
  """{path: leaf}, in the tree's order."""
  return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def map_with_path(function: Callable[[str, Any], Any], tree: Any) -> Any:
  """`function(path, leaf)` on every leaf; the structure stays."""
  return jax.tree_util.tree_map_with_path(lambda keys, leaf: function(path_of(keys), leaf), tree)


def the_one(patterns: Mapping[str, Any], path: str, table: str) -> Any:
  """The value of the only pattern that matches the whole path; ValueError, which names the table, for none or two."""
  matches = [pattern for pattern in patterns if re.fullmatch(pattern, path)]
  if len(matches) != 1:
    raise ValueError(f"{path} matches {len(matches)} patterns of {table} {matches}: give it exactly one.")
  return patterns[matches[0]]


def size(tree: Any) -> int:
  """The number of entries of all arrays."""
  return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def cast(tree: Any, dtype: Any) -> Any:
  """Floating leaves in another dtype; integers stay."""
  return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def norm(tree: Any) -> jax.Array:
  """Global L2 norm in f32. Not optax.tree.norm: it sums bf16 leaves in bf16, and traces another graph."""
  return jnp.sqrt(sum(jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree)))


def stays_finite(before: Any, after: Any) -> jax.Array:
  """Whether every number that is finite in the one tree is finite in the next one, which is like it. A slot that an
  optimizer begins with infinity may keep it."""
  stays = [jnp.all(jnp.isfinite(new) | ~jnp.isfinite(old))
           for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
           if jnp.issubdtype(new.dtype, jnp.inexact)]
  return functools.reduce(jnp.logical_and, stays, jnp.bool_(True))
