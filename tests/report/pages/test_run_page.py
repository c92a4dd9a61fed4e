import json

from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages import blocks as page, run_page


def test_names_tell_runs_apart(make_run, tmp_path):
  runs = [read_workdir.read_run(make_run(tmp_path / d / "run", "sft", episodes=20)) for d in ("a", "b")]
  assert run_page.names_of(runs) == ["a/run", "b/run"] and run_page.names_of(runs[:1]) == ["run"]


def test_an_alarm_is_the_first_thing_said(make_run, tmp_path):
  run = make_run(tmp_path / "run", "ppo", episodes=20)
  with open(run / "metrics.jsonl", "a") as file:
    file.write('{"step": 401, "alarm/sampler_gap": 1, "nonfinite_steps": 2}\n')
  blocks = run_page.state(read_workdir.read_run(run))
  assert isinstance(blocks[0], page.Notice) and "sampler_gap" in blocks[0].items[0]
  assert "training graph" in blocks[0].items[0] and "config.model.dtype" in blocks[0].items[0]
  assert "2 updates" in blocks[1].items[0]


def test_only_differences_of_configs_are_listed(make_run, tmp_path):
  runs = [read_workdir.read_run(make_run(tmp_path / m, m, episodes=20)) for m in ("sft", "ppo")]
  table = run_page.config_differences([(run.name, run) for run in runs])[1]
  assert [row[0] for row in table.rows] == ["algorithm", "ppo.clip", "ppo.epochs", "verb"]
  same = run_page.config_differences([("a", runs[0]), ("b", runs[0])])[1]
  assert "None" in same.text


def test_different_episodes_are_warned_of(make_run, tmp_path):
  runs = [read_workdir.read_run(make_run(tmp_path / str(episodes), "sft", episodes=episodes)) for episodes in (20, 30)]
  assert run_page.disagreement(runs) and not run_page.disagreement(runs[:1])


def test_a_task_without_right_and_wrong_has_scores_and_no_success(make_run, tmp_path):
  home = make_run(tmp_path / "run", "ppo", episodes=20)
  lines = [json.loads(line) for line in (home / "evals.jsonl").read_text().splitlines()]
  lines = [{**line, "success": 0.0, "outcomes": "0" * 20, "verifies": False, "proxy": line["step"] / 100}
           for line in lines]
  (home / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  heading, table = run_page.evaluations(read_workdir.read_run(home), tmp_path)
  assert heading.text == "Scores" and {row[2:5] for row in table.rows} == {("0", "4", "4")} and len(table.rows) == 6
