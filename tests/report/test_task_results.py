"""Results of tasks become curves by task and measure; what has no value is in none."""

import json
import math

import pytest

from sftrl_jax.report.read_workdir import read_tasks
from sftrl_jax.report.task_results import first_measures, task_curves

LINES = [{"task": task, "metric": metric, "filter": name, "value": value, "stderr": 0.1, "higher_is_better": better,
          "n": 40, "step": step, "flops": step * 1e9, "group": task == "all"}
         for step, shift in ((0, 0.0), (3, 0.25))
         for task, metric, name, value, better in (
             ("arc", "acc", "none", 0.5 - shift, True), ("arc", "acc_norm", "none", 0.75, True),
             ("text", "bits", "none", None, False), ("text", "perplexity", "none", 9.0 + shift, False),
             ("all", "acc", "strict", 0.25 + shift, True))]


def test_lines_become_curves(tmp_path):
  path = tmp_path / "tasks.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"task": "torn')
  results = read_tasks(path)
  curves = task_curves(results)
  assert list(curves) == [("all", "acc, strict"), ("arc", "acc"), ("arc", "acc_norm"), ("text", "perplexity")]
  assert [(result.step, result.flops, result.value) for result in curves["arc", "acc"]] == [
      (0, 0.0, 0.5), (3, 3e9, 0.25)]
  assert first_measures(results) == {"all": "acc, strict", "arc": "acc", "text": "perplexity"}
  assert [result.falls for result in results[:5]] == [False, False, True, True, False]
  assert math.isnan(results[2].value) and results[0].documents == 40 and not read_tasks(tmp_path / "none.jsonl")


@pytest.mark.parametrize("changes", [{"step": "x"}, {"step": -1}, {"flops": None}])
def test_a_damaged_line_is_named(changes, tmp_path):
  (tmp_path / "tasks.jsonl").write_text(json.dumps({**LINES[0], **changes}) + "\n" + json.dumps(LINES[0]) + "\n")
  with pytest.raises(ValueError, match=rf"tasks.jsonl line 1: {next(iter(changes))} is"):
    read_tasks(tmp_path / "tasks.jsonl")
