"""Messages about unknown words."""

from sftrl_jax.programs.mistakes import ConfigError, nearest


def test_the_nearest_name_is_offered_with_all_valid_ones():
  assert nearest("gama", ["gamma", "clip"], "config.ppo.") == ": did you mean config.ppo.gamma? Valid: gamma, clip."


def test_nothing_is_guessed_when_nothing_is_near():
  assert nearest("zzz", ["gamma", "clip"]) == ". Valid: gamma, clip."
  assert nearest("zzz", []) == ". It has no keys."


def test_a_config_error_is_a_value_error():
  assert issubclass(ConfigError, ValueError)
