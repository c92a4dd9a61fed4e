"""The compact style of V-IRL."""

import pytest

from sftrl_jax.envs.virl import compact
from sftrl_jax.envs.virl.env import VIRL
from sftrl_jax.envs.virl.route import Landmark, Leg, make

ROUTE = make("r", 0, (Leg(270, ((0, 0), (0, 60)), Landmark("Old Bank", "bank", "left")),
                      Leg(315, ((0, 60), (0, 90)), Landmark("Blue Cafe", "cafe", "right"))))


def test_a_prompt_has_the_words_of_both_spaces_and_the_legal_ones():
  assert compact.prompt(ROUTE, "relative") == (
      "ACTIONS left slightly_left slightly_right right ROUTE 1 TURN left west 2 WALK bank 3 TURN slightly_right "
      "northwest 4 REACH cafe END SEE nothing")


@pytest.mark.parametrize("response, code", [
    ("bank LINE 3 TURN northwest", "correct"), ("cafe LINE 9 TURN northwest", "correct"),
    ("bank LINE 3 TURN slightly_right", "space"), ("bank LINE 3 FORWARD", "action"), ("cafe LINE 3 STOP", "misread"),
    ("bank LINE 3 TURN up", "illegal"), ("bank LINE 13 STOP", "illegal"), ("bank LINE 3", "illegal"), ("", "illegal"),
    ("bank  LINE 3 STOP", "illegal"), ("bank LINE 3 STOP " * 50, "illegal")])
def test_responses_are_judged(response, code):
  assert compact.judge(ROUTE.points[1], "absolute", response) == code


def test_every_text_is_of_the_vocabulary():
  assert len(set(compact.WORDS)) == len(compact.WORDS) == 74
  for variant in ("train", "id", "rule_ood", "city_ood"):
    env = VIRL(style="compact", variant=variant, pool="all")
    for seed in range(50):
      state, chat = env.reset(seed)
      while chat is not None:
        for response in (env.expert(state), env.careless(state, seed), env.misread(state, seed)):
          assert set(response.split(" ")) <= set(env.words)
        assert all(set(message.text.split(" ")) <= set(env.words) for message in chat)
        state, verdict = env.step(state, env.expert(state))
        chat = verdict.chat
