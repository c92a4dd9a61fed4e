"""A user's environment held to the interface: what it raises or returns wrongly is told with its file and line."""

import dataclasses
import decimal
import fractions
import math

import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Env, Verdict, labels_of
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.referee import LARGEST, CheckedEnv, EpisodeError, TaskError, rewarded_by

GOOD = Verdict(1, True, False, True, True, "yes", None, "correct")
ON = dataclasses.replace(GOOD, terminated=False, chat=(Message("user", "again"),))
HERE = r"test_referee\.py, line \d+, in "


@dataclasses.dataclass(frozen=True)
class Task:
  """An environment that returns what it is told to, or raises it."""

  answer: object = (0, GOOD)
  chat: object = (Message("user", "1 + 1"),)
  variants, codes, attempts, words = (), ("correct",), 1, ()

  def reset(self, seed):
    return 0, self.chat

  def step(self, state, response):
    if isinstance(self.answer, BaseException):
      raise self.answer
    return self.answer

  def expert(self, state, choice=0):
    return 2 if state == "number" else "2"


class Careless(Task):
  def careless(self, state, seed):
    return 1 / 0


class Thinking(Task):
  def action_start(self, response):
    return {"": 0, "a": 2, "b": True}[response]


class Labelled(Task):
  code_labels, variant_labels = {"correct": "right"}, {"far": 3}


def stepping(**changes):
  return CheckedEnv(Task((0, dataclasses.replace(GOOD, **changes))))


def test_a_right_environment_plays_as_it_is():
  env = CheckedEnv(GeneralPoints(style="compact", attempts=2))
  # From Python 3.12 on isinstance asks the class, which passes the fields of its environment on.
  assert all(hasattr(env, name) for name in (*Env.__annotations__, "reset", "step", "expert"))
  assert env.attempts == 2 and env.words == env.env.words
  state, chat = env.reset(7)
  assert (state, chat) == env.env.reset(7)
  assert env.step(state, env.expert(state)) == env.env.step(state, env.env.expert(state))
  assert env.expert(state, 1) == env.env.expert(state, 1)
  assert env.careless(state, "a") == env.env.careless(state, "a")
  assert not hasattr(CheckedEnv(Task()), "careless")


def test_where_an_action_starts_is_an_index_into_the_response():
  env = CheckedEnv(Thinking())
  assert env.action_start("") == 0 and not hasattr(CheckedEnv(Task()), "action_start")
  for response, words in (("a", "the start is 2, but it must be an index into the response, from 0 to 1"),
                          ("b", "the start is True"), ("c", "KeyError.*Every str has a start")):
    with pytest.raises(TaskError, match=f"(?s)test_referee.py.*{words}"):
      env.action_start(response)


def test_labels_pass_through_and_must_be_text():
  for env in (GeneralPoints(), Task()):
    assert labels_of(CheckedEnv(env)) == labels_of(rewarded_by(CheckedEnv(env), len)) == labels_of(env)
  assert CheckedEnv(Labelled()).code_labels == {"correct": "right"}
  with pytest.raises(TaskError, match=rf"{HERE}Labelled: variant_labels is {{'far': 3}}, but it must be a dict of str"):
    labels_of(CheckedEnv(Labelled()))


@pytest.mark.parametrize("reward", [1, True, 0.5, -3.0])
def test_a_reward_is_a_float_afterwards(reward):
  got = stepping(reward=reward).step(0, "x")[1].reward
  assert type(got) is float and got == reward


@pytest.mark.parametrize("changes, told", [
    (dict(reward=None), "reward is None"), (dict(reward=math.nan), "reward is nan"), (dict(reward=math.inf), "is inf"),
    (dict(reward="1"), "reward is '1'"), (dict(correct=1), "correct is 1, but it must be True or False"),
    (dict(truncated=True), "terminated and truncated are both True"), (dict(terminated=False), "chat is None"),
    (dict(chat=(Message("user", "x"),)), "at the end of the episode"), (dict(feedback=None), "feedback is None"),
    (dict(code=3), "code is 3"), (dict(parts={"cards": 1}), "parts is {'cards': 1}"), (dict(parts=[]), "parts is []"),
    (dict(terminated=False, chat=(Message("assistant", "x"),)), "the last is the user's"),
    (dict(terminated=False, chat=["x"]), "it must be a tuple of Messages")])
def test_a_wrong_verdict_names_the_step_and_the_response(changes, told):
  with pytest.raises(TaskError, match=f"{HERE}step: ") as error:
    stepping(**changes).step(0, "my answer")
  assert told in str(error.value) and "my answer" in str(error.value)


@pytest.mark.parametrize("answer, told", [
    (GOOD, "must return (state, verdict)"), ((0, 1.0), "must be a Verdict"), (None, "it returned None")])
def test_what_is_no_verdict_is_told(answer, told):
  with pytest.raises(TaskError, match=f"{HERE}step: ") as error:
    CheckedEnv(Task(answer)).step(0, "x")
  assert told in str(error.value)


def test_what_raises_is_told_with_the_line_that_raised():
  line = Task.step.__code__.co_firstlineno + 2
  with pytest.raises(TaskError, match=rf"test_referee\.py, line {line}, in step: KeyError: 'a'\n.*step\(0, 'x'\)"):
    CheckedEnv(Task(KeyError("a"))).step(0, "x")
  with pytest.raises(TaskError, match="in careless: ZeroDivisionError"):
    CheckedEnv(Careless()).careless(0, "seed")
  with pytest.raises(TaskError, match=f"{HERE}expert: the response is 2, but it must be a str"):
    CheckedEnv(Task()).expert("number")
  with pytest.raises(TaskError, match=f"{HERE}reset: the chat is ()"):
    CheckedEnv(Task(chat=())).reset(0)


def test_a_reward_function_sees_the_chat_that_was_answered_and_changes_the_reward_alone():
  seen = []

  def length(chat, response, verdict):
    seen.append((chat, response, verdict.correct))
    return len(response)

  inner = GeneralPoints(style="compact", attempts=3)
  env = rewarded_by(inner, length)
  asked, chat = env.reset(0)
  assert chat == inner.reset(0)[1]
  after, verdict = env.step(asked, "wrong")
  _, ended = env.step(after, env.expert(after))
  _, plain = inner.step(inner.reset(0)[0], "wrong")
  assert dataclasses.replace(verdict, reward=0) == dataclasses.replace(plain, reward=0)
  assert (verdict.reward, ended.reward) == (5.0, float(len(env.expert(after))))
  assert ended.success and not verdict.success
  assert seen == [(chat, "wrong", False), (verdict.chat, env.expert(after), True)]
  assert env.careless(after, "s") == inner.careless(after.state, "s")


@pytest.mark.parametrize("value, told", [(None, "reward is None"), (math.nan, "reward is nan"), ("x", "reward is 'x'")])
def test_a_wrong_reward_function_is_told_with_its_line(value, told):
  def reward(chat, response, verdict):
    return 1 / 0 if value == "x" else value

  env = rewarded_by(CheckedEnv(Task((0, dataclasses.replace(GOOD, reward=None))), scored=True), reward)
  with pytest.raises(TaskError, match=f"{HERE}reward: ") as error:
    env.step(env.reset(0)[0], "mine")
  assert ("ZeroDivisionError" if value == "x" else told) in str(error.value) and "'mine'" in str(error.value)


def rewarded(value):
  """An environment whose reward function gives this value, or raises it."""

  def reward(chat, response, verdict):
    if isinstance(value, BaseException):
      raise value
    return value

  return rewarded_by(CheckedEnv(Task((0, dataclasses.replace(GOOD, reward=None))), scored=True), reward)


def rewarded_step(value):
  env = rewarded(value)
  return env.step(env.reset(0)[0], "mine")


@pytest.mark.parametrize("value", [
    1e30, -1e30, 2e19, 1e300, 10**400, -(10**400), 10**5000, np.float64(1e30), np.float32(1e30),
    fractions.Fraction(10**400), math.inf, math.nan, np.nan, decimal.Decimal("1e30"), 1j, "1", b"1", [1.0],
    np.array([1.0, 2.0]), object()], ids=lambda value: type(value).__name__)
def test_a_reward_that_float32_cannot_square_is_told_with_its_line_and_value(value):
  for step in (lambda: rewarded_step(value), lambda: stepping(reward=value).step(0, "mine")):
    with pytest.raises(TaskError, match=rf"{HERE}(reward|step): the reward is .*, but it must be a finite number") as e:
      step()
    assert not isinstance(e.value, EpisodeError) and "'mine'" in str(e.value)   # a mistake, and no accident


@pytest.mark.parametrize("value", [
    LARGEST, -LARGEST, 1e10, 10**15, np.float32(0.5), np.float64(1e-300), np.int64(3), fractions.Fraction(1, 3), True])
def test_a_reward_within_float32_is_taken(value):
  assert rewarded_step(value)[1].reward == float(value) and np.isfinite(np.float32(float(value)) ** 2)


@pytest.mark.parametrize("error", [
    TimeoutError("the judge did not answer"), SystemExit(0), KeyboardInterrupt(), GeneratorExit(), MemoryError(),
    RecursionError()], ids=lambda error: type(error).__name__)
def test_what_a_reward_raises_spoils_its_episode_and_keeps_the_verdict(error):
  with pytest.raises(EpisodeError, match=f"{HERE}reward: {type(error).__name__}") as spoiled:
    rewarded_step(error)
  assert spoiled.value.kind == "reward" and spoiled.value.after[1] == dataclasses.replace(GOOD, reward=None)
  with pytest.raises(EpisodeError, match=f"{HERE}step: {type(error).__name__}") as spoiled:
    CheckedEnv(Task(error.with_traceback(None))).step(0, "x")
  assert spoiled.value.kind == "env" and spoiled.value.after is None


def test_none_abstains():
  with pytest.raises(EpisodeError, match=f"{HERE}reward: the reward is None, so its episode abstains") as spoiled:
    rewarded_step(None)
  assert spoiled.value.kind == "reward" and spoiled.value.after[1].reward is None
  with pytest.raises(EpisodeError, match=f"{HERE}step: the reward is None"):
    stepping(reward=None).step(0, "x")
