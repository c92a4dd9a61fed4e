"""A picture of a city."""

import random

from sftrl_jax.envs.virl import city, city_map


def test_a_map_is_a_picture(tmp_path):
  town = city.generate(0, "known", 4, 1.0)
  path = city_map.draw(town, city.walk(town, random.Random(0), 3, 5, 0.5), tmp_path / "map.png")
  assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
