"""A study of many methods is one table and a few figures, however many they are."""

import itertools
import json

import pytest

from sftrl_jax.report import read_workdir, write
from sftrl_jax.report.pages import many_methods
from sftrl_jax.report.stats import effects


@pytest.fixture
def many(make_study, make_run, tmp_path):
  """Two bases and twelve methods, of which way_3 is the reference."""
  make_study(tmp_path, bases=2, episodes=40, skip=[f"base-{b}-{m}-0" for b in (0, 1) for m in ("sft", "ppo")])
  names = [f"way_{number}" for number in range(12)]
  for base in (0, 1):
    for seed, name in enumerate(names):
      make_run(tmp_path / "runs" / f"base-{base}-{name}-0", "sft", base=base, seed=seed, episodes=40, points=2)
  content = json.loads((tmp_path / "study.json").read_text())
  content |= {"methods": {name: name for name in names}, "reference": "way_3"}
  (tmp_path / "study.json").write_text(json.dumps(content))
  return tmp_path


def test_many_methods_have_a_row_each(many, monkeypatch):
  measure = effects.measure
  monkeypatch.setattr(write.effects, "measure", lambda study: measure(study, resamples=100))
  monkeypatch.setattr(write.study_figures, "DPI", 50)
  path = write.write_study(many)
  markdown = path.with_suffix(".md").read_text()
  for name in ("methods", "curves", "codes"):
    assert (path.parent / f"{name}.png").exists() and (path.parent / f"{name}.csv").exists(), name
  lines = [line for line in markdown.splitlines() if line.startswith("| way_7")]
  assert len(lines) >= 4 and "minus way_3" in markdown and "12 methods are ordered" in markdown
  assert "Claims" not in markdown
  text = write.summary(many)
  assert "HOLDS" not in text and "id_seen greedy" in text
  assert sum(line.startswith("way_7") for line in text.splitlines()) == 1
  assert write.draw_curve(many, many / "curve.png").exists()


def test_the_ends_on_six_variants_stand_apart_under_titles_that_are_read_whole(make_study, tmp_path):
  make_study(tmp_path, bases=2, episodes=20)
  for path in (tmp_path / "runs").glob("*/evals.jsonl"):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    shifted = [line for line in lines if line["variant"] == "rule_ood"]
    lines += [{**line, "variant": f"other_words_and_texts_{number}_ood"} for number in range(4) for line in shifted]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  study = read_workdir.read_study(tmp_path)
  rows = many_methods.effect_rows(effects.measure(study, resamples=20))
  figure = many_methods.ends_figure([row for row in rows if row["quantity"] in ("start", "end")], study, ["sft", "ppo"])
  figure.draw_without_rendering()
  boxes = [axis.get_tightbbox() for axis in figure.axes]
  assert len(boxes) == len(study.own_variants) >= 6 and max(box.x1 for box in boxes) <= figure.bbox.x1
  assert not any(left.overlaps(right) for left, right in itertools.combinations(boxes, 2))


def test_the_best_in_distribution_comes_first(many):
  study = read_workdir.read_study(many)
  measured = effects.measure(study, resamples=20)
  ends = [measured.find("end", method, "id_seen", 0.0).value for method in many_methods.ranked(study, measured)]
  assert len(ends) == 12 and ends == sorted(ends, reverse=True)


def test_recorded_arms_are_all_there_in_the_order_of_their_claims(arms_study, tmp_path, monkeypatch):
  measure = effects.measure
  monkeypatch.setattr(write.effects, "measure", lambda study: measure(study, resamples=50))
  monkeypatch.setattr(write.study_figures, "DPI", 50)
  path = write.write_study(arms_study, tmp_path)
  text = path.with_suffix(".md").read_text()
  lines = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith(("| SFT", "| PPO"))]
  arms = ["SFT", "PPO HALF", "SFT EQUAL", "SFT EARLY", "PPO", "PPO CLEAN", "PPO LATE", "PPO NEVER"]
  assert [line for line in lines if line in arms][:8] == arms
  assert "Why there is sft_early." in text and "ordered by their results" not in text
  assert "PPO HALF ends above SFT EARLY at equal FLOPs" in text and "base-1-ppo_late-0 is not finished" in text
  gaps = text.partition("| minus SFT")[2].partition("\n\n")[0]
  assert "PPO HALF" in gaps and "PPO CLEAN" not in gaps
  for name in ("methods", "curves", "curves_updates", "codes"):
    assert (tmp_path / f"{name}.png").exists(), name


def test_a_reference_is_one_of_the_methods(many):
  content = json.loads((many / "study.json").read_text())
  (many / "study.json").write_text(json.dumps(content | {"reference": "nobody"}))
  with pytest.raises(ValueError, match="reference is 'nobody'"):
    read_workdir.read_study(many)
