"""The figure of the weights, of models with and without a tower of pictures."""

import math

import pytest

from sftrl_jax.report.weights import figure


def line(part, layer, group="sft", base="mean", **changes):
  return {"group": group, "base": base, "part": part, "layer": layer, "relative": 0.1, "left": 3.0, "right": 5.0,
          **changes}


@pytest.mark.parametrize(("parts", "columns"), [
    (["attention", "mlp", "embedding"], 3), (["attention", "mlp", "vision", "norm"], 4), (["head"], 1)])
def test_parts_with_layers_have_a_panel_and_the_others_share_one(parts, columns):
  rows = [line(part, layer) for part in parts for layer in range(2)]
  drawing = figure.weights(rows, {"sft": "SFT"}, {"sft": "#D1622B"})
  assert len(drawing.axes) == 2 * columns
  assert {float(y) for axis in drawing.axes for drawn in axis.lines for y in drawn.get_ydata()} == {0.1, 4.0}


def test_what_was_not_measured_is_not_drawn():
  rows = [line("attention", 0, relative=math.nan, left=math.nan, right=math.nan), line("attention", 1, right=math.nan)]
  drawing = figure.weights(rows, {"sft": "SFT"}, {"sft": "#D1622B"})
  assert [len(drawn.get_xdata()) for axis in drawing.axes for drawn in axis.lines] == [1, 1]


def test_methods_of_one_colour_are_counted():
  rows, colours = [line("mlp", 0, group) for group in "abc"], {"a": "#000000", "b": "#111111", "c": "#111111"}
  drawing = figure.weights(rows, {"a": "SFT", "b": "PPO", "c": "GRPO"}, colours)
  assert [text.get_text() for text in drawing.legends[0].get_texts()] == ["SFT", "2 methods"]
