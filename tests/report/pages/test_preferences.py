"""What a study's report says of the pairs and reward models that its methods have used."""

import json
import math

import pytest

from sftrl_jax.report import read_workdir, write
from sftrl_jax.report.pages import preferences


def prepare(home, accuracies, phase="complete", **pairs):
  home.mkdir(parents=True)
  (home / "config.json").write_text(json.dumps({"verb": "preference", "objective": "reward"}))
  (home / "progress.json").write_text(json.dumps({"phase": phase}))
  (home / "pairs.json").write_text(json.dumps({"pairs": 100, "prompts": 400, "chosen_correct": .9, **pairs}))
  lines = [{"step": step, "flops": 1e9 * step, "variant": variant, "pairs": 50, "rewards/accuracies": share * step / 7}
           for step in (1, 7) for variant, share in accuracies.items()]
  (home / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def prepared(make_study, tmp_path):
  home = make_study(tmp_path / "study", bases=3, episodes=40)
  content = json.loads((home / "study.json").read_text())
  (home / "study.json").write_text(json.dumps({**content, "prepares": ["reward", "other", 3]}))
  for base, share in enumerate((.6, .8)):
    prepare(home / "runs" / f"base-{base}-reward-0", {"id_seen": share, "rule_ood": .5})
  prepare(home / "runs" / "base-2-reward-0", {"id_seen": 0.0}, phase="train")
  for base in (0, 1):
    path = home / "runs" / f"base-{base}-ppo-0" / "evals.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**line, "proxy": line["step"] + base, "reward": .5}) + "\n" for line in lines))
  return home


def test_a_prepared_run_has_the_mean_and_the_range_of_its_finished_bases(prepared):
  table, = preferences.pairs_table(read_workdir.read_study(prepared))
  row, = table.rows
  assert row[:5] == ("reward", "2", "100", "400", "90.0%") and row[-1] == "7.00e+09"
  assert row[5].startswith("70.0% (60.0% to 80.0%") and row[6].startswith("50.0%")


def test_a_prepared_teacher_has_no_row_among_pairs(prepared):
  for base in range(3):
    home = prepared / "runs" / f"base-{base}-other-0"
    home.mkdir()
    (home / "config.json").write_text(json.dumps({"verb": "sft"}))
    (home / "progress.json").write_text(json.dumps({"phase": "complete"}))
  study = read_workdir.read_study(prepared)
  assert all(run.finished for run in study.prepared["other"]) and len(study.prepared["other"]) == 3
  table, = preferences.pairs_table(study)
  assert [row[0] for row in table.rows] == ["reward"]


def test_gold_and_proxy_are_means_over_bases_of_each_evaluation(prepared, tmp_path):
  study = read_workdir.read_study(prepared)
  runs = [preferences.proxy_figure.proxy_rows(run) for (_, name, _), run in study.runs.items() if name == "ppo"]
  rows = [row for row in preferences.mean_rows(runs) if row["source"] == "id_seen"]
  assert [row["step"] for row in rows] == [0, 100, 200, 300, 400]
  assert [row["proxy"] - row["step"] for row in rows] == [.5] * 5 and {row["gold"] for row in rows} == {.5}
  page = write.write_study(prepared, tmp_path / "report").read_text()
  assert "Pairs and reward models" in page and (tmp_path / "report" / "proxy_ppo.png").is_file()


def test_a_study_without_pairs_has_no_such_chapter(make_study, tmp_path):
  home = make_study(tmp_path / "study", bases=1, episodes=40)
  assert not preferences.pairs_table(read_workdir.read_study(home)) and not preferences.mean_rows([[], []])
  assert math.isnan(preferences._mean([]))
