"""Counts of episodes, and the interval around a rate."""

import dataclasses
import itertools
import math
import random
import statistics

import pytest

from sftrl_jax.envs.env import Counting, Verdict, counting_of
from sftrl_jax.envs.virl.env import VIRL
from sftrl_jax.rollout.episodes import Episode, Response, Turn
from sftrl_jax.rollout.tally import buffer_tokens, distinct, pass_at, read_tokens, tally, wilson


def episode(seed, codes, stopped=True):
  """An episode with one turn a code, of 1, 2, 3, ... tokens."""
  turns = []
  for number, code in enumerate(codes):
    right = code == "correct"
    verdict = Verdict(1.0 if right else -0.25, right, False, right, right, "", None, code)
    response = Response("", tokens=(5,) * (number + 1), logprobs=(0.0,) * (number + 1), stopped=stopped)
    turns.append(Turn(response, verdict))
  return Episode(seed, tuple(turns), (), codes[-1] != "correct" if codes else True)


EPISODES = [episode(0, ["correct"]), episode(1, ["value", "correct"]), episode(2, ["value", "numbers", "value"]),
            episode(3, ["illegal", "value", "correct"], stopped=False), episode(4, [])]


def test_outcomes_say_the_attempt_that_was_right():
  counts = tally(EPISODES, ("correct", "value", "misread"))
  assert counts.outcomes == "12030" and counts.successes == 3 and counts.episodes == 5
  assert counts.success == 3 / 5 and counts.first_success == 1 / 5
  assert counts.codes == {"correct": 1, "value": 2, "misread": 0, "illegal": 1}
  assert counts.reward == pytest.approx((1 + 0.75 - 0.75 + 0.5 + 0) / 5)
  assert (counts.responses, counts.response_tokens, counts.stopped) == (9, 1 + 3 + 6 + 6, 6)


def test_parts_of_a_verdict_are_counted_for_the_first_response_of_every_episode():
  assert tally(EPISODES).first_parts == {}
  parts = [{"cards": True, "rule": False}, {"cards": True}, None, {"rule": True}]
  episodes = [dataclasses.replace(each, turns=(dataclasses.replace(each.turns[0], verdict=dataclasses.replace(
      each.turns[0].verdict, parts=part)), *each.turns[1:])) for each, part in zip(EPISODES, parts, strict=False)]
  assert tally([*episodes, EPISODES[4]]).first_parts == {"cards": "11000", "rule": "00010"}
  assert tally(EPISODES).all_parts == {} and tally(episodes).all_parts == {"cards": (2, 2), "rule": (1, 2)}
  by_episode = tally([*episodes, EPISODES[4]]).episode_parts
  assert by_episode == {"cards": ((1, 1, 0, 0, 0), (1, 1, 0, 0, 0)), "rule": ((0, 0, 0, 1, 0), (1, 0, 0, 1, 0))}
  assert {name: tuple(map(sum, pair)) for name, pair in by_episode.items()} == tally(episodes).all_parts


def test_attempts_past_nine_still_take_one_character():
  assert tally([episode(0, ["value"] * 9 + ["correct"]), episode(1, ["value"] * 50 + ["correct"])]).outcomes == "az"


def test_no_episodes_have_no_success():
  assert tally([]).success == 0.0 and tally([]).episodes == 0


def test_the_wilson_interval_solves_its_equation_and_stays_inside():
  z = statistics.NormalDist().inv_cdf(0.975)
  for n in (1, 7, 512):
    for k in {0, 1, n // 2, n}:
      low, high = wilson(k, n)
      assert 0 <= low <= k / n <= high <= 1 and low < high
      for edge in (low, high):   # |rate - p| = z sqrt(p (1 - p) / n)
        assert math.isclose((k / n - edge) ** 2, z**2 * edge * (1 - edge) / n, abs_tol=1e-9)
  assert wilson(0, 0) == [0.0, 1.0]


ROUTES = VIRL(style="compact", legs=2, straight=1, tries=3)


def sometimes_right(seed, rate):
  """A policy that is right at a point with this chance, else wrong by form or by action: its own count is kept."""
  draw, log = random.Random(seed), []

  def answer(state):
    kind = "right" if draw.random() < rate else draw.choice(["illegal", "wrong"])
    log.append(kind)
    if kind == "illegal":
      return "what"
    right = ROUTES.expert(state)
    wrong = "FORWARD" if state.point.move != "forward" else "STOP"
    return right if kind == "right" else " ".join([*right.split(" ")[:3], wrong])

  return answer, log


def routes(rate, count=60):
  """(episodes of a scripted policy, what it answered at each point of each of them), played by hand."""
  episodes, answered = [], []
  for seed in range(count):
    answer, log = sometimes_right(seed, rate)
    state, chat = ROUTES.reset(seed)
    turns, points, ended = [], [], False
    while not ended:
      before = state.place
      state, verdict = ROUTES.step(state, answer(state))
      turns.append(Turn(Response("", context=(1,) * 3, tokens=(5,) * 2, logprobs=(0.0,) * 2), verdict))
      points = [*points, []] if not points or before != len(points) - 1 else points
      points[-1].append(log[-1])
      ended = verdict.chat is None
    episodes.append(Episode(seed, tuple(turns), chat, turns[-1].verdict.truncated))
    answered.append(points)
  return episodes, answered


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.7, 1.0])
def test_responses_and_points_of_a_task_of_many_points_are_counted_as_the_policy_counts_them(rate):
  episodes, answered = routes(rate)
  counts = tally(episodes, ROUTES.codes, counting_of(ROUTES))
  points = [point for of_route in answered for point in of_route]
  every = [kind for point in points for kind in point]
  assert counts.responses == len(every) and counts.right == every.count("right")
  assert counts.per_step == every.count("right") / len(every)
  assert counts.points == len(points) and counts.first_right == sum(point[0] == "right" for point in points)
  assert counts.legal == len(every) - every.count("illegal") and counts.all_codes["illegal"] == every.count("illegal")
  assert counts.all_codes["correct"] == every.count("right") and sum(counts.all_codes.values()) == len(every)
  assert counts.episode_responses == tuple(sum(map(len, of_route)) for of_route in answered)
  assert counts.episode_right == tuple(sum(p.count("right") for p in of_route) for of_route in answered)
  # A route is solved where every point ends right; it is as hard as the point that took most tries.
  expected = [str(max(map(len, of_route))) if all(p[-1] == "right" for p in of_route) else "0" for of_route in answered]
  assert list(counts.outcomes) == expected
  assert counts.first_success == sum({p[0] for p in of_route} == {"right"} for of_route in answered) / len(answered)
  assert sum(counts.codes.values()) == len(episodes)
  if 0 < rate < 1:
    assert {"0", "1"} < set(expected) and 0 < counts.first_right < counts.points


def test_attempts_of_the_episode_are_counted_as_ever_and_an_episode_is_a_point():
  counts = tally(EPISODES, ("correct", "value", "misread"), Counting("episode", 3, ("illegal",)))
  assert counts.outcomes == "12030"
  assert (counts.points, counts.first_right) == (4, 1) and counts.legal == 8
  assert counts.right == 3 and counts.per_step == 3 / 9
  assert counts.all_codes == {"correct": 3, "value": 4, "misread": 0, "numbers": 1, "illegal": 1}
  assert counts.episode_right == (1, 1, 0, 1, 0) and counts.episode_responses == (1, 2, 3, 3, 0)
  assert dataclasses.replace(counts, legal=9) == tally(EPISODES, ("correct", "value", "misread"))


def test_no_responses_have_no_rate():
  counts = tally([episode(0, [])], counting=Counting("point", 2))
  assert counts.per_step == 0 and counts.points == 0 and counts.outcomes == "0" and counts.episode_responses == (0,)


def of_seed(right, text="x"):
  return Episode(0, (Turn(Response(text), Verdict(0.0, True, False, right, right, "", None, "")),), (), False)


def test_pass_at_k_is_the_share_of_choices_of_k_samples_with_a_right_one():
  draw = random.Random(0)
  for n in (1, 2, 3, 5, 8):
    table = [[draw.random() < 0.3 for _ in range(7)] for _ in range(n)]   # [sample][seed]
    rates = pass_at([[of_seed(right) for right in row] for row in table])
    assert set(rates) == {str(k) for k in (1, 2, 4, 8) if k <= n} | {str(n)}
    for k, rate in rates.items():
      drawn = [[any(choice) for choice in itertools.combinations(column, int(k))]
               for column in zip(*table, strict=True)]
      assert rate == pytest.approx(statistics.mean(statistics.mean(column) for column in drawn))
  assert pass_at([[], []]) == {"1": 0.0, "2": 0.0}


def test_distinct_solutions_are_right_ones_that_differ():
  samples = [[of_seed(True, "a"), of_seed(True, "a")], [of_seed(True, "b"), of_seed(False, "b")],
             [of_seed(True, "a"), of_seed(False, "c")]]
  assert distinct(samples) == (2 + 1) / 2 and distinct([[], []]) == 0.0


def test_tokens_of_the_papers_formula():
  """Each response reads all that came before it; the mean of reads and the mean of writes are multiplied."""
  turns = lambda *pairs: Episode(0, tuple(Turn(Response("", (1,) * read, (5,) * wrote, (0.0,) * wrote), Verdict(
      0.0, False, False, False, False, "", None, "")) for read, wrote in pairs), (), False)
  episodes = [turns((10, 4), (3, 6)), turns((8, 5)), turns()]
  reads, writes = [10, 17, 8], [4, 6, 5]
  assert buffer_tokens(episodes) == pytest.approx(3 * (sum(reads) / 3) * (sum(writes) / 3))
  assert read_tokens(episodes) == (10 + 4 + 3 + 6 - 1) + (8 + 5 - 1)
  assert buffer_tokens([turns()]) == 0.0 and read_tokens([turns()]) == 0
