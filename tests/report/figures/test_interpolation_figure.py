"""Success between the start and the end of a run, drawn from the lines of its evaluations."""

import json
import math

from sftrl_jax.report.figures import interpolation_figure


def line(share, variant="id_seen", **changes):
  return {"share": share, "variant": variant, "temperature": 0.0, "success": share / 2, "ci95": [0, share / 2 + .1],
          **changes}


def test_points_are_written_in_the_order_of_shares(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"verb": "rl"}))
  lines = [line(share, variant) for share in (1, 0, .5) for variant in ("id_seen", "rule_ood")]
  path = interpolation_figure.draw(lines, tmp_path, tmp_path / "out")
  assert path.is_file()
  rows = path.with_suffix(".csv").read_text().splitlines()
  assert rows[0] == "share,variant,temperature,measure,success,low,high"
  assert [row.split(",")[0] for row in rows[1:]] == ["0", "0", "0.5", "0.5", "1", "1"]


def test_a_task_without_right_and_wrong_has_a_score(tmp_path):
  rows = interpolation_figure.interpolation_rows([line(1, verifies=False, reward=2.5), line(0, verifies=False)])
  assert [row["measure"] for row in rows] == ["score"] * 2 and rows[1]["success"] == 2.5 and math.isnan(rows[1]["low"])
