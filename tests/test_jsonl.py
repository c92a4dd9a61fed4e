"""Lines that survive a kill at any moment, where files are appended to and where they cannot be."""

import json

import pytest

from sftrl_jax import jsonl
from sftrl_jax.jsonl import Writer, append_line


def lines(path):
  return [json.loads(line) for file in jsonl.files(path) for line in jsonl.read_text(file).splitlines()]


def test_lines_are_appended_whole(tmp_path):
  path = tmp_path / "x.jsonl"
  for step in range(3):
    append_line(path, {"step": step, "text": "a\nb"})
  assert lines(path) == [{"step": step, "text": "a\nb"} for step in range(3)]


def test_what_is_not_finite_is_written_as_text(tmp_path):
  append_line(tmp_path / "x", {"loss": float("nan"), "deep": {"a": [1.0, float("-inf")]}, "b": (float("inf"),)})
  text = (tmp_path / "x").read_text()
  refuse = lambda name: pytest.fail(f"{name} is no JSON")
  assert json.loads(text, parse_constant=refuse) == {"loss": "nan", "deep": {"a": [1.0, "-inf"]}, "b": ["inf"]}


def test_a_file_here_grows_line_by_line_and_a_part_in_a_bucket_is_written_once(tmp_path, objects):
  for home, names in ((tmp_path, ["x.jsonl"]), (objects, ["x.00001.jsonl", "x.00002.jsonl"])):
    writer = Writer(home / "x.jsonl")
    writer.write({"step": 1})
    assert bool(jsonl.files(home / "x.jsonl")) == (home is tmp_path)
    writer.write({"step": 2})
    writer.close_part()
    writer.close_part()   # nothing is held: no part
    writer.write({"step": 3})
    assert writer.size == 3 * len('{"step": 1}\n')
    writer.close_part()
    assert [file.name for file in jsonl.files(home / "x.jsonl")] == names
    assert [line["step"] for line in lines(home / "x.jsonl")] == [1, 2, 3]
    assert Writer(home / "x.jsonl").size == 3 * len('{"step": 1}\n')
    jsonl.remove(home / "x.jsonl")
    assert not jsonl.files(home / "x.jsonl") and lines(home / "x.jsonl") == []


def test_parts_are_read_by_number_behind_an_older_file_and_others_are_not_theirs(tmp_path):
  for name, step in (("x.100000.jsonl", 4), ("x.00009.jsonl", 2), ("x.99999.jsonl", 3), ("x.jsonl", 1),
                     ("x.1.jsonl", 9), ("xy.00001.jsonl", 9), ("x.00001.jsonl.part", 9)):
    append_line(tmp_path / name, {"step": step})
  assert [line["step"] for line in lines(tmp_path / "x.jsonl")] == [1, 2, 3, 4]


def test_a_workdir_with_parts_keeps_to_them_wherever_it_is(tmp_path):
  append_line(tmp_path / "x.00003.jsonl", {"step": 1})
  writer = Writer(tmp_path / "x.jsonl")
  writer.write({"step": 2})
  assert [line["step"] for line in lines(tmp_path / "x.jsonl")] == [1]
  writer.close_part()
  assert [file.name for file in jsonl.files(tmp_path / "x.jsonl")] == ["x.00003.jsonl", "x.00004.jsonl"]


def test_a_cut_touches_only_what_has_to_go(objects):
  for number, steps in enumerate([(1, 2), (3, 4), (5, 6), (7, 8)], start=1):
    (objects / f"x.{number:05d}.jsonl").write_text("".join(jsonl.text_of({"step": step}) for step in steps))
  untouched = {name: id(text) for name, text in objects.stored.items()}
  jsonl.cut(objects / "x.jsonl", lambda line: line["step"] <= 5)
  assert [line["step"] for line in lines(objects / "x.jsonl")] == [1, 2, 3, 4, 5]
  same = [name[-13:] for name, text in objects.stored.items() if untouched[name] == id(text)]
  assert same == ["x.00001.jsonl", "x.00002.jsonl"] and len(objects.stored) == 3


def test_a_part_that_could_not_be_written_is_not_lost(objects):
  writer = Writer(objects / "x.jsonl")
  writer.write({"step": 1})
  type(objects).left = 0
  with pytest.raises(objects.killed):
    writer.close_part()
  type(objects).left = None
  writer.write({"step": 2})
  writer.close_part()
  assert [line["step"] for line in lines(objects / "x.jsonl")] == [1, 2]
