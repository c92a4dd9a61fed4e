"""weights.json read back: sums over parts and layers, and what is damaged."""

import json
import math

import pytest

from sftrl_jax.report.weights import rows


def row(part, layer=0, **changes):
  return {"path": f"{part}/kernel", "part": part, "layer": layer, "numbers": 4, "norm": 4.0, "distance": 3.0,
          "moved": 2, "spectrum": 0.1, "left": 10.0, "right": 20.0, **changes}


def written(directory, *content):
  (directory / "weights.json").write_text(json.dumps({"rows": list(content)}))
  return directory


def test_distances_add_as_squares_and_shares_as_numbers(tmp_path):
  read = rows.read(written(tmp_path, row("mlp"), row("mlp", 1, distance=4.0, norm=3.0, moved=4, left=None),
                           row("norm", numbers=2, spectrum=None, left=None, right=None)))
  parts = rows.by_part(read)
  assert list(parts) == ["mlp", "norm", "all"]
  assert parts["mlp"] == pytest.approx({
      "distance": 5.0, "relative": 1.0, "moved": 6 / 8, "spectrum": 0.1, "left": 10.0, "right": 20.0})
  assert parts["all"]["moved"] == pytest.approx(8 / 10) and math.isnan(parts["norm"]["left"])
  layers = rows.by_layer(read, "ppo", "base-0")
  assert [(line["part"], line["layer"], line["group"]) for line in layers] == [
      ("mlp", 0, "ppo"), ("mlp", 1, "ppo"), ("norm", 0, "ppo")]
  assert layers[1]["relative"] == pytest.approx(4 / 3)


def test_a_start_of_zeros_has_no_relative_distance():
  assert math.isnan(rows.summed([row("head", norm=0.0)])["relative"]) and not rows.summed([])


def test_a_run_without_the_file_has_no_rows(tmp_path):
  assert rows.read(tmp_path) == []


@pytest.mark.parametrize(("content", "rule"), [
    ({"rows": 3}, "must be a list"), ({}, "must be a list"), ({"rows": [[]]}, "row 1 must be an object"),
    ({"rows": [row("mlp"), row("nose")]}, "row 2 must be an object whose part is one of"),
    ({"rows": [row("mlp", distance=-1)]}, "distance is -1; it must be a number"),
    ({"rows": [row("mlp", moved="many")]}, "moved is many"), ([], "must hold a JSON object")])
def test_a_damaged_file_is_named(tmp_path, content, rule):
  (tmp_path / "weights.json").write_text(json.dumps(content))
  with pytest.raises(ValueError, match=rule) as error:
    rows.read(tmp_path)
  assert str(tmp_path / "weights.json") in str(error.value)
