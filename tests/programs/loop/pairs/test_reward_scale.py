"""The scale of a reward model is that of its scores of the responses that it was trained on."""

import json

import numpy as np
import pytest

from sftrl_jax.programs.loop.pairs import reward_scale, sampling


def test_the_scale_is_of_the_scores_by_the_last_parameters(scored, score_of, lines_of):
  home, _ = scored
  scale = json.loads((home / reward_scale.FILE).read_text())
  lines = lines_of(home, "metrics.jsonl")
  assert scale.pop("flops") == lines[-1]["compute/total_flops"]
  rows = [json.loads(line) for line in (home / sampling.FILE).read_text().splitlines()]
  scores = np.asarray([score_of(row["prompt"], row[side]) for row in rows for side in ("chosen", "rejected")])
  expected = {"mean": scores.mean(), "sd": scores.std(), "lowest": (scores.min() - scores.mean()) / scores.std(),
              "highest": (scores.max() - scores.mean()) / scores.std(), "count": 24, "step": 2}
  assert scale == pytest.approx(expected, rel=1e-3, abs=1e-6) and scale["sd"] > 0
  # in the budget from the first step on
  assert lines[0]["compute/score_flops"] == lines[-1]["compute/score_flops"] > 0


def test_a_shift_and_a_factor_of_all_scores_change_their_mean_and_deviation_alone():
  scores = np.random.default_rng(0).normal(size=50)
  scale, moved = reward_scale.scale_of(scores), reward_scale.scale_of(3 * scores + 5)
  assert moved["mean"] == pytest.approx(3 * scale["mean"] + 5) and moved["sd"] == pytest.approx(3 * scale["sd"])
  assert (moved["lowest"], moved["highest"]) == pytest.approx((scale["lowest"], scale["highest"]))
  assert scale["lowest"] < 0 < scale["highest"]


def test_equal_scores_have_no_scale_and_scores_that_are_not_finite_are_an_error():
  assert reward_scale.scale_of([2.0, 2.0]) == {"mean": 2.0, "sd": 0.0, "lowest": 0.0, "highest": 0.0, "count": 2}
  with pytest.raises(RuntimeError, match="1 of 2 scores of training responses are not finite"):
    reward_scale.scale_of([2.0, np.nan])
