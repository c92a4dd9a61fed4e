"""Nested dicts by dotted path: {"a": {"b": 1}} holds 1 at "a.b"."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def plain(config: Any) -> Any:
  """A copy of a config as dicts, lists, tuples and values; a dotted key of a dict becomes a nested one."""
  if isinstance(config, ConfigDict):
    config = config.to_dict()
  if isinstance(config, (list, tuple)):
    return type(config)(plain(item) for item in config)
  if not isinstance(config, dict):
    return config
  tree = {}
  for key, value in config.items():
    put(tree, str(key), plain(value))
  return tree


def put(tree: dict, path: str, value: Any) -> None:
  """Sets the value at a dotted path, with the dicts on the way."""
  *above, last = path.split(".")
  for name in above:
    tree = tree.setdefault(name, {})
  tree[last] = value


def at(tree: Mapping, path: str) -> Any:
  """The value at a dotted path; KeyError where there is none."""
  for name in path.split("."):
    tree = tree[name]
  return tree


def flat(tree: Mapping, above: str = "") -> dict[str, Any]:
  """{dotted path: value}; an empty dict is a value. above: the path of `tree` with a final dot, "" for the root."""
  pairs = {}
  for key, value in tree.items():
    pairs.update(flat(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}": value})
  return pairs


def listed(value: Any) -> Any:
  """The value with its tuples as lists, as it comes back from JSON."""
  return [listed(item) for item in value] if isinstance(value, (list, tuple)) else value
