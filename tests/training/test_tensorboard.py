"""Curves grow in one file here, and come part by part in a bucket."""

from sftrl_jax import paths
from sftrl_jax.training.tensorboard import Scalars


def test_a_file_here_has_numbers_and_no_texts(tmp_path):
  curves = Scalars(tmp_path / "tensorboard")
  curves.close_part()
  assert not (tmp_path / "tensorboard").exists()
  curves.add(1, {"loss": 1.0, "note": "nan"}, "train/")
  curves.close_part()
  curves.close()
  (written,) = (tmp_path / "tensorboard").iterdir()
  assert b"train/loss" in written.read_bytes() and b"note" not in written.read_bytes()


def test_every_part_in_a_bucket_is_a_whole_file(bucket):
  home = paths.as_path("gs://bucket/curves")
  curves = Scalars(home)
  curves.resumed(4)
  curves.add(5, {"loss": 1.0}, "")
  assert not home.is_dir()
  curves.close_part()
  curves.close_part()
  first = {path.name: path.read_bytes() for path in home.iterdir()}
  curves.add(6, {"grad_norm": 1.0}, "")
  curves.close_part()
  curves.close()
  both = {path.name: path.read_bytes() for path in home.iterdir()}
  assert (len(first), len(both)) == (1, 2) and all(both[name] == content for name, content in first.items())
  assert [b"loss" in both[name] for name in sorted(both)] == [True, False]
