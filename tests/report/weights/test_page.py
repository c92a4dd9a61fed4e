"""The chapter on the weights: of a run by part, of a study by method."""

import json

import pytest

from sftrl_jax.report import read_workdir, write
from sftrl_jax.report.weights import page
from sftrl_jax.report.weights.rows import PARTS


def write_weights(home, distance, layers=2):
  rows = [{"path": f"{part}/kernel", "part": part, "layer": layer, "numbers": 100, "norm": 10.0,
           "distance": distance * (1 + layer), "moved": 10 * (layer + 1), "spectrum": 0.01, "left": 5.0, "right": 7.0}
          for part in ("attention", "mlp", "vision") for layer in range(layers)]
  rows += [{"path": part, "part": part, "layer": 0, "numbers": 10, "norm": 2.0, "distance": distance / 5, "moved": 1,
            "spectrum": None, "left": None, "right": None} for part in ("embedding", "norm", "head")]
  (home / "weights.json").write_text(json.dumps({"step": 4, "start": "base", "rows": rows}))


@pytest.fixture
def study_home(make_study, tmp_path):
  home = make_study(tmp_path / "study", bases=3, episodes=40)
  for base in range(3):
    write_weights(home / "runs" / f"base-{base}-sft-0", 2.0 + base)
    write_weights(home / "runs" / f"base-{base}-ppo-0", 1.0)
  return home


def test_a_study_has_a_row_a_method_with_the_spread_over_bases(study_home, tmp_path):
  html = write.write_study(study_home, tmp_path / "report").read_text()
  assert page.TITLE in html and (tmp_path / "report" / "weights.png").is_file()
  study = read_workdir.read_study(study_home)
  chapter = page.Chapter(study, None, {"sft": "#000000", "ppo": "#111111"}, tmp_path / "alone")
  table = page.study_blocks(chapter)[1]
  assert [row[:2] for row in table.rows] == [("SFT", "3"), ("PPO", "3")]
  distance = [15 ** 0.5 * base + 0.0 for base in (2, 3, 4)]   # three parts of 1 and 2 squared, but for the small ones
  least, most = table.rows[0][2].split("[")[1].rstrip("]").split(" to ")
  assert float(least) == pytest.approx(distance[0], rel=.01) and float(most) == pytest.approx(distance[2], rel=.01)
  assert table.rows[1][6] == "5.0° [5.0° to 5.0°]"
  lines = (tmp_path / "alone" / "weights.csv").read_text().splitlines()
  assert lines[0].startswith("group,base,part,layer,distance") and len(lines) == 1 + 2 * 4 * 9


def test_a_run_has_a_row_a_part(study_home, tmp_path):
  home = study_home / "runs" / "base-0-sft-0"
  table = page.run_blocks(read_workdir.read_run(home), tmp_path)[1]
  assert [row[0] for row in table.rows] == [*PARTS.values(), "all"]
  assert page.TITLE in write.write_run(home, tmp_path / "report").read_text()


def test_there_is_no_chapter_without_weights(make_study, tmp_path):
  home = make_study(tmp_path / "study", bases=1, episodes=40)
  chapter = page.Chapter(read_workdir.read_study(home), None, {}, tmp_path)
  assert page.study_blocks(chapter) == page.run_blocks(read_workdir.read_run(home / "runs" / "base-0-sft-0"),
                                                       tmp_path) == []
