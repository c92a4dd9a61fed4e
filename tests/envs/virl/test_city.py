"""Generated cities and routes through them."""

import dataclasses
import math
import random

import pytest

from sftrl_jax.envs.virl import city, compass


@pytest.mark.parametrize("pool", city.POOLS)
def test_a_city_is_decided_by_its_number_and_pool(pool):
  first = city.generate(3, pool, 6, 0.7)
  city.generate.cache_clear()
  again = city.generate(3, pool, 6, 0.7)
  assert first == again and first is not again
  assert first.streets != city.generate(4, pool, 6, 0.7).streets


def test_streets_lead_both_ways_and_have_the_heading_of_their_places():
  town = city.generate(1, "known", 8, 0.5)
  for node, ways in town.streets.items():
    for eighth, following in ways.items():
      assert town.streets[following][(eighth + 4) % 8] == node
      (x, y), (to_x, to_y) = town.place(node), town.place(following)
      heading = math.degrees(math.atan2(to_x - x, to_y - y)) % 360
      assert heading == pytest.approx(town.heading(eighth) % 360, abs=1e-9)


def test_training_and_shifted_cities_share_no_word():
  known, unseen = ([city.generate(number, pool, 8, 0.9) for number in range(40)] for pool in ("known", "unseen"))
  for words in (lambda town: {town.name}, lambda town: {name for name, _, _ in town.landmarks.values()},
                lambda town: {kind for _, kind, _ in town.landmarks.values()},
                lambda town: {name.split()[0] for name, _, _ in town.landmarks.values()}):
    assert not set.union(*map(words, known)) & set.union(*map(words, unseen))
  assert len({town.name for town in known}) == 40


def test_routes_turn_at_every_intersection_and_visit_none_twice():
  town = city.generate(0, "known", 8, 0.75)
  for seed in range(200):
    found_route = city.walk(town, random.Random(seed), 5, 5, 0.5, seed)
    corners = [point.place for point in found_route.points if point.move != "forward"]
    assert len(set(corners)) == 6 and len(found_route.turns) == 5
    assert found_route.points[-1].move == "stop" and found_route.points[-1].landmark is not None
    assert not found_route.points[0].intersection and found_route.points[0].landmark is None
    for point in found_route.points:
      if point.move == "forward":
        assert min(math.dist(point.place, corner) for corner in corners) > 8 and point.landmark is None
      if point.move == "turn":
        assert point.absolute in compass.COMPASS and point.relative in compass.RELATIVE


def test_distractors_are_landmarks_that_the_route_does_not_name_and_change_nothing_else():
  town = city.generate(0, "known", 8, 0.75)
  signs = {(name, kind) for name, kind, _ in town.landmarks.values()}
  for seed in range(40):
    plain, some, each = (city.walk(town, random.Random(seed), 3, 5, 0.3, seed, distractors=share)
                         for share in (0.0, 0.5, 1.0))
    named = {landmark.kind for landmark in plain.landmarks if landmark}
    for before, half, after in zip(plain.points, some.points, each.points, strict=True):
      if before.move != "forward":
        assert before == half == after
        continue
      sign = after.landmark
      assert (sign.name, sign.kind) in signs and sign.kind not in named
      assert sign.side == compass.side_word(0, sign.angle)
      assert dataclasses.replace(after, landmark=None) == before == dataclasses.replace(half, landmark=None)
  assert {point.landmark is None for point in some.points if point.move == "forward"} == {True, False}


def test_a_city_too_small_for_a_route_is_an_error():
  with pytest.raises(ValueError, match="use fewer legs, a larger size"):
    city.walk(city.generate(0, "known", 2, 1.0), random.Random(0), 9, 0, 0.5)
