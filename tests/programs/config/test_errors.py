"""Messages about unknown words, and about files where directories should be."""

import pytest

from sftrl_jax.programs.config.errors import (
  ConfigError,
  as_local_path,
  as_path,
  nearest,
  refuse_file,
  refuse_unreachable,
)


def test_the_nearest_name_is_offered_with_all_valid_ones():
  assert nearest("gama", ["gamma", "clip"], "config.ppo.") == ": did you mean config.ppo.gamma? Valid: gamma, clip."


def test_nothing_is_guessed_when_nothing_is_near():
  assert nearest("zzz", ["gamma", "clip"]) == ". Valid: gamma, clip."
  assert nearest("zzz", []) == ". It has no keys."


def test_a_config_error_is_a_value_error():
  assert issubclass(ConfigError, ValueError)


def test_a_directory_to_be_written_is_no_file_and_lies_in_none(tmp_path):
  (tmp_path / "file").write_text("mine")
  refuse_file("--workdir", tmp_path)
  refuse_file("--workdir", tmp_path / "new" / "er")
  for path in (tmp_path / "file", tmp_path / "file" / "in" / "it"):
    with pytest.raises(ConfigError, match=f"--out={path}.* is a file: give a directory"):
      refuse_file("--out", path)


def test_addresses_are_told_before_anything_is_done(bucket):
  with pytest.raises(ConfigError, match="^--workdir=s3://b/x: known are"):
    as_path("s3://b/x", "--workdir")
  with pytest.raises(ConfigError, match="^--out=gs://bucket/x is not on this machine"):
    as_local_path("gs://bucket/x", "--out")
  refuse_unreachable("--workdir", as_path("gs://bucket/new/run"))
  with pytest.raises(ConfigError, match="^--workdir=gs://other/run: gs://other cannot be reached .* buckets create"):
    refuse_unreachable("--workdir", as_path("gs://other/run"))
  (as_path("gs://bucket/mistakes") / "file").write_text("mine")
  refuse_file("--workdir", as_path("gs://bucket/mistakes"))
  with pytest.raises(ConfigError, match="--workdir=gs://bucket/mistakes/file is a file"):
    refuse_file("--workdir", as_path("gs://bucket/mistakes/file"))
