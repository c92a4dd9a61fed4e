"""Legs become turns and a rail of points."""

import random

from sftrl_jax.envs.virl.route import Landmark, Leg, between, make

BANK, CAFE = Landmark("Old Bank", "bank", "left"), Landmark("Blue Cafe", "cafe", "right")


def test_the_rail_has_a_turn_a_leg_and_ends_at_the_destination():
  legs = (Leg(90, ((0, 0), (60, 0)), BANK, ((20, 0), (40, 0))), Leg(45, ((60, 0), (100, 40)), CAFE))
  route = make("r", 0, legs)
  assert [(turn.relative, turn.absolute) for turn in route.turns] == [("right", "east"), ("slightly left", "northeast")]
  rows = [(point.move, point.line, point.landmark, point.intersection, point.place) for point in route.points]
  assert rows == [("turn", 1, None, False, (0, 0)), ("forward", 2, None, False, (20, 0)),
                  ("forward", 2, None, False, (40, 0)), ("turn", 3, BANK, True, (60, 0)),
                  ("stop", 4, CAFE, False, (100, 40))]
  assert route.points[3].word("absolute") == "northeast" and route.points[3].word("relative") == "slightly left"


def test_points_between_the_ends_of_a_leg():
  ends, here = ((0.0, 0.0), (100.0, 0.0)), lambda place, ends: place
  rail = lambda **changed: between(**{"ends": ends, "draw": random.Random(0), "straight": 5, "drop": 0.0, "snap": here,
                                      **changed})
  assert [round(x) for x, _ in rail()] == [20, 40, 60, 80]   # the fifth is the end itself
  assert rail(drop=1.0) == () == rail(straight=0) == rail(ends=((0, 0), (4, 0))) == rail(snap=lambda *_: None)
  assert rail(snap=lambda place, ends: (50.0, 0.0)) == ((50.0, 0.0),)   # one panorama is one point
  assert rail(ends=((0.0, 0.0), (30.0, 0.0))) == ((12.0, 0.0), (18.0, 0.0))   # 6 m are too near to an end
  counts = [len(rail(drop=0.5, draw=random.Random(seed))) for seed in range(2000)]
  assert abs(sum(counts) / len(counts) - 2) < 0.1
