"""The paper's files of routes, sound and hostile."""

import json
import os
import pickle

import pytest

from sftrl_jax.envs.virl.env import VIRL

STREET = 0.0009   # degrees of latitude: 100 m


def block(heading, landmark):
  return (f'{{\n"intersection_idx": 0,\n"landmarks": "{landmark}",\n"distance": "100 meters",\n"human_heading": 0,\n'
          f'"to_next_intersection_heading": "{heading} (x)",\n}}')


def entry():
  return {"start_place": {"geocode": [40.0, -74.0]}, "dest_place": {"name": "Blue Cafe"}, "init_heading": 0,
          "route_results": {"geocode_list": [[40.0 + STREET, -74.0], [40.0 + STREET, -74.0 + STREET]]},
          "milestone_info": block(0, "Old Bank is on your right behind") + ", " + block(
              90, "The destination Blue Cafe is on your left")}


@pytest.fixture
def saved(tmp_path):
  def write(route=None, table=None, mapping=None):
    (tmp_path / "route_infos.json").write_text(json.dumps([[route or entry()], 1] if table is None else table))
    panoramas = {(40.0 + STREET * share, -74.0): "p" for share in (0.2, 0.4, 0.6, 0.8)}
    content = pickle.dumps(panoramas) if mapping is None else mapping
    (tmp_path / "gps_pano_mapping.pkl").write_bytes(content)
    return str(tmp_path / "route_infos.json")
  return write


def test_a_route_of_the_file_is_walked(saved):
  env = VIRL(routes=saved(), variant="id", drop=0.0)
  state, chat = env.reset(0)
  assert "Turn right to face east." in chat[0].text and "destination where Blue Cafe is on your left." in chat[0].text
  moves = []
  while chat is not None:
    moves.append(state.point.move)
    state, verdict = env.step(state, env.expert(state))
    chat = verdict.chat
  # Panoramas lie along the first street only.
  assert verdict.success and moves == ["turn", *4 * ["forward"], "turn", "stop"] and len(moves) * 2 <= env.attempts
  assert env.variants == ("id", "rule_ood") and VIRL(routes=saved(), variant="rule_ood").reset(0)[0].space == "relative"
  assert VIRL(routes=os.path.dirname(saved())).reset(0)


def test_a_start_without_a_heading_faces_the_first_leg_and_in_the_released_code_any(saved):
  path = saved()
  assert {VIRL(routes=path).route(seed).turns[0].relative for seed in range(30)} == {"slightly left"}
  assert len({VIRL(routes=path, legacy=True).route(seed).turns[0].relative for seed in range(30)}) > 1


class Code:
  def __reduce__(self):
    return os.system, ("touch /tmp/sftrl_executed",)


@pytest.mark.parametrize("mapping, words", [
    (pickle.dumps(Code()), r"it names posix\.system"), (b"\x80\x04no pickle", "no pickle"), (b"", "no pickle"),
    (pickle.dumps([1, 2]), "holds a list"), (pickle.dumps({(1.0, float("nan")): "p"}), "two finite numbers"),
    (pickle.dumps({"here": "p"}), "two finite numbers"), (pickle.dumps({(1000.0, 0.0): "p"}), "latitudes lie in")])
def test_a_mapping_is_plain_values_or_an_error(saved, tmp_path, mapping, words):
  with pytest.raises(ValueError, match=rf"gps_pano_mapping\.pkl.*{words}"):
    VIRL(routes=saved(mapping=mapping))
  assert not os.path.exists("/tmp/sftrl_executed")


def changed(**keys):
  return {**entry(), **keys}


@pytest.mark.parametrize("route, words", [
    (changed(route_results={"geocode_list": []}), "geocode_list is empty"),
    (changed(route_results={}), "geocode_list is a NoneType"), ({"start_place": 3}, "start_place is a int"),
    (changed(start_place={"geocode": [float("nan"), 0]}), "two finite numbers"),
    (changed(start_place={"geocode": [True, 0]}), "two finite numbers"),
    (changed(route_results={"geocode_list": [[40.0 + STREET, -74.0], [40.0, -74.0]]}), "to one place twice"),
    (changed(milestone_info="{}"), "1 blocks for 2 legs"), (changed(init_heading="up"), "init_heading is 'up'"),
    (changed(milestone_info=block("west", "Old Bank is on your right") * 2), "must begin with degrees"),
    (changed(milestone_info=block(0, "something odd") * 2), "landmarks is 'something odd'"),
    (changed(milestone_info=block(0, "No landmark nearby") * 2), "names no destination")])
def test_a_wrong_route_is_named(saved, route, words):
  with pytest.raises(ValueError, match=rf"route_infos\.json, route 0: .*{words}"):
    VIRL(routes=saved(route))


@pytest.mark.parametrize("table", [{}, [], [3], [[]], "x"])
def test_a_wrong_file_is_named(saved, table):
  with pytest.raises(ValueError, match="must be a list whose first item is the list of routes"):
    VIRL(routes=saved(table=table))


def test_the_compact_style_has_no_words_for_landmarks_of_a_file(saved):
  with pytest.raises(ValueError, match=r"route 0 has landmarks that have no word there, such as 'Blue Cafe'"):
    VIRL(routes=saved(), style="compact")
