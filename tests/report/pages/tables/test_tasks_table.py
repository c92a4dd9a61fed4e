"""Start and end of every task: of a run with errors, of a study over its runs; never more rows than a reader takes."""

import json

from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages.tables import tasks_table


def write(home, *results):
  """tasks.jsonl of (task, metric, step, value)."""
  (home / "tasks.jsonl").write_text("".join(json.dumps(
      {"task": task, "metric": metric, "filter": "none", "step": step, "flops": step * 1e9, "value": value,
       "stderr": 0.05, "higher_is_better": metric == "acc", "n": 1200, "group": False}) + "\n"
      for task, metric, step, value in results))


def test_a_run_has_its_start_and_its_last_value(make_run, tmp_path):
  home = make_run(tmp_path / "run", "ppo", episodes=20)
  write(home, ("arc", "acc", 0, 0.5), ("arc", "acc", 9, 0.25), ("text", "ppl", 0, 20.5), ("ema:arc", "acc", 0, 0.5))
  table = tasks_table.run_table(read_workdir.read_run(home))
  assert table.rows == (("arc", "acc", "0.5 ± 0.05", "0.25 ± 0.05", "−0.25", "1,200"),
                        ("text", "ppl ↓", "20.5 ± 0.05", "20.5 ± 0.05", "+0", "1,200"),
                        ("arc, EMA", "acc", "0.5 ± 0.05", "0.5 ± 0.05", "+0", "1,200"))


def test_a_study_has_means_over_runs_of_the_first_metric(make_study, tmp_path):
  home = make_study(tmp_path / "study", bases=2, episodes=20)
  for number, run in enumerate(sorted((home / "runs").iterdir())):   # ppo and sft of base 0, then of base 1
    if number % 2 == 0:
      write(run, ("arc", "acc", 0, 0.5), ("arc", "acc_norm", 0, 0.9), ("arc", "acc", 400, 0.5 - number / 10))
  table = tasks_table.study_table(read_workdir.read_study(home), ["sft", "ppo"])
  assert table.rows == (("arc", "acc", "PPO", "0.5", "0.4", "−0.1", "0.1414", "2"),)


def test_many_rows_are_cut(make_run, tmp_path):
  home = make_run(tmp_path / "run", "ppo", episodes=20)
  write(home, *((f"t{number}", "acc", 0, 0.5) for number in range(200)))
  rows = tasks_table.run_table(read_workdir.read_run(home)).rows
  assert len(rows) == tasks_table.MOST_ROWS and rows[-1][0] == "121 more in tasks.jsonl"
