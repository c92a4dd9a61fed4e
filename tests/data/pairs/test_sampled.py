"""Which of two responses is preferred, and the row that says so."""

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.data.pairs.rows import PAIR_A_ROW, PairsConfig, margin_of
from sftrl_jax.data.pairs.sampled import Judged, SampledPairsConfig, is_tie, preferred, row_of
from sftrl_jax.data.pairs.sides import sides_of

BETTER, WORSE = Judged("4", 1.0, "correct", True), Judged("5", -0.2, "value", False)
KEYS = [f"0 {number}" for number in range(1000)]


def test_the_better_reward_is_preferred_and_a_tie_is_dropped_or_tossed():
  assert preferred((BETTER, WORSE), "k", "drop", 0.0) == (0, False)
  assert preferred((WORSE, BETTER), "k", "coin", 0.0) == (1, False)
  tie = (WORSE, Judged("6", -0.2 + 1e-9, "value", False))
  assert is_tie(tie) and not is_tie((BETTER, WORSE)) and preferred(tie, "k", "drop", 0.0) is None
  tossed = [preferred(tie, key, "coin", 0.0)[0] for key in KEYS]
  assert 400 < sum(tossed) < 600 and tossed == [preferred(tie, key, "coin", 0.0)[0] for key in KEYS]


def test_noise_turns_round_its_share_and_more_of_it_the_same_pairs_and_more():
  turned = {noise: {key for key in KEYS if preferred((BETTER, WORSE), key, "drop", noise) == (1, True)}
            for noise in (0.0, 0.2, 0.5, 1.0)}
  assert not turned[0.0] and len(turned[1.0]) == 1000 and 150 < len(turned[0.2]) < 250
  assert turned[0.2] < turned[0.5] < turned[1.0]


def test_a_row_is_a_pair_without_a_margin():
  row = row_of((Message("user", "2+2?"),), WORSE, BETTER, "0 3", True)   # turned round by noise
  better, worse = sides_of(row)
  assert better["prompt"] == worse["prompt"] == [{"role": "user", "content": "2+2?"}]
  assert better["completion"][0]["content"] == "5" and worse["completion"][0]["content"] == "4"
  assert (row["reward_chosen"], row["code_rejected"], row["turned"], row["seed"]) == (-0.2, "correct", True, "0 3")
  assert margin_of(row) == (0.0, ()) and PAIR_A_ROW.columns.names[0] == "prompt"


@pytest.mark.parametrize("wrong, message", [
    ({"pairs": 0}, "pairs is 0"), ({"heldout_pairs": 0}, "heldout_pairs is 0"), ({"noise": 1.1}, "noise is 1.1"),
    ({"noise": float("nan")}, "noise is nan"), ({"ties": "keep"}, "ties is 'keep'"), ({"points": "all"}, "points is"),
    ({"prompts_limit": -1}, "prompts_limit is -1"), ({"length": 3}, "length is 3")])
def test_a_wrong_field_is_named_with_its_rule(wrong, message):
  with pytest.raises(ValueError, match=message):
    SampledPairsConfig(**wrong)


def test_prompts_have_a_limit_whoever_gives_none():
  assert SampledPairsConfig().most_prompts(10) == 200 and SampledPairsConfig(prompts_limit=7).most_prompts(10) == 7
  assert PairsConfig("x").flops == 0.0
