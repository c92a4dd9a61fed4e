"""A claim as data: what is predicted, and which mistakes are named."""

import pytest

from sftrl_jax.report.registered_claim import START, RegisteredClaim, parse_claim

METHODS = {"sft": "SFT", "ppo": "PPO"}


def claim(**keys):
  return parse_claim({"method": "ppo", **keys}, METHODS, "rule_ood", "per_step")


def test_a_claim_has_the_defaults_of_its_study():
  assert claim(sign=-1) == RegisteredClaim("ppo", "rule_ood", "per_step", 0.0, START, -1, 0.0, "")
  assert claim(sign=1, measure="sign").measure == "sign"   # a part of the task's verdicts
  whole = claim(least=0.6, variant="id", measure="success", temperature=1, comparison="sft", text="PPO wins.")
  assert whole == RegisteredClaim("ppo", "id", "success", 1.0, "sft", 1, 0.6, "PPO wins.")


def test_least_and_most_are_two_sides_of_one_bound():
  at_least, at_most = claim(least=0.95, comparison=""), claim(most=0.95, comparison="")
  assert (at_least.bound, at_least.sign) == (at_most.bound, -at_most.sign) == (0.95, 1)


def test_a_claim_may_read_at_a_success_in_distribution_and_then_of_a_method_alone():
  assert claim(sign=1, matched=0.4, comparison="sft").matched == 0.4
  assert claim(sign=-1, matched=0.5, comparison="ppo").comparison == "ppo"


@pytest.mark.parametrize(("keys", "message"), [
    ({"sign": 1, "matched": 0}, "^matched is 0.*between 0 and 1"), ({"sign": 1, "matched": 40}, "^matched is 40"),
    ({"sign": 1, "matched": True}, "^matched is True"), ({"sign": 1, "matched": "0.4"}, "^matched is 0.4, but"),
    ({}, "^sign, least, most: the claim has none"), ({"sign": 1, "least": 0.1}, "^sign, least, most: .* sign, least"),
    ({"sign": 0}, "^sign is 0"), ({"sign": True}, "^sign is True"), ({"sign": "1"}, "^sign is 1"),
    ({"least": 60}, "^least is 60.*0.6 is 60 points"), ({"most": float("nan")}, "^most is nan"),
    ({"least": 10**400}, "^least is 1000"),
    ({"sign": 1, "comparison": ""}, "^sign is about a difference"),
    ({"sign": 1, "comparison": "ppo"}, "^comparison is 'ppo'.*sft"),
    ({"sign": 1, "comparison": 3}, "^comparison is '3'"),
    ({"sign": 1, "method": "dpo"}, "^method is 'dpo'"), ({"sign": 1, "method": ["ppo"]}, "^method is .*should be text"),
    ({"sign": 1, "measure": "per step"}, "^measure is 'per step'"), ({"sign": 1, "measure": {}}, "^measure is '{}'"),
    ({"sign": 1, "temperature": -1}, "^temperature is -1"), ({"sign": 1, "temperature": "0"}, "^temperature is 0"),
    ({"sign": 1, "variants": "id"}, "^variants is not a key of a claim"), ({"sign": 1, "text": 3}, "^text is '3'"),
])
def test_a_mistake_is_named_by_its_key(keys, message):
  with pytest.raises(ValueError, match=message):
    claim(**keys)


@pytest.mark.parametrize("content", [None, 3, "ppo", ["ppo"]])
def test_what_is_no_dict_is_no_claim(content):
  with pytest.raises(ValueError, match="should be a dict"):
    parse_claim(content, METHODS, "rule_ood", "success")
