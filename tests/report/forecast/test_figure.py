"""Bands as rows, and the figures of few and of many methods."""

import numpy as np
import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.forecast import curves, figure

COLOURS = {"sft": "#D1622B", "ppo": "#2B6CB0"}
METHODS = {"sft": "SFT", "ppo": "PPO"}


@pytest.fixture
def rows(sigmoid_study, tmp_path):
  return figure.band_rows(curves.of_study(read_workdir.read_study(sigmoid_study(tmp_path / "study"))))


def test_rows_hold_bands_to_the_target_and_every_evaluation(rows):
  bands = [row for row in rows if row["kind"] == "band"]
  dots = [row for row in rows if row["kind"] == "point"]
  assert all(row["low"] <= row["value"] <= row["high"] for row in bands)
  assert max(row["flops"] for row in bands) == 4e12 and min(row["flops"] for row in bands) == 0
  assert len(dots) == 2 * 2 * 3 * 7 and max(row["flops"] for row in dots) == 2e12
  falling = [row["value"] for row in bands if (row["method"], row["variant"]) == ("sft", "rule_ood")]
  assert np.all(np.diff(falling) < 0.01) and falling[0] - falling[-1] > 0.2


def test_a_panel_a_variant_with_a_line_a_method(rows):
  drawing = figure.bands(rows, {"id_seen": "ID", "rule_ood": "OOD"}, METHODS, COLOURS, ["id_seen"])
  assert [axis.get_title(loc="left") for axis in drawing.axes] == ["ID", "OOD"]
  for axis in drawing.axes:
    assert len(axis.collections) == 2 and {text.get_text() for text in axis.texts} == {"SFT", "PPO"}
  reached = [line.get_xdata()[0] for line in drawing.axes[0].lines if list(line.get_ydata()) == [0, 1]]
  assert reached == [2e12]


def test_a_panel_a_method_with_a_line_a_variant(rows):
  drawing = figure.bands(rows, METHODS, METHODS, COLOURS, ["id_seen"])
  assert [axis.get_title(loc="left") for axis in drawing.axes] == ["SFT", "PPO"]
  assert all(len(axis.collections) == 2 and not axis.texts for axis in drawing.axes)


def test_nothing_to_forecast_has_no_rows(sigmoid_study, tmp_path):
  assert figure.band_rows(curves.of_study(read_workdir.read_study(
      sigmoid_study(tmp_path / "short", shares=(0, 1))))) == []
