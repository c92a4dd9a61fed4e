"""The short style: a line that states the rule, answered in the paper's JSON."""

import json

import pytest

from sftrl_jax.envs import ENVS
from sftrl_jax.envs.general_points import short

RANKS = ("4", "3", "2", "K")


def test_the_prompt_states_rule_cards_and_target():
  assert short.prompt(RANKS, (10, 10, 10), 24) == "J=Q=K=10. Cards: 4 3 2 K. Make 24."
  assert short.prompt(RANKS, (11, 12, 13), 24) == "J=11, Q=12, K=13. Cards: 4 3 2 K. Make 24."


def test_what_is_written_is_strict_json_without_spaces():
  text = short.write(RANKS, (4, 3, 2, 10), "4*3+2+10", 24)
  assert json.loads(text) == {"cards": ["4", "3", "2", "K"], "number": [4, 3, 2, 10], "formula": "4*3+2+10=24"}
  assert " " not in text
  assert short.read(text) == ((), "4*3+2+10")


@pytest.mark.parametrize("variant", ["train", "id_seen", "id_unseen", "rule_ood"])
def test_the_expert_is_right_and_every_verdict_has_its_feedback(variant):
  env = ENVS["general_points"](style="short", variant=variant, cards=3, target="any", attempts=3)
  for seed in range(20):
    state, _ = env.reset(seed)
    assert env.step(state, env.expert(state))[1].success
    for response, code in (("?", "illegal"), ('{"formula":"1+1"}', "numbers"), (env.misread(state, seed), "numbers")):
      verdict = env.step(state, response)[1]
      assert verdict.code == code and verdict.feedback == short.feedback(code, "", state.target) and verdict.chat


def test_the_action_starts_at_the_key():
  text = short.write(RANKS, (4, 3, 2, 10), "4*3+2+10", 24)
  assert text[short.action_start(text) :] == '"formula":"4*3+2+10=24"}'
