"""The paper's style of V-IRL."""

import pytest

from sftrl_jax.envs.virl import paper
from sftrl_jax.envs.virl.route import Landmark, Leg, make

ROUTE = make("r", 0, (Leg(270, ((0, 0), (0, 60)), Landmark("Old Bank", "bank", "left")),
                      Leg(315, ((0, 60), (0, 90)), Landmark("Blue Cafe", "cafe", "right"))))
POINT = ROUTE.points[1]


def test_the_instruction_has_two_lines_a_leg():
  assert paper.instruction(ROUTE) == [
      "1. First, turn left to face west.",
      "2. Move forward until you reach next intersection where Old Bank is on your left.",
      "3. Turn slightly right to face northwest.",
      "4. Move forward until you reach destination where Blue Cafe is on your right."]


def test_observations_name_the_landmark_and_the_intersection():
  assert [paper.observation(point) for point in ROUTE.points] == [
      "No landmarks nearby; ", "Old Bank is on your left; You observe an intersection", "Blue Cafe is on your right; "]


def test_the_form_of_an_answer_is_read_back():
  response = paper.write(ROUTE, POINT, 3, "turn_direction(northwest)")
  assert paper.read(response) == (paper.observation(POINT), "turn_direction(northwest)")
  assert '"current instruction": "Turn slightly right to face northwest."' in response


SEEN = '"current observation": "Old Bank is on your left; You observe an intersection"'


@pytest.mark.parametrize("response, code", [
    ('{"action": "turn_direction(northwest)"}', "correct"),
    ("Sure! {'action': 'turn_direction(northwest)',}", "correct"),
    ('{"action": "turn_direction(slightly right)"}', "space"), ('{"action": "turn_direction(up)"}', "illegal"),
    ('{"action": "turn_direction( northwest)"}', "illegal"), ('{"action": 3}', "illegal"), ("{", "illegal"),
    (f'{{{SEEN}, "action": "stop()"}}', "action"), (f'{{{SEEN}, "action": "stop()",}}', "action"),
    ('{"current observation": "Old Bank", "action": "stop()"}', "misread"),
    ('{"current observation": "Blue Cafe; an intersection", "action": "stop()"}', "misread"),
    ('{"action": "stop()"}', "misread"), ('{"current observation": 3, "action": "stop()"}', "misread")])
def test_responses_are_judged(response, code):
  assert paper.judge(POINT, "absolute", response) == code


@pytest.mark.parametrize("response", [
    "{" * 8000, '"action": ' * 800, '{"action": ' + "[" * 5000, "'action' : '" * 600, '{"a": ' + "9" * 8000,
    '"action"' + " " * 8000, "\\" * 8000, '{"action": "' + "x" * 100_000])
def test_hostile_responses_are_illegal(response):
  assert paper.judge(POINT, "absolute", response) == "illegal"
