import numpy as np
import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.figures import run_figures


def test_time_adds_up_to_the_steps(make_run, tmp_path):
  run = read_workdir.read_run(make_run(tmp_path / "run", "ppo", episodes=20))
  rows = run_figures.time_rows(run)
  assert sum(row["share"] for row in rows) == pytest.approx(1)
  assert sum(row["seconds"] for row in rows) == pytest.approx(run.column("timing_s/step")[1].sum())
  assert {row["phase"] for row in rows} == {"rollout", "verify", "update", "other"}


def test_long_runs_are_thinned_and_holes_left_out(make_run, tmp_path):
  run = make_run(tmp_path / "run", "sft", episodes=20)
  lines = "".join(f'{{"step": {i}, "loss": {"NaN" if i % 2 else i}}}\n' for i in range(9000))
  (run / "metrics.jsonl").write_text(lines)
  rows = run_figures.metric_rows([("run", read_workdir.read_run(run))], most=100)
  assert 50 < len(rows) <= 100 and all(np.isfinite(row["value"]) for row in rows)
  assert len(run_figures.metrics(rows, {"run": "black"}).axes) == 3


def test_a_moving_average_keeps_a_constant():
  assert np.allclose(run_figures.smooth(np.full(30, 2.0), 7), 2.0)
