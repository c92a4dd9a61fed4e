"""Messages about unknown words, and about files where directories should be."""

import pytest

from sftrl_jax.programs.mistakes import ConfigError, nearest, refuse_file


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
