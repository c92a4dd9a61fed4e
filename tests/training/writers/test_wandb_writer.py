"""W&B offline: one run over restarts, each step in it once."""

import pytest

pytest.importorskip("wandb")

from sftrl_jax.training.writers.wandb_writer import WandbWriter


def test_a_resumed_run_continues_the_same_wandb_run(offline, tmp_path, wandb_points):
  workdir = tmp_path / "run"
  workdir.mkdir()
  (workdir / "config.json").write_text('{"seed": 3}')
  killed = WandbWriter(workdir, 0)
  for step in range(4):
    killed.scalars(step, {"loss": float(step)})
  killed.scalars(3, {"eval/success": 0.5})
  killed.close()
  resumed = WandbWriter(workdir, 1)   # its checkpoint is older than what was sent
  for step in range(2, 6):
    resumed.scalars(step, {"loss": float(step)})
  resumed.close_part()
  resumed.close()
  calls = wandb_points(workdir)
  assert len({run for run, _ in calls}) == 1
  assert [values for _, values in calls] == [
      *({"loss": float(step), "step": step} for step in range(4)), {"eval/success": 0.5, "step": 3},
      *({"loss": float(step), "step": step} for step in (4, 5))]


def test_what_keeps_wandb_from_starting_is_an_error_with_a_way_out(offline, tmp_path, monkeypatch):
  import wandb

  def refuse(**_):
    raise wandb.errors.UsageError("No API key configured.")

  monkeypatch.setattr(wandb, "init", refuse)
  with pytest.raises(ValueError, match=r"config.log.writers names wandb.*No API key configured\. Run `wandb login`"):
    WandbWriter(tmp_path, 0)
