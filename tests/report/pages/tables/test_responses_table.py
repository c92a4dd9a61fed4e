import json

from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages.tables.responses_table import mean_attempts, response_blocks


def test_a_line_has_the_start_and_the_end_of_everything_that_was_measured(points, tmp_path):
  run = read_workdir.read_run(points.write_run(tmp_path / "run"))
  _, table = response_blocks(run)
  greedy, sampled = (dict(zip(table.header, row, strict=True)) for row in table.rows[:2])
  first, last = (run.curve("id", 0.0)[index] for index in (0, -1))
  assert greedy["right per step"] == f"{100 * first.per_step:.1f}% → {100 * last.per_step:.1f}%"
  assert sampled["pass@4"] == "80.0% → 80.0%" and greedy["pass@4"] == "–"
  assert sampled["entropy"] == "1.00 → 0.25" and sampled["at the expert's states"] == "–"
  assert greedy["attempts used"] == f"{mean_attempts(first):.2f} → {mean_attempts(last):.2f}"
  assert 1 <= mean_attempts(last) <= mean_attempts(first) <= 2


def test_an_older_run_has_no_such_table(make_run, tmp_path):
  assert response_blocks(read_workdir.read_run(make_run(tmp_path / "run", "ppo", episodes=20))) == []


def test_what_only_some_lines_hold_is_a_dash_in_the_others(points, tmp_path):
  path = points.write_run(tmp_path / "run") / "evals.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  for line in lines[6:]:
    for key in ("episode_right", "episode_responses", "per_step"):
      del line[key]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  _, table = response_blocks(read_workdir.read_run(path.parent))
  assert all(row[2].endswith("% → –") for row in table.rows)
