"""A call of a reward function: two forms by their parameters, and whatever it returns as numbers or as its mistake."""

import fractions
import json

import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Verdict
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.own_reward.calls import (
  answer,
  form_of,
  read_chat,
  read_verdict,
  request_of_response,
  write_chat,
)

HERE = rf"{__file__}, line \d+, in "
REQUEST = {"prompts": ["a", "b", "c"], "completions": ["x", "yy", "zzz"], "completion_ids": [[1], [2], [3]],
           "level": [1, 2, None]}
CHAT = (Message("system", "\ud800ä"), Message("user", "2 + 2?", np.arange(24, dtype=np.uint8).reshape(2, 4, 3)),
        Message("assistant", "", fields={"role": "assistant", "tool_calls": [{"name": "add"}]}))


def asked(function, request=None):
  return answer(function, form_of(function, "reward.py:f"), REQUEST if request is None else request)


def test_a_chat_and_a_verdict_are_the_same_behind_the_pipe():
  for verdict in (Verdict(0.1 + 0.2, False, False, True, False, "Wrong.", CHAT, "wrong"),
                  Verdict(None, True, False, False, False, "", None, "right")):
    request = json.loads(json.dumps(request_of_response(CHAT, "four\0\ud800", verdict)))
    assert read_chat(request["chat"]) == CHAT and request["response"] == "four\0\ud800"
    assert read_verdict(request["verdict"]) == verdict
  assert read_chat(write_chat(())) == ()


def test_the_form_is_recognised_by_the_names_of_the_parameters():
  async def trl(completions, **kwargs): ...
  def all_of_it(*, prompts, completions, completion_ids, answer, level=3): ...
  for function, batch in ((trl, True), (all_of_it, True), (lambda completion_ids, **more: 0, True),
                          (lambda chat, response, verdict: 0, False), (lambda *all_three: 0, False),
                          (lambda a, b, c, d=1: 0, False)):
    assert form_of(function, "x").batch == batch
  form = form_of(all_of_it, "x")
  assert form.needs == ("prompts", "completions", "completion_ids", "answer") and not form.any_name
  for wrong in (lambda chat, response: 0, lambda chat, response, verdict, more: 0, lambda: 0):
    with pytest.raises(ConfigError, match=HERE + r".*it should be def reward\(chat, response, verdict\) -> float"):
      form_of(wrong, "x")
  with pytest.raises(ConfigError, match="TRL's form is called by names"):
    form_of(lambda completions, /: 0, "x")
  safe = lambda chat, response, verdict: 0
  safe.thread_safe = 1
  with pytest.raises(ConfigError, match=r"config\.reward of 'reward\.py:safe': thread_safe is 1"):
    form_of(safe, "reward.py:safe")


@pytest.mark.parametrize("returned", [
    [1, 0.5, None], (True, fractions.Fraction(1, 2), None), np.asarray([1.0, 0.5, np.float32(2)]),
    [np.float32(1), np.asarray(0.5), None]])
def test_numbers_of_any_kind_are_floats_and_none_abstains(returned):
  rewards = asked(lambda completions, **kwargs: returned)["rewards"]
  assert rewards[:2] == [1.0, 0.5] and rewards[2] in (None, 2.0)
  assert all(reward is None or type(reward) is float for reward in rewards)


@pytest.mark.parametrize("returned, message", [
    ([1.0, 2.0], "it returned 2 rewards for 3 responses, but it must return one number"), ([], "it returned 0 rewards"),
    (None, "it returned NoneType, but it must return a list"), (1.0, "it returned float"), ("123", "it returned str"),
    ({0: 1, 1: 1, 2: 1}, "it returned dict"), ((i for i in (1, 2, 3)), "it returned generator"),
    ([1, float("nan"), 2], "the reward of response 2 is nan, but it must be a finite number"),
    ([1, 2, float("inf")], "the reward of response 3 is inf"), ([1, 2, 1e30], "the reward of response 3 is 1e"),
    ([1, "2", 3], "the reward of response 2 is '2'"), ([1, [2], 3], "the reward of response 2 is .2., but"),
    ([1, 10**400, 3], "the reward of response 2 is 1000")])
def test_what_is_no_number_for_each_is_a_mistake_with_its_line(returned, message):
  def reward(prompts, completions, **kwargs):
    return returned

  told_of = asked(reward)
  assert list(told_of) == ["mistake"]
  with pytest.raises(ValueError, match=f"^{HERE}reward: {message}"):
    raise ValueError(told_of["mistake"])


def test_an_error_is_named_with_its_line_and_spoils_the_call_alone():
  def reward(completions, level, **kwargs):
    return [1 / (3 - place) for place in range(4)]

  def leaves(chat, response, verdict):
    raise SystemExit(0)

  with pytest.raises(ValueError, match=f"{HERE}.*: ZeroDivisionError: .*\n  The call was for 3 responses, none of"):
    raise ValueError(asked(reward)["failed"])
  one = request_of_response(CHAT, "4", Verdict(1.0, True, False, True, True, "", None, "right"))
  with pytest.raises(ValueError, match=f"{HERE}leaves: SystemExit: 0\n  The response was '4'"):
    raise ValueError(asked(leaves, one)["failed"])
  assert asked(lambda chat, response, verdict: verdict.reward + len(chat), one) == {"reward": 4.0}
  assert "the reward is None" in asked(lambda chat, response, verdict: None, one)["failed"]
  assert "the reward is nan" in asked(lambda chat, response, verdict: float("nan"), one)["mistake"]


def test_trls_arguments_are_there_by_their_names():
  seen = []

  async def everything(prompts, completions, **kwargs):
    kwargs["log_metric"]("length", 1)
    kwargs["log_metric"]("length", 2.0)
    kwargs["log_extra"]("text", completions)
    seen.append((prompts, completions, sorted(kwargs)))
    return [1] * 3

  assert asked(everything) == {"rewards": [1.0] * 3, "metrics": {"length": (3.0, 2)}}
  assert seen == [(REQUEST["prompts"], REQUEST["completions"], ["completion_ids", "level", "log_extra", "log_metric"])]
  assert asked(lambda completions, level: level)["rewards"] == [1.0, 2.0, None]   # it gets no more than it takes
  many = lambda completions, log_metric: [log_metric(f"{n}", n) for n in range(100)]
  assert "log_metric has 50 names already" in asked(many)["failed"]
  assert "the value of the metric 'a' is nan" in asked(
      lambda completions, log_metric: log_metric("a", float("nan")))["mistake"]
