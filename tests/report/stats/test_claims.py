import dataclasses
import json
import math

import pytest

from sftrl_jax.report import read_workdir
from sftrl_jax.report.stats import claims, effects
from sftrl_jax.report.stats.bootstrap import Estimate

SURE = Estimate(0.1, 0.05, 0.15, 0.02, 0.18, 5, 5, 100, 1.0, (0.1,) * 5)


@pytest.mark.parametrize(
  ("change", "sign", "verdict", "reason"),
  [
    ({}, 1, claims.HOLDS, "both"),
    ({}, -1, claims.FAILS, "opposite"),
    ({"low": -0.01}, 1, claims.FAILS, "touches zero"),
    ({"t_low": -0.01}, 1, claims.FAILS, "t interval"),
    ({"bases": 2}, 1, claims.FEW, "on the claimed side"),
    ({"bases": 1, "t_low": math.nan, "t_high": math.nan}, -1, claims.FEW, "not on the claimed side"),
  ],
)
def test_a_claim_passes_both_intervals_or_fails(change, sign, verdict, reason):
  result = claims.judge(dataclasses.replace(SURE, **change), sign)
  assert result[0] == verdict and reason in result[1]


def judged(directory, resamples=300):
  study = read_workdir.read_study(directory)
  measured = effects.measure(study, resamples)
  judged_claims = claims.judge_claims(study, measured)
  return study, judged_claims, claims.limits(study, measured, judged_claims)


def test_of_methods_against_a_named_one_nothing_is_claimed(whole_study):
  study = dataclasses.replace(read_workdir.read_study(whole_study), named_reference="ppo")
  assert study.compared_methods == ("sft",) and not claims.judge_claims(study, effects.measure(study, 20))


def test_what_is_true_of_the_data_is_found(whole_study):
  study, judged_claims, limits = judged(whole_study)
  verdicts = {(claim.text, claim.temperature): claim.verdict for claim in judged_claims}
  assert verdicts["SFT lowers success on OOD, new rule", 0.0] == claims.HOLDS
  matched = "PPO is ahead of SFT on OOD, new rule at the same success on ID, seen pairs"
  assert verdicts[matched, 0.0] == claims.HOLDS
  text = "\n".join(limits)
  assert "SFT is ahead in distribution" in text and "Early stopping removes most" in text
  assert "learning rate" in text and limits[-1] == "The learning rate was chosen after seeing base 0."
  assert all(claim.text in text for claim in judged_claims if claim.verdict != claims.HOLDS)


def test_one_base_is_said_loudly_and_claims_nothing(make_study, tmp_path):
  _, judged_claims, limits = judged(make_study(tmp_path, bases=1, episodes=60), 50)
  assert {claim.verdict for claim in judged_claims} == {claims.FEW} and "ONE BASE" in limits[0]


def test_careless_starts_are_named_as_an_assumption(make_study, make_run, tmp_path):
  make_study(tmp_path, bases=1, episodes=30)
  start = make_run(tmp_path / "runs" / "base-0", "sft", episodes=30)
  (start / "config.json").write_text(json.dumps({"verb": "sft", "data": {"careless": 0.5}}))
  assert "careless ones: 0.5" in claims.mixed_base(read_workdir.read_study(tmp_path))


def test_starts_that_differ_fail_the_check(make_study, tmp_path):
  study = make_study(tmp_path, bases=1, episodes=30)
  assert all(passed for _, passed, _ in claims.checks(read_workdir.read_study(study)))
  path = study / "runs" / "base-0-ppo-0" / "evals.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  lines[0] |= {"outcomes": "1" * 30, "success": 1.0}
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  _, passed, detail = claims.checks(read_workdir.read_study(study))[0]
  assert not passed and "base-0" in detail


def test_alarms_and_skipped_updates_fail_their_checks(make_study, tmp_path):
  study = make_study(tmp_path, bases=1, episodes=30)
  with open(study / "runs" / "base-0-ppo-0" / "metrics.jsonl", "a") as file:
    file.write('{"step": 401, "alarm/sampler_gap": 1, "nonfinite_steps": 2}\n{"step": 402, "nonfinite_steps": 0}\n')
  failed = {check: detail for check, passed, detail in claims.checks(read_workdir.read_study(study)) if not passed}
  assert failed == {"No step was skipped for a non-finite loss or gradient": "base-0-ppo-0: 2",
                    "base-0-ppo-0: no alarm sampler_gap": "1 of 136 logged steps, first at step 401"}


def test_recorded_claims_are_judged_in_place_of_ours(points_study):
  study, judged_claims, limits = judged(points_study, 200)
  assert [claim.verdict for claim in judged_claims] == [
      claims.HELD, claims.CONTRARY, claims.HELD, claims.NOT_HELD, claims.HELD, claims.UNMEASURED]
  assert [claim.prediction for claim in judged_claims][2:5] == ["> 50%", "> 95%", "> 60 points"]
  assert judged_claims[-1].text == "At a temperature nobody played." and judged_claims[3].is_level
  assert sum(claim.text in "\n".join(limits) for claim in judged_claims) == 3
  assert "PPO minus SFT at equal FLOPs is at least 60 points in success on OOD, new rule" == judged_claims[4].text


def test_a_bound_moves_the_line_that_both_intervals_have_to_clear():
  assert [claims.judge(SURE, 1, bound)[0] for bound in (0.01, 0.03)] == [claims.HOLDS, claims.FAILS]
  assert [claims.judge(SURE, -1, bound)[0] for bound in (0.2, 0.17)] == [claims.HOLDS, claims.FAILS]
  assert "the opposite" in claims.judge(SURE, 1, 0.3)[1] and "touches 10%" in claims.judge(SURE, 1, 0.1)[1]


def test_two_bases_are_too_few_for_a_recorded_claim_and_it_is_said(points, tmp_path):
  path = points.write_study(tmp_path, bases=2, content={"claims": [{"method": "ppo", "sign": 1}]})
  _, (claim,), limits = judged(path, 20)
  assert claim.verdict == claims.FEW and "THERE ARE 2 BASE MODELS" in limits[0] and "over episodes" in limits[1]


def test_starts_of_other_bases_may_differ(arms_study):
  _, passed, detail = claims.checks(read_workdir.read_study(arms_study))[0]
  assert passed and "agree" in detail
