"""Reading alone: the names of the signs in four views."""

import random

import pytest

from sftrl_jax.envs.virl import city, compact, compass, signs, views
from sftrl_jax.envs.virl.route import Landmark

SHOWN = (Landmark("Bank", "bank", "front"), None, Landmark("Zoo", "zoo", "back"), Landmark("Bank", "bank", "left"))


@pytest.mark.parametrize("response, code", [
    ("bank nothing zoo bank", "correct"), ("bank nothing zoo zoo", "misread"), ("bank zoo nothing bank", "misread"),
    ("bank nothing zoo", "illegal"), ("bank nothing zoo bank bank", "illegal"), ("bank  zoo bank", "illegal"),
    ("bank nothing zoo BANK", "illegal"), ("bank LINE 3 STOP", "illegal"), ("", "illegal"),
    ("zoo " * 10**5, "illegal")])
def test_a_response_names_every_view_in_order(response, code):
  assert signs.judge(SHOWN, response) == code
  assert signs.write(SHOWN) == "bank nothing zoo bank"


def test_a_view_has_the_sign_that_is_drawn_for_it_or_none():
  kinds, blank = set(), 0
  for seed in range(300):
    drawn = signs.draw(random.Random(seed), "known", views.TURNS)
    assert drawn == signs.draw(random.Random(seed), "known", views.TURNS) and len(drawn) == 4
    for turn, mark in zip(views.TURNS, drawn, strict=True):
      assert mark is None or -45 <= compass.bend(turn, mark.angle) < 45
      blank += mark is None
    kinds |= {mark.kind for mark in drawn if mark}
    wrong = signs.misread(drawn, random.Random(seed), "known")
    assert signs.judge(drawn, wrong) == "misread"
    assert sum(a != b for a, b in zip(wrong.split(" "), signs.write(drawn).split(" "), strict=True)) == 1
  assert kinds == set(city.KNOWN) and 0.15 < blank / 1200 < 0.25 and kinds < set(compact.WORDS)
