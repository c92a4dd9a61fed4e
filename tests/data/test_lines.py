"""Rows of JSON: what editors and other systems leave in files, and keys of which one value would be lost."""

import json

import pytest

from sftrl_jax.data.lines import BadRow, array, lines

BOM = b"\xef\xbb\xbf"


def test_files_of_windows_and_joined_files_are_read(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_bytes(BOM + b'{"text": "a"}\r\n\r\n' + BOM + b'{"text": "b\\r\\n", "x": null}\r\n')
  rows = list(lines(path))
  assert [(row.number, row.value, row.columns) for row in rows] == [
      (1, {"text": "a"}, ("text",)), (3, {"text": "b\r\n", "x": None}, ("text",))]
  path.write_bytes(BOM + b'[{"text": "a"},\r\n{"text": "b"}]\r\n')
  assert [row.value["text"] for row in array(path)] == ["a", "b"]


@pytest.mark.parametrize(("row", "key"), [
    ('{"text": "a", "text": "a"}', "text"), ('{"messages": [{"role": "user", "role": "user"}]}', "role"),
    ('{"a": {"b": [{"c": 1, "c": 2}]}}', "c")])
def test_a_key_that_is_there_twice_is_a_fault_wherever_it_is(row, key, tmp_path):
  text = '{"text": "x"}'
  (tmp_path / "a.jsonl").write_text("\n".join((text, row, text)))
  (tmp_path / "a.json").write_text(f"[{text}, {row}, {text}]")
  for rows in (list(lines(tmp_path / "a.jsonl")), list(array(tmp_path / "a.json"))):
    assert [row.fault and (row.fault.reason, row.fault.column) for row in rows] == [None, ("a key twice", key), None]
    assert isinstance(rows[1].fault, BadRow) and rows[1].number == 2 and f"{key!r} twice" in str(rows[1].fault)


def test_numbers_of_any_size_and_texts_of_any_kind_are_read(tmp_path):
  row = {"n": 10**400, "x": 1e999, "t": "\ud83d\u0000", "deep": [[[None]]]}
  (tmp_path / "a.jsonl").write_text(json.dumps(row))
  only, = lines(tmp_path / "a.jsonl")
  assert only.value == row and only.fault is None
