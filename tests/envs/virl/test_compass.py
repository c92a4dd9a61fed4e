"""Directions as numbers and as words."""

import pytest

from sftrl_jax.envs.virl import compass


@pytest.mark.parametrize("heading, word", [(0, "north"), (22, "north"), (23, "northeast"), (-45, "northwest"),
                                           (338, "north"), (337, "northwest"), (720 + 90, "east"), (259, "west")])
def test_the_nearest_compass_word(heading, word):
  assert compass.compass_word(heading) == word


@pytest.mark.parametrize("before, after, word", [
    (0, 90, "right"), (0, 270, "left"), (0, 45, "slightly right"), (0, 46, "right"), (45, 0, "slightly left"),
    (46, 0, "left"), (90, 90, "slightly left"), (350, 10, "slightly right"), (10, 350, "slightly left"),
    (315, 45, "right"), (45, 315, "left")])
def test_a_turn_is_the_short_way_round(before, after, word):
  assert compass.relative_word(before, after) == word


def test_without_wrap_a_turn_over_north_has_the_other_sign():
  assert compass.relative_word(350, 10, wrap=False) == "left"
  assert compass.relative_word(10, 350, wrap=False) == "right"


def test_sides_are_those_of_somebody_who_faces_the_heading():
  assert [compass.side_word(90, bearing) for bearing in (90, 135, 180, 270, 0, 45)] == [
      "front", "right front", "right", "behind", "left", "left front"]
