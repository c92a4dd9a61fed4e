"""Event files grow on this machine and come part by part in a bucket; no restart shows a point twice."""

import pytest

from sftrl_jax import paths
from sftrl_jax.training.writers.tensorboard import TensorBoardWriter


def test_no_file_exists_before_the_first_scalar(tmp_path):
  writer = TensorBoardWriter(tmp_path, 0)
  writer.close_part()
  writer.close()
  assert not list(tmp_path.iterdir())


def test_a_part_is_safe_while_the_run_goes_on(tmp_path, board_points):
  """A process that is killed after a checkpoint has lost none of the points before it."""
  writer = TensorBoardWriter(tmp_path, 0)
  writer.scalars(1, {"loss": 1.5, "grad_norm": 2.0})
  writer.close_part()
  assert board_points(tmp_path / "tensorboard") == [("loss", 1, 1.5), ("grad_norm", 1, 2.0)]
  writer.close()


@pytest.mark.parametrize("checkpoint", [0, 2])
def test_a_restart_shows_every_step_once(tmp_path, board_points, checkpoint):
  """Killed without a checkpoint, a run begins anew; killed past one, it goes on from there."""
  (tmp_path / "tensorboard").mkdir()
  (tmp_path / "tensorboard" / "notes.txt").write_text("of a person")
  killed = TensorBoardWriter(tmp_path, 0)
  for step in range(5):
    killed.scalars(step, {"loss": float(step)})
  killed.close_part()
  writer = TensorBoardWriter(tmp_path, checkpoint)
  for step in range(checkpoint + 1 if checkpoint else 0, 4):
    writer.scalars(step, {"loss": 10.0 + step})
  writer.close()
  killed.close()
  assert (tmp_path / "tensorboard" / "notes.txt").read_text() == "of a person"
  (tmp_path / "tensorboard" / "notes.txt").unlink()
  assert board_points(tmp_path / "tensorboard") == [
      ("loss", step, float(step if step <= checkpoint and checkpoint else 10 + step)) for step in range(4)]


def test_every_part_in_a_bucket_is_a_whole_file(bucket):
  workdir = paths.as_path("gs://bucket/run")
  home = workdir / "tensorboard"
  writer = TensorBoardWriter(workdir, 4)
  writer.scalars(5, {"loss": 1.0})
  assert not home.is_dir()
  writer.close_part()
  writer.close_part()
  first = {path.name: path.read_bytes() for path in home.iterdir()}
  writer.scalars(6, {"grad_norm": 1.0})
  writer.close_part()
  writer.close()
  both = {path.name: path.read_bytes() for path in home.iterdir()}
  assert (len(first), len(both)) == (1, 2) and all(both[name] == content for name, content in first.items())
  assert [b"loss" in both[name] for name in sorted(both)] == [True, False]
  TensorBoardWriter(workdir, 0)   # a run that begins anew
  assert not home.is_dir()
