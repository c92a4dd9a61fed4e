"""Scripted lengths are those of the responses, and what is alive of a batch follows from them."""

import numpy as np
import pytest

from sftrl_jax.programs.bench import run
from sftrl_jax.programs.bench.measurement import ScriptedLengths
from sftrl_jax.programs.bench.scripted_rollout import scripted


def test_lengths_follow_from_the_seed_and_keep_their_bounds():
  lengths = scripted(ScriptedLengths(mean=20, sigma=0.5), 1000, 3)
  drawn = [lengths(episode, 0) for episode in range(400)]
  assert drawn == [scripted(ScriptedLengths(mean=20, sigma=0.5), 1000, 3)(episode, 0) for episode in range(400)]
  assert drawn != [lengths(episode, 1) for episode in range(400)]
  assert abs(np.mean(drawn) - 20) < 2 and np.std(np.log(drawn)) > 0.4
  short = scripted(ScriptedLengths(mean=3, sigma=2.0), 8, 3)
  assert {short(episode, 0) for episode in range(400)} == set(range(1, 9))
  assert {scripted(ScriptedLengths(sigma=0.0), 50, 3)(episode, 0) for episode in range(9)} == {10}


def test_fewer_slots_are_paid_for_in_segments(tiny, small, capsys):
  """Each of 8 rows; undivided, all of them are paid for until the longest ends."""
  section = ScriptedLengths(mean=6, sigma=1.0)
  config = tiny("grpo", seed=1, env__attempts=1, rollout__segment=4, rollout__max_new_tokens=13)
  [line] = run.run(config, "rl", pairs=1, only=("rollout",), scripted=section)["lines"]
  lengths = [scripted(section, 13, 1)(episode, 0) for episode in range(8)]
  assert line["tokens_per_second"] * line["seconds"] == pytest.approx(sum(lengths))
  assert line["their_alive"] == sum(lengths) / (8 * max(lengths)) < line["alive"] <= 1
  shown = capsys.readouterr().out
  assert "undivided" in shown and "rollout: the other side is ours with config.rollout.segment=0" in shown


def test_refilled_slots_sample_the_same_responses(tiny, small, capsys):
  """16 episodes in 8 rows: the same tokens as in two batches, of fewer that nobody waits for."""
  section = ScriptedLengths(mean=6, sigma=1.0)
  config = tiny("grpo", seed=1, batch=16, env__attempts=1, rollout__segment=4, rollout__max_new_tokens=13,
                rollout__refill=True)
  [line] = run.run(config, "rl", pairs=1, only=("rollout",), scripted=section)["lines"]
  lengths = [scripted(section, 13, 1)(episode, 0) for episode in range(16)]
  assert line["tokens_per_second"] * line["seconds"] == pytest.approx(sum(lengths))
  longest = max(lengths[:8]) + max(lengths[8:])
  assert line["their_alive"] == sum(lengths) / (8 * longest) < line["alive"] <= 1
