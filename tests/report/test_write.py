import json
import subprocess
import sys

import pytest

from sftrl_jax.report import write
from sftrl_jax.report.stats import bootstrap

STUDY_FIGURES = ("effects_drawn", "curves", "frontier", "matched", "attempts", "codes", "kl", "unseen", "forecast")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
  measure = write.effects.measure
  monkeypatch.setattr(write.effects, "measure", lambda study: measure(study, resamples=200))
  monkeypatch.setattr(write.study_figures, "DPI", 50)
  assert bootstrap.RESAMPLES == 10_000


def test_a_study_is_written_whole(whole_study, tmp_path):
  path = write.write_study(whole_study, tmp_path / "out")
  assert path == tmp_path / "out" / "report.html"
  for name in STUDY_FIGURES:
    assert (path.parent / f"{name}.png").exists() and (path.parent / f"{name}.csv").exists(), name
  html, markdown = path.read_text(), (path.parent / "report.md").read_text()
  assert html.count("data:image/png;base64,") == len(STUDY_FIGURES) and "http" not in html.split("<body>")[1]
  for words in ("SFT memorizes, RL generalizes", "Claims", "What does not hold", "chosen after seeing base 0",
                "matched", "Early stopping", "One episode", "base-4-ppo-0", "sftrl study --config"):
    assert words in html and words in markdown, words
  assert not (whole_study / "report").exists()


def test_the_summary_gives_the_table_and_the_verdicts(whole_study):
  text = write.summary(whole_study)
  assert "HOLDS" in text and "matched id_seen" in text and text.count("rule_ood") >= 6
  assert "SFT     id_seen    greedy" in text


def test_a_study_with_nothing_is_still_a_report(make_study, tmp_path):
  make_study(tmp_path, bases=1, skip=("base-0-sft-0", "base-0-ppo-0"))
  assert "nothing to compare" in write.write_study(tmp_path).read_text()
  assert "no run has been evaluated" in write.summary(tmp_path)
  with pytest.raises(ValueError, match="two evaluations"):
    write.draw_curve(tmp_path, tmp_path / "curve.png")


def test_a_partial_study_says_what_is_missing(make_study, make_run, tmp_path):
  make_study(tmp_path, bases=3, episodes=60, skip=("base-1-ppo-0", "base-2-ppo-0", "base-2-sft-0"))
  make_run(tmp_path / "runs" / "base-2-sft-0", "sft", base=2, episodes=60, points=2, finished=False)
  with open(tmp_path / "runs" / "base-2-sft-0" / "evals.jsonl", "a") as file:
    file.write('{"step": 900, "var')
  text = write.write_study(tmp_path).read_text()
  assert "Not started: base-1-ppo-0" in text and "base-2-sft-0 is not finished (train, 40% done)" in text
  assert "Missing runs: base-1-ppo-0, base-2-ppo-0" in write.summary(tmp_path)


def test_one_method_alone_is_a_report(make_study, tmp_path):
  make_study(tmp_path, bases=2, episodes=40, skip=("base-0-ppo-0", "base-1-ppo-0"))
  assert "SFT change" in write.write_study(tmp_path).read_text()


def test_one_base_is_said_loudly(make_study, tmp_path):
  make_study(tmp_path, bases=1, episodes=60)
  assert "One base model" in write.write_study(tmp_path).read_text()
  assert "EPISODES OF ONE BASE ONLY" in write.summary(tmp_path)


LABELS = {"variants": {"three": "three numbers", "four": "<b>four$</b>"}, "codes": {"unsorted": "not sorted"}}


@pytest.mark.parametrize("recorded", [None, LABELS], ids=["names", "labels"])
def test_a_report_has_the_words_of_its_environment(make_study, tmp_path, recorded):
  """A report of another task has no hands or cards of GeneralPoints, and the verdicts are the task's own."""
  make_study(tmp_path, bases=2, episodes=40)
  for run in (tmp_path / "runs").iterdir():
    for name in ("evals.jsonl", "episodes.jsonl"):
      text = (run / name).read_text().replace('"id_seen"', '"three"').replace('"rule_ood"', '"four"')
      text = text.replace('"id_unseen"', '"five"').replace('"illegal"', '"late"').replace('"misread"', '"wrong"')
      text = text.replace('"numbers"', '"unsorted"').replace('"value"', '"short"').replace("CARDS", "LIST")
      (run / name).write_text(text)
    if recorded:
      (run / "labels.json").write_text(json.dumps(recorded))
  content = json.loads((tmp_path / "study.json").read_text()) | {"id": "three", "ood": "four"}
  (tmp_path / "study.json").write_text(json.dumps(content))
  pages = [write.write_study(tmp_path), write.write_run(tmp_path / "runs" / "base-0-ppo-0")]
  for path in pages:
    words = path.with_suffix(".md").read_text().lower()
    assert "episode" in words
    for alien in (" hand", "cards", "pairs held", "seen pairs", "wrong numbers"):
      assert alien not in words.partition("## config")[0], alien
    verdicts = (path.parent / "codes.csv").read_text()
    assert ("not sorted" in verdicts, "unsorted" in verdicts) == (bool(recorded), not recorded)
    assert "<b>four" not in path.read_text() and ("three numbers" in words) == bool(recorded)


def test_hostile_text_is_escaped_everywhere(make_study, tmp_path):
  make_study(tmp_path, bases=2, episodes=40)
  evil = "<script>alert(1)</script>$\\frac{`|\x1b[2J\ud800"
  content = json.loads((tmp_path / "study.json").read_text())
  content |= {"name": evil, "claim": evil, "methods": {"sft": evil, "ppo": evil + "2"}, "disclosure": [evil],
           "command": evil, "hardware": evil}
  (tmp_path / "study.json").write_text(json.dumps(content))
  for run in (tmp_path / "runs").iterdir():
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {evil: evil, "verb": config["verb"], "start": evil}))
    episodes = (run / "episodes.jsonl").read_text()
    (run / "episodes.jsonl").write_text(episodes.replace("NUMBERS", "</pre><script>alert(2)</script>"))
    (run / "evals.jsonl").write_text((run / "evals.jsonl").read_text().replace("id_unseen", "<b>unseen$^"))
  run = tmp_path / "runs" / "base-0-ppo-0"
  pages = [write.write_study(tmp_path), write.write_run(run), write.write_overlay([tmp_path], tmp_path / "over")]
  for path in pages:
    text = path.read_text()
    assert "<script" not in text and "<b>unseen" not in text and "\x1b" not in text
  assert "\x1b" not in write.summary(tmp_path)


def test_a_run_is_written_whole(make_run, tmp_path):
  for method in ("sft", "ppo"):
    run = make_run(tmp_path / method, method, episodes=40)
    path = write.write_run(run)
    assert path == run / "report" / "report.html"
    for name in ("success", "training", "time", "codes"):
      assert (path.parent / f"{name}.png").exists() and (path.parent / f"{name}.csv").exists()
    assert "optimizer.learning_rate" in path.read_text()


def test_a_run_with_next_to_nothing_is_a_report(tmp_path):
  (tmp_path / "config.json").write_text('{"verb": "sft"}')
  text = write.write_run(tmp_path).read_text()
  assert "no evaluations" in text and "not finished" in text


def test_runs_lie_over_one_another_and_a_study_stands_for_its_runs(make_study, make_run, tmp_path):
  make_study(tmp_path / "study", bases=1, episodes=40)
  run = make_run(tmp_path / "run", "sft", seed=7, episodes=40)
  path = write.write_overlay([tmp_path / "study", run, run], tmp_path / "out")
  text = path.read_text()
  assert "3 runs over one another" in text and "Config differences" in text and "ppo.clip" in text
  assert "model.width" not in text
  (tmp_path / "empty").mkdir()
  (tmp_path / "empty" / "study.json").write_text('{"methods": {"sft": "SFT"}}')
  with pytest.raises(ValueError, match="no run"):
    write.write_overlay([tmp_path / "empty"], tmp_path / "out")


def test_the_first_curve_needs_only_two_evaluations_of_one_run(make_study, tmp_path):
  make_study(tmp_path, bases=1, episodes=40, points=2, finished=False, skip=("base-0-ppo-0",))
  path = write.draw_curve(tmp_path, tmp_path / "curve.png")
  assert path.exists() and path.with_suffix(".csv").exists()


def test_reading_a_study_imports_no_jax():
  code = "import sys, sftrl_jax.report.write; print([m for m in ('jax', 'matplotlib') if m in sys.modules])"
  assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_study_of_many_points_is_written_whole(points_study, tmp_path):
  path = write.write_study(points_study, tmp_path)
  text = path.with_suffix(".md").read_text()
  for words in ("These claims were recorded", "contrary", "not measured", "Verdicts of all responses", "SFT was read",
                "right at the first try everywhere", "tries at each point", "Right responses of all responses"):
    assert words in text, words
  assert (tmp_path / "curves_updates.png").exists() and "2,500" in text
  summary = write.summary(points_study)
  assert "HELD" in summary and "CONTRARY" in summary and "Right responses" in summary
  assert write.draw_curve(points_study, tmp_path / "curve.png").exists()
  assert "right per step" in write.write_run(points_study / "runs" / "base-0-ppo-0", tmp_path / "run").read_text()


def test_a_study_headed_by_what_no_line_holds_says_so(make_study, tmp_path):
  path = make_study(tmp_path, bases=1, episodes=40) / "study.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | {"measure": "per_step"}))
  assert "which no evaluation holds" in write.write_study(tmp_path).read_text()
