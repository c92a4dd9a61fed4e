"""The defects of the paper's released V-IRL code, one by one."""

import json

import pytest

from sftrl_jax.envs.virl import paper
from sftrl_jax.envs.virl.env import VIRL
from sftrl_jax.envs.virl.route import Leg, make


def reply(seen, action):
  return json.dumps({"current observation": seen, "current instruction": "", "action": action})


def at_an_intersection(env):
  """A state at a point with an intersection and a landmark."""
  for seed in range(100):
    state, chat = env.reset(seed)
    while chat is not None:
      if state.point.intersection and state.point.landmark:
        return state
      state, verdict = env.step(state, env.expert(state))
      chat = verdict.chat
  raise AssertionError("no intersection with a landmark")


def test_the_rewards_of_the_released_code():
  env = VIRL(legacy=True)
  state = at_an_intersection(env)
  seen = paper.observation(state.point)
  wrong = "stop()"
  assert env.step(state, env.expert(state))[1].reward == 1
  assert env.step(state, reply("", paper.action("turn", state.point.absolute)))[1].reward == 1   # nothing else is read
  assert env.step(state, reply(seen.replace("intersection", "x"), wrong))[1].reward == -1
  after, verdict = env.step(state, reply(seen, wrong))   # it names the intersection that is there
  assert verdict.reward == -1.5 and "you are not at any intersection" in verdict.feedback
  assert '{{"current observation"' in verdict.feedback and verdict.feedback.endswith('"..."}}')
  after, verdict = env.step(after, "no answer")
  assert verdict.reward == -1 and not verdict.truncated
  _, verdict = env.step(after, env.expert(after))   # the third try has no score, right or wrong
  assert verdict.reward == -1 and verdict.truncated and not verdict.success


def test_without_legacy_each_is_mended():
  env = VIRL()
  state = at_an_intersection(env)
  after, verdict = env.step(state, reply(paper.observation(state.point), "stop()"))
  assert verdict.reward == -1 and verdict.code == "action" and "{{" not in verdict.feedback
  blind = paper.observation(state.point).replace(paper.CROSSING, "")
  assert env.step(state, reply(blind, "stop()"))[1].reward == -1.5
  _, verdict = env.step(after, env.expert(after))
  assert verdict.reward == 1 and not verdict.truncated


@pytest.mark.parametrize("wrap, word", [(True, "slightly right"), (False, "left")])
def test_turns_over_north(wrap, word):
  route = make("", 350, (Leg(10, ((0, 0), (0, 50)), None),), wrap)
  assert route.points[0].relative == word
  assert any(VIRL(legacy=True).route(seed) != VIRL().route(seed) for seed in range(20))
