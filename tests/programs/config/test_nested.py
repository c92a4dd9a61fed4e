"""Nested dicts by dotted path."""

from ml_collections import ConfigDict

from sftrl_jax.programs.config import nested


def test_flat_and_put_are_inverse():
  tree = {"a": {"b": 1, "c": {"d": (1, 2)}}, "e": {}, "f": "x"}
  again = {}
  for path, value in nested.flat(tree).items():
    nested.put(again, path, value)
  assert again == tree
  assert all(nested.at(tree, path) == value for path, value in nested.flat(tree).items())


def test_plain_takes_config_dicts_and_dotted_keys_and_shares_nothing():
  inner = {"x.y": 1}
  tree = nested.plain({"a": ConfigDict({"b": {"c": 1}}), "d": inner, "e": [inner]})
  assert tree == {"a": {"b": {"c": 1}}, "d": {"x": {"y": 1}}, "e": [{"x": {"y": 1}}]}
  tree["d"]["x"]["y"] = 2
  assert inner == {"x.y": 1}


def test_tuples_are_listed_at_every_depth():
  assert nested.listed((1, (2, [3]))) == [1, [2, [3]]]
