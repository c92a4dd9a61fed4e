"""Every environment of the table keeps the interface."""

import dataclasses

import pytest

from sftrl_jax.envs import ENVS
from sftrl_jax.envs.env import Counting, Env, Rewriting, Verdict, counting_of, labels_of, rewriting, thread_safe
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.referee import CheckedEnv, rewarded_by
from sftrl_jax.envs.virl.env import VIRL


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
  assert labels_of(object()) == {"codes": {}, "variants": {}, "parts": {}}


def test_an_attempt_is_of_the_episode_unless_the_environment_says_otherwise():
  assert counting_of(GeneralPoints(attempts=3)) == Counting("episode", 3, ("illegal",))
  assert counting_of(VIRL(style="compact", tries=4)) == Counting("point", 4, ("illegal",))
  wrapped = rewarded_by(CheckedEnv(VIRL(style="compact")), lambda *_: 0.0)
  assert counting_of(wrapped) == Counting("point", 2, ("illegal",))


@dataclasses.dataclass(frozen=True)
class Task:
  attempts: int = 5
  codes: tuple = ("right", "wrong")


def variant_of_task(**members):
  return type("Task", (Task,), members)()


def test_optional_members_have_defaults():
  assert counting_of(Task()) == Counting("episode", 5, ())
  assert counting_of(variant_of_task(attempts_of="point")) == Counting("point", 5, ())
  assert counting_of(variant_of_task(tries=2)).attempts == 5   # of a task whose attempts are those of the episode
  assert counting_of(variant_of_task(illegal_codes=("wrong",))).illegal_codes == ("wrong",)


@pytest.mark.parametrize("members, message", [
    (dict(attempts_of="points"), "attempts_of is 'points', but it must be 'episode'"),
    (dict(attempts_of="point", tries=0), "tries is 0"), (dict(attempts_of="point", tries=True), "tries is True"),
    (dict(attempts_of="point", tries="2"), "tries is '2'"), (dict(illegal_codes="wrong"), "illegal_codes is 'wrong'"),
    (dict(illegal_codes=("odd",)), r"names among codes=\('right', 'wrong'\)")])
def test_an_optional_member_that_means_nothing_is_refused(members, message):
  with pytest.raises(ValueError, match=message):
    counting_of(variant_of_task(**members))


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


def test_threads_may_call_what_says_so_itself():
  """An environment of one's own states it in its class: what it is derived from says nothing of its own methods."""
  class Derived(GeneralPoints):
    pass

  class Stated(GeneralPoints):
    thread_safe = True

  safe, unsafe, silent = (lambda *_: 0.0 for _ in range(3))
  safe.thread_safe, unsafe.thread_safe = True, False
  for env, expected in ((GeneralPoints(), True), (VIRL(), True), (CheckedEnv(Task()), False),
                        (CheckedEnv(Derived()), False), (CheckedEnv(Stated()), True)):
    assert thread_safe(env) is expected
    assert thread_safe(rewarded_by(env, safe)) is expected
    assert not thread_safe(rewarded_by(env, unsafe)) and not thread_safe(rewarded_by(env, silent))
  with pytest.raises(ValueError, match="thread_safe is 'yes', but it must be True"):
    thread_safe(CheckedEnv(variant_of_task(thread_safe="yes")))
