"""The fields of V-IRL: names that they may have, and the error for a value that has no meaning."""

from __future__ import annotations

from typing import Any

from sftrl_jax.envs import fields
from sftrl_jax.envs.virl import compact, compass, paper, views

STYLES = {"paper": paper, "compact": compact}
VARIANT_LABELS = {"id": "ID", "rule_ood": "OOD, relative actions", "city_ood": "OOD, new cities"}
VISUAL_LABELS = {"visual_ood": "OOD, new look"}
SPACES = ("absolute", "relative")
WORDS = dict(zip(SPACES, (compass.COMPASS, compass.RELATIVE), strict=True))   # of turns


def checked(env: Any) -> dict:
  """The normalised fields; ValueError for the first that is wrong."""
  legs = env.legs if isinstance(env.legs, (list, tuple)) else (env.legs, env.legs)
  low, high = (fields.integer("legs", count, 1, paper.MOST_LEGS) for count in fields.items(
      "legs", legs, 2, "the smallest and the largest number, for example (2, 5)"))
  if low > high:
    raise ValueError(f"legs is {env.legs!r}, but the smallest number comes first: use ({high}, {low}).")
  if not isinstance(env.routes, str):
    raise ValueError(f"routes is {env.routes!r}, but it must be the path of a file, or '' for generated cities.")
  return {
      **views.checked(env),
      "style": fields.choice("style", env.style, tuple(STYLES)),
      "space": fields.choice("space", env.space, (*SPACES, "mixed")),
      "legs": (low, high),
      "straight": fields.integer("straight", env.straight, 0, 20),
      "drop": _share("drop", env.drop),
      "landmarks": _share("landmarks", env.landmarks),
      "distractors": _share("distractors", env.distractors),
      "cities": fields.integer("cities", env.cities, 1, 10_000),
      "size": fields.integer("size", env.size, 2, 50),
      "pool": fields.choice("pool", env.pool, ("known", "all")),
      "legacy": fields.flag("legacy", env.legacy),
      "tries": fields.integer("tries", env.tries, 1, 100),
      "rewards": tuple(fields.real("rewards", reward, "use for example (1, -1, -1.5)") for reward in fields.items(
          "rewards", env.rewards, 3, "of a right action, a wrong one, a wrong one after misreading")),
      "variant": fields.choice("variant", env.variant, ("train", *VARIANT_LABELS, *VISUAL_LABELS))}


def _share(name: str, value: float) -> float:
  share = fields.real(name, value, "use a share such as 0.5")
  if not 0 <= share <= 1:
    raise ValueError(f"{name} is {value!r}, but it must lie in [0, 1]: use a share such as 0.5.")
  return share
