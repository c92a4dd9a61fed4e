"""Counts of episodes, and the interval around a rate."""

import math
import statistics

import pytest

from sftrl_jax.envs.env import Verdict
from sftrl_jax.rollout.episodes import Episode, Response, Turn
from sftrl_jax.rollout.tally import tally, wilson


def episode(seed, codes, stopped=True):
  """An episode with one turn a code, of 1, 2, 3, ... tokens."""
  turns = []
  for number, code in enumerate(codes):
    right = code == "correct"
    verdict = Verdict(1.0 if right else -0.25, right, False, right, right, "", None, code)
    response = Response("", tokens=(5,) * (number + 1), logprobs=(0.0,) * (number + 1), stopped=stopped)
    turns.append(Turn(response, verdict))
  return Episode(seed, tuple(turns), (), codes[-1] != "correct" if codes else True)


EPISODES = [episode(0, ["correct"]), episode(1, ["value", "correct"]), episode(2, ["value", "numbers", "value"]),
            episode(3, ["illegal", "value", "correct"], stopped=False), episode(4, [])]


def test_outcomes_say_the_attempt_that_was_right():
  counts = tally(EPISODES, ("correct", "value", "misread"))
  assert counts.outcomes == "12030" and counts.successes == 3 and counts.episodes == 5
  assert counts.success == 3 / 5 and counts.first_success == 1 / 5
  assert counts.codes == {"correct": 1, "value": 2, "misread": 0, "illegal": 1}
  assert counts.reward == pytest.approx((1 + 0.75 - 0.75 + 0.5 + 0) / 5)
  assert (counts.responses, counts.response_tokens, counts.stopped) == (9, 1 + 3 + 6 + 6, 6)


def test_attempts_past_nine_still_take_one_character():
  assert tally([episode(0, ["value"] * 9 + ["correct"]), episode(1, ["value"] * 50 + ["correct"])]).outcomes == "az"


def test_no_episodes_have_no_success():
  assert tally([]).success == 0.0 and tally([]).episodes == 0


def test_the_wilson_interval_solves_its_equation_and_stays_inside():
  z = statistics.NormalDist().inv_cdf(0.975)
  for n in (1, 7, 512):
    for k in {0, 1, n // 2, n}:
      low, high = wilson(k, n)
      assert 0 <= low <= k / n <= high <= 1 and low < high
      for edge in (low, high):   # |rate - p| = z sqrt(p (1 - p) / n)
        assert math.isclose((k / n - edge) ** 2, z**2 * edge * (1 - edge) / n, abs_tol=1e-9)
  assert wilson(0, 0) == [0.0, 1.0]
