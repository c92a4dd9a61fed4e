"""An iteration that is timed is one of a run, and its parts are the whole."""

import pytest

from sftrl_jax.programs.bench import run
from sftrl_jax.programs.config.errors import ConfigError


def test_the_parts_of_an_iteration_are_the_whole(tiny, small, capsys):
  result = run.run(tiny("rl"), "rl", pairs=1, only=("iteration",))
  whole, *parts = result["lines"]
  assert [line["work"] for line in result["lines"]] == [
      "ppo iteration", "ppo rollout", "ppo verify", "ppo score", "ppo update"]
  assert whole["seconds"] == pytest.approx(sum(line["seconds"] for line in parts))
  assert whole["flops"] == sum(line["flops"] for line in parts) > 0 and parts[1]["flops"] == 0
  assert all(line["seconds"] > 0 for line in parts) and "ratio" not in whole and "tokens an episode" in whole["note"]
  assert "peer" not in capsys.readouterr().out


def test_an_episode_that_is_left_out_is_an_error(tiny, small):
  with pytest.raises(ConfigError, match="prompt_tokens"):
    run.run(tiny("grpo", env__attempts=1, rollout__prompt_tokens=2), "rl", pairs=1, only=("iteration",))
