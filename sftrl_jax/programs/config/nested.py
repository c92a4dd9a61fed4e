"""Nested dicts by dotted path: {"a": {"b": 1}} holds 1 at "a.b"."""

from ml_collections import ConfigDict


def plain(config):
  """Nested dicts of a ConfigDict or a dict, all new; a dotted key of a plain dict becomes a nested one."""
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


def put(tree, path, value) -> None:
  *above, last = path.split(".")
  for name in above:
    tree = tree.setdefault(name, {})
  tree[last] = value


def at(tree, path):
  for name in path.split("."):
    tree = tree[name]
  return tree


def flat(tree, above="") -> dict:
  pairs = {}
  for key, value in tree.items():
    pairs.update(flat(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}": value})
  return pairs


def listed(value):
  return [listed(item) for item in value] if isinstance(value, (list, tuple)) else value
