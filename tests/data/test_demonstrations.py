"""Demonstrations: right last answers, wrong ones before, and the real verifier in between."""

import dataclasses
import itertools

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.data.demonstrations import DemonstrationsConfig, demonstration, refuse
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.virl.env import VIRL

ENV = GeneralPoints(target="any", cards=3, faces="mixed", attempts=3, style="compact")
SHOWN = DemonstrationsConfig(length=80, attempts=(0.5, 0.3, 0.2), misread=0.3, choices=4)
COUNT = 400


def chats(shown, seed=0, count=COUNT):
  return [demonstration(ENV, shown, seed, index).chat for index in range(count)]


def judged(seed, index, chat):
  """Verdicts of the environment on the responses of the chat, replayed."""
  state, _ = ENV.reset(f"{seed} {index}")
  verdicts = []
  for message in chat:
    if message.role == "assistant":
      state, verdict = ENV.step(state, message.text)
      verdicts.append(verdict)
  return verdicts


def test_an_example_is_a_function_of_seed_and_index():
  stream = chats(SHOWN, 3, 60)
  assert [demonstration(ENV, SHOWN, 3, index).chat for index in reversed(range(60))] == stream[::-1]
  assert len({chat[0].text for chat in stream}) > 50
  assert sum(a == b for a, b in zip(stream, chats(SHOWN, 4, 60), strict=True)) < 3


def test_earlier_attempts_are_wrong_the_last_is_right_and_the_verifier_answers_each():
  kinds = set()
  for index, chat in enumerate(chats(SHOWN)):
    verdicts = judged(0, index, chat)
    assert [verdict.correct for verdict in verdicts] == [False] * (len(verdicts) - 1) + [True]
    questions = [message.text for message in chat if message.role == "user"]
    assert questions[0] == ENV.reset(f"0 {index}")[1][0].text
    assert questions[1:] == [verdict.feedback for verdict in verdicts[:-1]]
    kinds |= {verdict.code for verdict in verdicts[:-1]}
  assert kinds >= {"value", "misread"}


def test_the_last_message_is_the_response_to_be_learned():
  for chat in chats(SHOWN):
    assert [message.role for message in chat] == ["user", "assistant"] * (len(chat) // 2)


def test_attempts_come_at_their_rates():
  counts = [len(chat) // 2 for chat in chats(SHOWN, count=2000)]
  for attempt, rate in enumerate(SHOWN.attempts, 1):
    assert counts.count(attempt) / 2000 == pytest.approx(rate, abs=0.04)
  assert {len(chat) for chat in chats(DemonstrationsConfig(), count=50)} == {2}


@pytest.mark.parametrize("careless", [0.0, 0.4, 1.0])
def test_careless_last_attempts_come_at_their_rate(careless):
  shown = DemonstrationsConfig(attempts=(0.7, 0.3), careless=careless)
  right = [judged(0, index, chat)[-1].correct for index, chat in enumerate(chats(shown))]
  luck = sum(judged(0, i, c)[-1].correct for i, c in enumerate(chats(DemonstrationsConfig(careless=1.0)))) / COUNT
  assert sum(right) / COUNT == pytest.approx(1 - careless * (1 - luck), abs=0.08)
  assert luck < 0.5


def test_mislabelled_answers_come_at_their_rate_and_are_wrong():
  noisy = [judged(0, index, chat)[-1].correct for index, chat in enumerate(chats(DemonstrationsConfig(noise=0.2)))]
  assert sum(noisy) / COUNT == pytest.approx(0.8, abs=0.08)
  assert not any(judged(0, index, chat)[-1].correct
                 for index, chat in enumerate(chats(DemonstrationsConfig(noise=1.0), count=50)))


def test_choices_show_other_right_answers():
  single, four = chats(DemonstrationsConfig(), count=100), chats(DemonstrationsConfig(choices=4), count=100)
  assert 10 < sum(a[-1] != b[-1] for a, b in zip(single, four, strict=True)) < 100
  assert all(judged(0, index, chat)[-1].correct for index, chat in enumerate(four))


def test_more_attempts_than_the_task_allows_are_refused():
  with pytest.raises(ValueError, match="data.attempts has 4 entries, but config.env.attempts is 3"):
    for index in itertools.count():
      demonstration(ENV, DemonstrationsConfig(attempts=(0.0, 0.0, 0.0, 1.0)), 0, index)


class Without:
  """GeneralPoints without the methods that get it wrong."""

  def __init__(self, *missing):
    self.missing = missing

  def __getattr__(self, name):
    if name in self.missing:
      raise AttributeError(name)
    return getattr(ENV, name)


def test_careless_and_misread_are_asked_for_only_where_the_config_asks():
  plain = Without("careless", "misread")
  refuse(plain, DemonstrationsConfig())
  assert demonstration(plain, DemonstrationsConfig(), 0, 5) == demonstration(ENV, DemonstrationsConfig(), 0, 5)
  for shown, name in ((DemonstrationsConfig(careless=0.1), "careless"),
                      (DemonstrationsConfig(attempts=(0.5, 0.5)), "careless"),
                      (DemonstrationsConfig(attempts=(0.5, 0.5), misread=1.0), "misread"),
                      (DemonstrationsConfig(noise=0.1), "misread")):
    with pytest.raises(ValueError, match=rf"config\.data asks for \w+ responses, .* no {name}\(state, seed\)"):
      refuse(plain, shown)
  with pytest.raises(ValueError, match="data.attempts has 2 entries, but config.env.attempts is 1"):
    refuse(GeneralPoints(attempts=1), DemonstrationsConfig(attempts=(0.5, 0.5)))


def test_a_careless_answer_that_happens_to_be_right_is_drawn_again_where_nothing_misreads():
  shown = DemonstrationsConfig(attempts=(0.0, 1.0), misread=0.0)
  for index in range(100):
    chat = demonstration(Without("misread"), shown, 0, index).chat
    assert [verdict.correct for verdict in judged(0, index, chat)] == [False, True]

  class Lucky(Without):
    def careless(self, state, seed):
      return ENV.expert(state)
  with pytest.raises(ValueError, match="100 wrong responses were asked for and all were right"):
    demonstration(Lucky("misread"), shown, 0, 0)


@pytest.mark.parametrize("settings, key", [
    (dict(length=1), "length"), (dict(attempts=()), "attempts"), (dict(attempts=(0.5, 0.4)), "attempts"),
    (dict(attempts=(1.5, -0.5)), "attempts"), (dict(careless=1.1), "careless"), (dict(misread=-0.1), "misread"),
    (dict(noise=1.1), "noise"),
    (dict(choices=0), "choices"), (dict(points="some"), "points"), (dict(careless_spread=0.1), "careless_spread"),
    (dict(careless=0.9, careless_spread=0.2), "careless_spread")])
def test_wrong_settings_name_their_key(settings, key):
  with pytest.raises(ValueError, match=f"^{key} is"):
    DemonstrationsConfig(**settings)


ROUTES = VIRL(style="compact", legs=3, straight=2, space="mixed")


def walked(env, name, chat):
  """(states, verdicts) of the environment over the responses of the chat."""
  state, _ = env.reset(name)
  states, verdicts = [], []
  for message in chat:
    if message.role == "assistant":
      states.append(state)
      state, verdict = env.step(state, message.text)
      verdicts.append(verdict)
  return states, verdicts


def test_with_all_points_the_expert_walks_to_the_end_and_every_response_is_learned():
  for index in range(50):
    shown = demonstration(ROUTES, DemonstrationsConfig(points="all"), 7, index)
    states, verdicts = walked(ROUTES, f"7 {index}", shown.chat)
    assert all(verdict.correct for verdict in verdicts) and verdicts[-1].success
    assert len(verdicts) == len(states[0].route.points)
    assert shown.learned == tuple(range(len(verdicts)))
    assert shown.chat == (*states[-1].chat, Message("assistant", ROUTES.expert(states[-1])))


def test_with_the_last_point_every_point_of_a_route_is_shown_and_its_response_alone_is_learned():
  points = set()
  for index in range(300):
    shown = demonstration(ROUTES, DemonstrationsConfig(), 7, index)
    states, verdicts = walked(ROUTES, f"7 {index}", shown.chat)
    assert all(verdict.correct for verdict in verdicts) and shown.learned == (len(verdicts) - 1,)
    points.add((states[-1].place, len(states[0].route.points)))
  assert {place for place, count in points if count == 7} == set(range(7))


def test_a_prompt_of_its_own_makes_every_point_a_row_of_its_own():
  env = VIRL(legs=2, straight=1)
  lengths = set()
  for index in range(60):
    shown = demonstration(env, DemonstrationsConfig(), 0, index)
    assert [message.role for message in shown.chat] == ["user", "assistant"] and shown.learned == (0,)
    lengths.add(shown.chat[0].text.count("O_"))
  assert len(lengths) > 1   # points before the last are in the prompt
  with pytest.raises(ValueError, match="data.points is 'all', but this environment writes a new prompt.*points=last"):
    refuse(env, DemonstrationsConfig(points="all"))


def test_wrong_attempts_at_every_point_are_answered_and_not_learned():
  shown = DemonstrationsConfig(points="all", attempts=(0.5, 0.5), misread=0.5)
  wrong = points = 0
  for index in range(100):
    example = demonstration(ROUTES, shown, 0, index)
    _, verdicts = walked(ROUTES, f"0 {index}", example.chat)
    assert [number for number, verdict in enumerate(verdicts) if verdict.correct] == list(example.learned)
    assert verdicts[-1].success
    wrong, points = wrong + len(verdicts) - len(example.learned), points + len(example.learned)
  assert wrong / points == pytest.approx(0.5, abs=0.08)
  with pytest.raises(ValueError, match="data.attempts has 3 entries, but this environment ends an episode after 2"):
    demonstration(ROUTES, DemonstrationsConfig(points="all", attempts=(0.0, 0.0, 1.0)), 0, 0)


def test_careless_responses_come_at_the_rate_of_their_state_and_the_walk_goes_on_after_them():
  careless, spread = 0.4, 0.4
  shown = DemonstrationsConfig(points="all", careless=careless, careless_spread=spread)
  often, seldom = [], []
  for index in range(600):
    example = demonstration(ROUTES, shown, 0, index)
    states, verdicts = walked(ROUTES, f"0 {index}", example.chat)
    assert example.learned == tuple(range(len(verdicts))) and not any(v.chat is None for v in verdicts[:-1])
    for state, verdict in zip(states, verdicts, strict=True):
      bias = ROUTES.careless_bias(state)
      assert -1 <= bias <= 1
      if abs(bias) > 0.3:
        (often if bias > 0 else seldom).append((careless + spread * bias, not verdict.correct))
  for group in (often, seldom):   # a careless response is always wrong in this task
    assert sum(wrong for _, wrong in group) / len(group) == pytest.approx(
        sum(rate for rate, _ in group) / len(group), abs=0.05)
  assert len(often) > 200 and len(seldom) > 200
  with pytest.raises(ValueError, match=r"no careless_bias\(state\).*careless_spread=0"):
    refuse(ENV, DemonstrationsConfig(careless=0.5, careless_spread=0.1))


def test_a_state_keeps_its_bias_under_both_action_spaces():
  plain = dataclasses.replace(ROUTES, space="absolute")
  shifted = dataclasses.replace(plain, variant="rule_ood")
  for seed in range(20):
    assert plain.careless_bias(plain.reset(seed)[0]) == shifted.careless_bias(shifted.reset(seed)[0])
