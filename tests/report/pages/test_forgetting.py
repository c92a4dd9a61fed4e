"""The part of a report on old tasks: there where probes or tasks of lm-eval were measured, and nowhere else."""

import json

import pytest

from sftrl_jax.report import read_workdir, write
from sftrl_jax.report.pages import forgetting, run_page


def with_task(home, value=0.8):
  steps = sorted({(line["step"], line["flops"]) for line in map(json.loads, (home / "evals.jsonl").open())})
  (home / "tasks.jsonl").write_text("".join(json.dumps(
      {"task": "<b>arc$", "metric": "acc", "filter": "none", "value": value / (1 + step), "stderr": None, "n": 9,
       "step": step, "flops": flops}) + "\n" for step, flops in steps))
  return home


@pytest.mark.parametrize("evaluated", [True, False])
def test_a_run_shows_its_tasks_beside_the_new_one_or_alone(evaluated, make_run, tmp_path):
  home = make_run(tmp_path / "run", "ppo", episodes=20)
  plain = read_workdir.read_run(home)
  assert forgetting.run_blocks(plain, tmp_path / "none") == []
  with_task(home)
  if not evaluated:
    (home / "evals.jsonl").unlink()
  blocks = run_page.evaluations(read_workdir.read_run(home), tmp_path / "out")
  assert (tmp_path / "out" / "tasks.png").is_file() and not (tmp_path / "out" / "pareto.png").exists()
  along = "success in distribution" if evaluated else "FLOPs of post-training"
  assert sum(f"Tasks of lm-eval against {along}" in str(block) for block in blocks) == 1


def test_a_study_has_one_heading_for_both(make_study, tmp_path):
  home = make_study(tmp_path / "study", bases=1, episodes=20)
  study = read_workdir.read_study(home)
  assert forgetting.study_blocks(study, tmp_path / "none") == []
  for run in (home / "runs").iterdir():
    with_task(run)
  page = write.write_study(home)
  text = page.read_text()
  assert text.count(forgetting.TITLE) == 1 and "Tasks of lm-eval: means over runs" in text
  assert (page.parent / "tasks.png").is_file() and (page.parent / "tasks.csv").is_file() and "<b>arc" not in text
