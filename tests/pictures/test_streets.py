"""Views are geometry: a sign stands where its angle says, streets open where they lie, and a city has a look."""

import dataclasses
import itertools

import numpy as np
import pytest

from sftrl_jax.envs.virl import city
from sftrl_jax.pictures import streets
from sftrl_jax.pictures.streets import Scene, Sign

PLAIN = Scene(3, "0 0", (0.0, 180.0), False)


def views(scene, pixels=64, look="day"):
  """{front, right, back, left} of a panel."""
  image = streets.panel(scene, look, pixels)
  end = streets.side(pixels)
  low, high = slice(0, pixels), slice(end - pixels, end)
  return {"front": image[low, low], "right": image[low, high], "back": image[high, low], "left": image[high, high]}


def centre(view, without):
  """Column of the middle of what differs."""
  columns = np.flatnonzero((view != without).any((0, 2)))
  return (columns.min() + columns.max()) / 2 if len(columns) else None


@pytest.mark.parametrize("angle, shown, where", [
    (0, "front", 0), (30, "front", 1), (-30, "front", -1), (60, "right", -1), (90, "right", 0), (120, "right", 1),
    (180, "back", 0), (-180, "back", 0), (150, "back", -1), (-90, "left", 0), (270, "left", 0), (-60, "left", 1),
    (405, "right", -1), (-45, "front", -1)])
def test_a_sign_is_in_one_view_on_its_side(angle, shown, where):
  scene = dataclasses.replace(PLAIN, signs=(Sign("Olive Gym", angle),))
  before, after = views(PLAIN), views(scene)
  assert [name for name in before if (before[name] != after[name]).any()] == [shown]
  assert np.sign(round((centre(after[shown], before[shown]) - 31.5) / 4)) == where


def test_a_street_opens_to_the_sky_and_a_wall_does_not():
  shown = views(PLAIN, 96)
  sky = np.array(streets.palette(3, "day").sky[1])
  horizon = {name: view[46, 48].astype(int) for name, view in shown.items()}
  assert all(np.abs(horizon[name] - sky).max() < 12 for name in ("front", "back")), horizon
  assert all(np.abs(horizon[name] - sky).max() > 12 for name in ("left", "right")), horizon
  crossing = views(dataclasses.replace(PLAIN, streets=(0.0, 90.0, 180.0, -45.0)), 96)
  assert np.abs(crossing["right"][46, 48].astype(int) - sky).max() < 12
  assert (crossing["left"][:, 48:] != shown["left"][:, 48:]).any() and (crossing["back"] == shown["back"]).all()


def test_only_a_crossing_has_stripes():
  plain, crossing = (views(dataclasses.replace(PLAIN, crossing=crossing), 96)["front"] for crossing in (False, True))
  assert (plain[:57] == crossing[:57]).all() and (plain[57:] != crossing[57:]).any()


def test_a_turn_of_the_head_moves_the_views():
  scene = Scene(3, "1 2", (0.0, 45.0, 180.0), True, (Sign("Old Bank", 20),))
  ahead = streets.panel(scene, "day", 48, (0.0, 90.0, 180.0, 270.0))
  turned = streets.panel(scene, "day", 48, (90.0, 180.0, 270.0, 0.0))
  assert (ahead[:48, 48:] == turned[:48, :48]).all() and (ahead[:48, :48] == turned[48:, 48:]).all()


def test_every_city_has_a_look_and_the_shift_has_others():
  day, dusk = ({streets.palette(number, look) for number in range(1000)} for look in ("day", "dusk"))
  assert len(day) == len(dusk) == 8 and not day & dusk
  assert len({streets.palette(number, "day") for number in range(100, 108)}) == 8
  for first, second in itertools.product(streets.DAY, streets.DUSK):
    assert sum(np.abs(np.subtract(first.sky, second.sky)).ravel()) > 100


@pytest.mark.parametrize("look", streets.LOOKS)
@pytest.mark.parametrize("pixels, names", [(64, [f"The {kind}" for kind in city.POOLS["all"]]), (224, [
    f"{word} {kind}" for word in ("Amber", "Harvest", "Juniper") for kind in ("bank", "pizzeria", "observatory")])])
def test_every_sign_is_whole_and_its_own(pixels, names, look):
  boards = [streets.panel(dataclasses.replace(PLAIN, signs=(Sign(name, 0),)), look, pixels)[:pixels, :pixels]
            for name in names]
  for place, board in enumerate(boards[:-1]):
    different = [(np.abs(board.astype(int) - later).max(-1) > 60).mean() for later in boards[place + 1:]]
    assert min(different) > 0.004, names[place]


def test_panels_have_the_papers_size_and_are_drawn_once():
  assert streets.side(1200) == 2405 and streets.side(64) == 128
  first, again = streets.panel(PLAIN, "day", 64), streets.panel(PLAIN, "day", 64)
  assert (first == again).all() and first.shape == (128, 128, 3) and first.dtype == np.uint8
  assert (first != streets.panel(PLAIN, "dusk", 64)).mean() > 0.5
  assert (first != streets.panel(dataclasses.replace(PLAIN, place="9 9"), "day", 64)).any()


@pytest.mark.parametrize("name", ["", " ", "x" * 200, "Ω ☃ \ud83d\ude00", "A\nB"])
def test_any_name_of_a_file_has_a_board_in_its_view(name):
  for pixels in (32, 224):
    image = streets.panel(dataclasses.replace(PLAIN, signs=(Sign(name, 44),)), "day", pixels)
    assert image.shape == (streets.side(pixels),) * 2 + (3,)
