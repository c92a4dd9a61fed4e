"""Evaluations: the same hands everywhere, counted right."""

import pytest

from sftrl_jax.programs.experiment.sections import EvalsConfig
from sftrl_jax.rollout.tally import wilson

KEYS = {"step", "variant", "temperature", "seed", "attempts", "episodes", "successes", "success", "ci95", "flops",
        "seconds", "first_success", "outcomes", "codes", "reward", "response_length"}


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_every_variant_and_temperature_is_measured_once_a_step(finished, lines_of, verb):
  lines = lines_of(finished(verb), "evals.jsonl")
  at = [(line["step"], line["variant"], line["temperature"]) for line in lines]
  assert len(at) == len(set(at))
  for step in {line["step"] for line in lines}:
    assert {(v, t) for s, v, t in at if s == step} == {(v, t) for v in ("id_seen", "rule_ood") for t in (0.0, 1.0)}


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_lines_keep_the_contract_and_agree_with_themselves(finished, lines_of, verb):
  for line in lines_of(finished(verb), "evals.jsonl"):
    assert line.keys() - {"kl"} == KEYS and ("kl" in line) == (line["temperature"] == 1.0)
    assert len(line["outcomes"]) == line["episodes"] == 16
    assert line["successes"] == 16 - line["outcomes"].count("0") and line["success"] == line["successes"] / 16
    assert line["first_success"] == line["outcomes"].count("1") / 16
    assert line["ci95"] == wilson(line["successes"], 16) and set(line["outcomes"]) <= set("012")
    assert sum(line["codes"].values()) == 16 and line["attempts"] == 2 and line["seed"] == 10**9


def test_the_start_has_no_distance_from_itself_and_the_same_start_the_same_answers(finished, lines_of):
  sft, rl = ([line for line in lines_of(finished(verb), "evals.jsonl") if line["step"] == 0] for verb in ("sft", "rl"))
  assert all(line.get("kl", 0.0) == 0.0 and line["flops"] == 0 for line in sft)
  drop = lambda lines: [{k: v for k, v in line.items() if k not in ("kl", "reward")} for line in lines]
  assert drop(sft) == drop(rl)   # whatever rows and method: paired by position
  moved = [line["kl"] for line in lines_of(finished("sft"), "evals.jsonl") if line["step"] == 2 and "kl" in line]
  assert moved and min(moved) > 0


def test_shown_episodes_are_greedy_and_on_the_same_hands(finished, lines_of):
  shown = [line for line in lines_of(finished("sft"), "episodes.jsonl") if line["kind"] == "eval"]
  assert {line["temperature"] for line in shown} == {0.0}
  assert {line["seed"] for line in shown} == {10**9, 10**9 + 1}


@pytest.mark.parametrize("settings, key", [
    (dict(episodes=0), "episodes"), (dict(every=-1), "every"), (dict(at=(0.5, 1.5)), "at"), (dict(seed=-1), "seed"),
    (dict(log_episodes=-1), "log_episodes"), (dict(temperatures=()), "temperatures"),
    (dict(temperatures=(-1.0,)), "temperatures")])
def test_wrong_settings_name_their_key(settings, key):
  with pytest.raises(ValueError, match=f"^{key} is"):
    EvalsConfig(**settings)
