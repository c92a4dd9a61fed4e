"""Options of what is measured."""

import pytest

from sftrl_jax.programs.bench.measurement import ScriptedLengths
from sftrl_jax.programs.config.errors import ConfigError


@pytest.mark.parametrize("numbers, flag", [
    (dict(mean=-1.0), "--mean-length"), (dict(mean=float("nan")), "--mean-length"),
    (dict(mean=float("inf")), "--mean-length"), (dict(sigma=-0.1), "--sigma"), (dict(sigma=float("nan")), "--sigma"),
    (dict(longest=1.0), "--longest"), (dict(longest=9.5), "--longest"), (dict(longest=float("nan")), "--longest")])
def test_scripted_lengths_out_of_range_are_refused_by_their_flag(numbers, flag):
  with pytest.raises(ConfigError, match=flag):
    ScriptedLengths(**numbers)
