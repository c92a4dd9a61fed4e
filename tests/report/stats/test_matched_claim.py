"""Claims that read where a success in distribution is first reached, against plain interpolation run by run."""

import dataclasses

import numpy as np
import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.registered_claim import parse_claim
from sftrl_jax.report.stats import claims, effects

LEVEL = 0.5


@pytest.fixture(scope="module")
def study(whole_study):
  return read_workdir.read_study(whole_study)


def judged(study, **keys):
  """(the claim as it was judged, its estimate) of a study that has this claim alone."""
  claim = parse_claim(keys, study.methods, study.ood, study.measure)
  registered = dataclasses.replace(study, claims=(claim,))
  result = effects.measure(registered, resamples=200)
  verdict, = claims.judge_registered(registered, result)
  return verdict, result.matched_claims[claim]


def rates(study, base, method, variant):
  return [e.success for e in study.runs[base, method, 0].curve(variant, 0.0)]


def at_level(study, base, method, level=LEVEL):
  inside = rates(study, base, method, "id_seen")
  assert inside == sorted(inside)
  return np.interp(level, inside, rates(study, base, method, "rule_ood"))


@pytest.mark.parametrize(("comparison", "subtract"), [
    ("sft", lambda study, base: at_level(study, base, "ppo") - at_level(study, base, "sft")),
    ("start", lambda study, base: at_level(study, base, "ppo") - rates(study, base, "ppo", "rule_ood")[0]),
    ("ppo", lambda study, base: rates(study, base, "ppo", "rule_ood")[-1] - at_level(study, base, "ppo"))])
def test_a_claim_reads_each_run_where_it_first_comes_to_the_level(study, comparison, subtract):
  verdict, estimate = judged(study, method="ppo", comparison=comparison, sign=1, matched=LEVEL)
  direct = [subtract(study, base) for base in study.bases]
  assert estimate.per_base == pytest.approx(direct, abs=1e-4)
  assert estimate.value == pytest.approx(np.mean(direct), abs=1e-4) and estimate.bases == 5
  assert "50% in distribution" in verdict.text


def test_the_value_itself_has_a_bound(study):
  verdict, estimate = judged(study, method="ppo", comparison="", least=0.05, matched=LEVEL)
  assert estimate.value == pytest.approx(np.mean([at_level(study, base, "ppo") for base in study.bases]), abs=1e-4)
  assert verdict.verdict == claims.HELD and verdict.text.startswith("At 50% in distribution PPO has at least 5%")


def test_a_level_that_no_run_comes_to_is_not_measured(study):
  verdict, estimate = judged(study, method="ppo", comparison="sft", sign=1, matched=0.99)
  assert verdict.verdict == claims.UNMEASURED and "99% in distribution" in verdict.reason
  assert not estimate.bases


def test_a_level_below_the_start_is_not_measured(study):
  assert judged(study, method="ppo", comparison="sft", sign=1, matched=0.1)[0].verdict == claims.UNMEASURED
