"""Every environment of the table keeps the interface."""

import dataclasses

import pytest

from sftrl_jax.envs import ENVS
from sftrl_jax.envs.env import Env, Rewriting, Verdict, labels_of, rewriting


@pytest.mark.parametrize("name", ENVS)
def test_environments_offer_the_whole_interface(name):
  env = ENVS[name]()
  assert isinstance(env, Env)
  for variant in env.variants:
    env = ENVS[name](variant=variant)
    state, chat = env.reset(0)
    for _ in range(env.attempts):
      assert chat[-1].role == "user"
      state, verdict = env.step(state, env.expert(state))
      assert verdict.correct and not verdict.truncated and verdict.code in env.codes
      chat = verdict.chat
      if chat is None:
        break
    assert verdict.success and verdict.terminated and verdict.chat is None
    with pytest.raises(ValueError, match="ended"):
      env.step(state, "again")


@pytest.mark.parametrize("name", ENVS)
def test_labels_are_for_what_the_environment_names(name):
  env = ENVS[name]()
  labels = labels_of(env)
  for key, names in (("codes", env.codes), ("variants", env.variants)):
    assert set(labels[key]) <= set(names) and all(isinstance(label, str) and label for label in labels[key].values())


def test_an_environment_needs_no_labels():
  assert labels_of(object()) == {"codes": {}, "variants": {}}


def test_a_verdict_is_immutable():
  verdict = Verdict(1.0, True, False, True, True, "", None, "correct")
  with pytest.raises(dataclasses.FrozenInstanceError):
    verdict.reward = 2.0


class Rewrites:
  rewrites_prompt, attempts = True, 6

  def __init__(self, **members):
    self.__dict__.update(members)


def test_chats_are_bounded_by_what_an_environment_states_and_else_by_its_attempts():
  assert rewriting(Rewrites()) == Rewriting(6, 6)
  assert rewriting(Rewrites(row_attempts=2, most_rows=3)) == Rewriting(2, 3)
  assert rewriting(Rewrites(rewrites_prompt=False, row_attempts=0)) is None and rewriting(object()) is None


@pytest.mark.parametrize("members, words", [
    (dict(row_attempts=0), "row_attempts of the environment is 0, .* from 1 to `attempts`, which is 6"),
    (dict(most_rows=7), "most_rows of the environment is 7"),
    (dict(most_rows="3"), "most_rows of the environment is '3'"),
    (dict(row_attempts=2, most_rows=2), "an episode of `attempts` = 6 responses does not fit")])
def test_bounds_that_hold_no_episode_are_refused(members, words):
  with pytest.raises(ValueError, match=words):
    rewriting(Rewrites(**members))
