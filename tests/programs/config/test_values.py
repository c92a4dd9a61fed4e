"""Text and file values become what their key declares, or an error that says what it accepts."""

from typing import Literal

import pytest

from sftrl_jax.programs.config import values


@pytest.mark.parametrize(("text", "kind", "value"), [
    ("true", bool, True), ("False", bool, False), ("7", int, 7), ("-3", int, -3), ("1e6", int, 1_000_000),
    ("3e-4", float, 3e-4), ("2", float, 2.0), ("2.4e12", float, 2.4e12), ("1e3", str, "1e3"), ("", str, ""),
    ("b", Literal["a", "b"], "b"), ("2", Literal[1, 2], 2), ("(1, 2)", tuple[int, ...], (1, 2)),
    ("[1, 2]", tuple[float, ...], (1.0, 2.0)), ("greedy, top", tuple[str, ...], ("greedy", "top")),
    ("{'a': 1}", dict, {"a": 1}), ("10", int | tuple[int, int, int], 10),
    ("(11, 12, 13)", int | tuple[int, int, int], (11, 12, 13)), ("any", int | str, "any"), ("3", int | str, 3),
    ("[1, 'x']", list, [1, "x"]), ("0.5", object, 0.5), ("word", object, "word"), ("true", object, True),
])
def test_text_becomes_the_declared_kind(text, kind, value):
  parsed = values.parse(text, kind)
  assert parsed == value
  assert type(parsed) is type(value)


@pytest.mark.parametrize(("text", "kind", "rule"), [
    ("1", bool, "true or false"), ("0.5", int, "whole number"), ("many", int, "whole number"), ("inf", int, "whole"),
    ("nan", float, "finite"), ("x", float, "finite"), ("c", Literal["a", "b"], "'a', 'b'"),
    ("3", tuple[int, ...], "tuple of int"), ("(1, 'x')", tuple[int, ...], "int"),
    ("(1, 2)", tuple[int, int, int], "3 values"),
    ("[1]", dict, "dict"), ("(" * 5000, tuple, "tuple"), ("None", tuple, "tuple"), ("2147483648", int, "from"),
    ("-1e12", int, "from -2147483647 to 2147483647"), ("9" * 400, int, "from|whole"), ("1e999", object, "finite"),
    ("(1.0, 1e999)", tuple[float, ...], "finite"), ("{1, 2}", object, "holds only numbers"), ("b'x'", object, "only"),
])
def test_a_wrong_text_is_told_the_rule(text, kind, rule):
  with pytest.raises(ValueError, match=rule):
    values.parse(text, kind)


def test_text_is_never_run():
  hostile = "__import__('os').getcwd()"
  assert values.literal(hostile) == hostile


@pytest.mark.parametrize(("value", "kind", "fitted"), [
    (1, float, 1.0), ([1, 2], tuple[int, ...], (1, 2)), ({"a": 1}, dict[str, float], {"a": 1.0}), ("x", str, "x"),
    (True, bool, True), ((1, 2), tuple, (1, 2)), (10, int | tuple[int, int, int], 10), (3, object, 3),
])
def test_a_file_value_keeps_its_meaning(value, kind, fitted):
  assert values.fit(value, kind) == fitted
  assert type(values.fit(value, kind)) is type(fitted)


@pytest.mark.parametrize(("value", "kind"), [
    (None, str), (1.5, int), (True, int), (1, bool), ("1", int), ("ab", tuple[str, ...]), (3, Literal["a"]), (1, str),
    ((1, None), tuple), (True, Literal[1]), (False, float),
])
def test_a_file_value_of_another_kind_is_refused(value, kind):
  with pytest.raises(ValueError, match=r"should be|None"):
    values.fit(value, kind)


@pytest.mark.parametrize(("value", "kind", "rule"), [
    (float("nan"), float, "finite"), ((1.0, float("inf")), tuple[float, ...], "finite"), (2**31, int, "2147483647"),
    ({"a": {"b": float("nan")}}, dict, "finite"), (len, object, "holds only numbers"), ({"a": {1}}, dict, "only"),
])
def test_what_config_json_or_a_device_cannot_hold_is_refused(value, kind, rule):
  with pytest.raises(ValueError, match=rule):
    values.fit(value, kind)


def test_kinds_are_written_for_people():
  assert values.describe(Literal["adam", "muon"]) == "'adam' | 'muon'"
  assert values.describe(tuple[int, ...]) == "tuple of int"
  assert values.describe(int | tuple[int, int]) == "int or tuple of int, int"
  assert values.describe(dict[str, float]) == "dict of float"
  assert values.describe(object) == "any"
