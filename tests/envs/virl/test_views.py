"""V-IRL in pictures: every point is shown, no text names what is seen now, and a look is a shift of its own."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from sftrl_jax.envs import ENVS
from sftrl_jax.envs.virl import compass, views
from sftrl_jax.envs.virl.env import VIRL

PAPER = VIRL(vision=True, pixels=32)
COMPACT = VIRL(vision=True, style="compact", pixels=32)
STYLES = pytest.mark.parametrize("env", [PAPER, COMPACT], ids=["paper", "compact"])


def walk(env, seed):
  """(state, chat) at every point of the expert's walk, and its verdicts."""
  state, chat = env.reset(seed)
  states, verdicts = [(state, chat)], []
  while chat is not None:
    state, verdict = env.step(state, env.expert(state))
    verdicts.append(verdict)
    chat = verdict.chat
    states += [(state, chat)] if chat else []
  return states, verdicts


def test_the_defaults_show_four_views_and_the_papers_prompt():
  env = ENVS["virl"](vision=True)
  _, chat = env.reset(0)
  assert chat[0].image.shape == (449, 449, 3) and chat[0].image.dtype == np.uint8
  assert env.variants == ("id", "rule_ood", "city_ood", "visual_ood")
  assert "O_1: You observe an image of 4 views; \nA_1:" in chat[0].text and "[front, right; back, left]" in chat[0].text
  assert views.PIXELS["compact"] == 64 and VIRL(vision=True, pixels=1200).reset(0)[1][0].image.shape[0] == 2405


@STYLES
def test_every_point_has_a_picture_and_no_text_of_what_is_seen_now(env):
  text = dataclasses.replace(env, vision=False, pixels=0)
  for seed in range(12):
    states, verdicts = walk(env, seed)
    assert verdicts[-1].success and [verdict.parts for verdict in verdicts] == [
        {"landmark": True} | ({"sign": True} if state.point.landmark else {}) for state, _ in states]
    assert len(states) == len(walk(text, seed)[0]) == len(states[0][0].route.points)
    for place, (state, chat) in enumerate(states):
      message = chat[-1]
      assert message.image is not None and state.place == place and state.route == text.route(seed)
      landmark = state.point.landmark
      shown = message.text.rpartition("O_")[2] if env is PAPER else message.text.rpartition("SEE")[2]
      assert landmark is None or (landmark.name not in shown and landmark.kind not in shown)
      assert ("CROSSING" in shown or "intersection" in shown) == state.point.intersection
  pictures = [message.image is not None for message in states[-1][1]]
  assert pictures == ([True] if env is PAPER else [True, False] * (len(pictures) // 2) + [True])


def test_a_failed_try_shows_no_second_picture():
  state, chat = COMPACT.reset(3)
  _, verdict = COMPACT.step(state, "nothing LINE 1 STOP")
  assert [message.image is None for message in verdict.chat] == [False, True, True]
  assert verdict.parts == {"landmark": state.point.landmark is None}   # there is no sign, so none is reported


@STYLES
def test_what_is_seen_is_reported_apart_from_the_action(env):
  for seed in range(30):
    state, _ = env.reset(seed)
    _, verdict = env.step(state, env.misread(state, seed))
    assert verdict.code == "misread" and not any(verdict.parts.values())
    _, verdict = env.step(state, env.careless(state, seed))
    assert all(verdict.parts.values())


def test_signs_of_no_instruction_are_reported_apart():
  """What they say is in the picture alone: a policy that names the landmark of the next line misreads each of them."""
  env, seen = dataclasses.replace(COMPACT, distractors=1.0), set()
  for seed in range(30):
    states, verdicts = walk(env, seed)
    for (state, _), verdict in zip(states, verdicts, strict=True):
      point, named = state.point, {mark.kind for mark in state.route.landmarks if mark}
      assert ("distractor" in verdict.parts) == (point.landmark is not None and point.landmark.kind not in named)
      assert set(verdict.parts.values()) == {True} and env.part_labels.keys() >= verdict.parts.keys() - {"landmark"}
      seen |= verdict.parts.keys()
      if "distractor" in verdict.parts:
        _, guessed = env.step(state, f"{max(named)} LINE {point.line} FORWARD")
        assert guessed.correct and not any(guessed.parts.values())
  assert seen == {"landmark", "sign", "distractor"}


@pytest.mark.parametrize("variant", ["train", "id", "city_ood", "visual_ood"])
def test_reading_alone_shows_one_picture_of_the_same_route_with_signs_in_its_views(variant):
  env = dataclasses.replace(COMPACT, answer="signs", look="any", variant=variant, tries=1)
  routes = dataclasses.replace(env, answer="action")
  assert (env.attempts, env.most_rows, env.rewrites_prompt) == (1, 1, False)
  for seed in range(40):
    state, chat = env.reset(seed)
    assert state.route == routes.route(seed) and [message.text for message in chat] == ["SEE"]
    blank = routes._picture(dataclasses.replace(state, signs=()), dataclasses.replace(state.point, landmark=None))
    for place, mark in enumerate(state.signs):   # it differs from the street where it has a sign
      y, x = (32 * index for index in divmod(place, 2))
      own, plain = (image[y : y + 32, x : x + 32] for image in (chat[0].image, blank))
      assert (own != plain).any() == (mark is not None)
    after, verdict = env.step(state, env.expert(state))
    assert verdict.success and verdict.terminated and verdict.chat is None and after.ended and verdict.reward == 1
    assert verdict.parts == {"signs": True} and env.careless(state, seed) == env.expert(state)
    _, verdict = env.step(state, env.misread(state, seed))
    assert (verdict.code, verdict.reward, verdict.truncated, verdict.parts) == ("misread", -1.5, True, {"signs": False})


@STYLES
def test_a_seed_gives_one_picture_and_a_look_changes_nothing_else(env):
  shifted, new = (dataclasses.replace(env, variant=name) for name in ("visual_ood", "city_ood"))
  plain, rule = (dataclasses.replace(env, variant=name) for name in ("id", "rule_ood"))
  for seed in range(8):
    state, chat = plain.reset(seed)
    assert dataclasses.replace(plain).reset(seed) == (state, chat) and pickle.loads(pickle.dumps(state)) == state
    other, seen = shifted.reset(seed)
    assert (other.route, seen[0].text) == (state.route, chat[0].text)
    assert (seen[0].image != chat[0].image).mean() > 0.5
    assert (rule.reset(seed)[1][0].image == chat[0].image).all()
    assert views.look_of(new, new.route(seed)) == views.look_of(shifted, other.route) == "dusk"
  assert len({plain.reset(seed)[1][0].image.tobytes() for seed in range(40)}) > 36
  with pytest.raises(ValueError, match="read-only"):
    chat[0].image[0] = 0


def test_a_base_sees_every_look():
  base = VIRL(vision=True, look="any", pool="all", style="compact")
  assert {views.look_of(base, base.route(seed)) for seed in range(30)} == {"day", "dusk"}
  assert {views.look_of(dataclasses.replace(base, variant="id"), base.route(seed)) for seed in range(30)} == {"day"}


def test_a_sign_is_on_the_side_that_the_oracle_says():
  for seed in range(60):
    for point in PAPER.route(seed).points:
      if point.landmark:
        assert compass.SIDES[round(point.landmark.angle / 45) % 8] == point.landmark.side
        # One came along a street of a generated city, and goes on along another.
        assert any(abs(compass.bend(point.heading + 180, street)) < 1 for street in point.streets)


@pytest.fixture
def photographed(tmp_path):
  """The data of one short route north, with panoramas whose columns tell the heading: cosine in red, sine in green."""
  street = 0.0009
  milestones = ('{\n"landmarks": "No landmark nearby",\n"to_next_intersection_heading": "0 (north)",\n}\n'
                '{\n"landmarks": "The destination Old Bank is on your right",\n}')
  entry = {"start_place": {"geocode": [40.0, -74.0]}, "milestone_info": milestones,
           "route_results": {"geocode_list": [[40.0 + street, -74.0]]}, "init_heading": 90}
  (tmp_path / "route_infos.json").write_text(json.dumps([[entry], 1]))
  names = {(40.0, -74.0): "start", (40.0 + street, -74.0): "end"}
  (tmp_path / "gps_pano_mapping.pkl").write_bytes(pickle.dumps(names))
  folder = tmp_path / "street_views"
  folder.mkdir()
  angle = np.radians(np.arange(360) + 0.5)
  world = np.zeros((180, 360, 3), np.uint8)
  world[..., 0], world[..., 1] = 127 + 120 * np.cos(angle), 127 + 120 * np.sin(angle)
  for name, rotation in (("start", 0), ("end", 90)):
    Image.fromarray(np.roll(world, rotation, 1)).save(folder / f"{name}.jpg", quality=98, subsampling=0)
    (folder / f"{name}.metadata.json").write_text(json.dumps({"rotation": rotation}))
  return tmp_path


def off(image, pixels, headings):
  """Degrees by which the middle of each view is off the heading that it should show."""
  end = len(image) - pixels // 2
  middles = [image[y, x].astype(float) - 127 for y in (pixels // 2, end) for x in (pixels // 2, end)]
  shown = [np.degrees(np.arctan2(middle[1], middle[0])) for middle in middles]
  return max(abs(compass.bend(asked, seen)) for asked, seen in zip(headings, shown, strict=True))


def test_panoramas_are_cut_at_the_headings_of_the_prompt(photographed):
  env = VIRL(vision=True, routes=str(photographed), panoramas=str(photographed / "street_views"), pixels=48)
  assert env.variants == ("id", "rule_ood")
  states, verdicts = walk(env, 0)
  assert verdicts[-1].success
  for (state, chat), headings in ((states[0], (90, 180, 270, 0)), (states[-1], (0, 90, 180, 270))):
    assert off(chat[0].image, 48, headings) < 5
    assert state.point.heading == headings[0]
  released = dataclasses.replace(env, legacy=True)
  assert off(released.reset(0)[1][0].image, 48, (-45, 45, 135, 225)) < 5


def test_a_missing_or_wrong_panorama_is_named(photographed):
  folder = photographed / "street_views"
  fields = {"vision": True, "routes": str(photographed), "panoramas": str(folder)}
  metadata = folder / "start.metadata.json"
  for content, message in (("{}", "start.metadata.json .*'rotation'"), ('{"rotation": NaN}', "finite"),
                           (None, "start.metadata.json")):
    metadata.write_text(content) if content else metadata.unlink()
    with pytest.raises(ValueError, match=message):
      VIRL(**fields, pixels=40).reset(0)
  metadata.write_text('{"rotation": 1}')
  (folder / "start.jpg").write_bytes(b"no picture")
  with pytest.raises(ValueError, match="start.jpg is no picture"):
    VIRL(**fields, pixels=40).reset(0)


def test_drawn_streets_serve_routes_of_a_file_too(photographed):
  env = VIRL(vision=True, routes=str(photographed), pixels=32)
  assert walk(env, 0)[1][-1].success and "visual_ood" in env.variants


@pytest.mark.parametrize("wrong, message", [
    ({"look": "any"}, "vision is False"), ({"pixels": 64}, "vision=True"), ({"vision": "yes"}, "True or False"),
    ({"vision": True, "pixels": 16}, "from 32 to 1200"), ({"vision": True, "pixels": 1.5}, "integer"),
    ({"vision": True, "look": "dusk"}, "'any'"), ({"vision": True, "panoramas": "x"}, "set routes too"),
    ({"variant": "visual_ood"}, "vision=True"), ({"vision": True, "panoramas": 3}, "path of a directory")])
def test_a_wrong_field_is_named_with_its_rule(wrong, message):
  with pytest.raises(ValueError, match=message):
    VIRL(**wrong)
