"""The page of keys: each with value, type, choices and meaning."""

import dataclasses
from typing import Literal

from sftrl_jax.programs import manual, settings


@dataclasses.dataclass(frozen=True)
class Objective:
  """What is minimized.

  gamma: discount inside a turn
  clip, floor: how far the ratio may go
  """

  gamma: float = 1.0
  clip: float = 0.2
  floor: float = 0.1
  kind: Literal["a", "b"] = "a"   # which of the two
  whiten: bool = dataclasses.field(default=True, metadata={"help": "advantages over the batch"})
  unsaid: int = 0


def task(section):
  return Objective


SCHEMA = {"seed": 0, "steps": int, "ppo": Objective, "env": task, "free": dict}


def line_of(page, flag):
  return next(line for line in page.splitlines() if line.strip().startswith(flag))


def test_every_key_has_a_line_with_value_type_and_meaning():
  config = settings.resolve({"steps": 3, "env": {"name": "x"}, "free": {"b1": 0.9}}, [], SCHEMA)
  page = manual.page(config, SCHEMA)
  assert "updates" in line_of(page, "--config.steps=3 ")
  assert line_of(page, "--config.ppo.gamma=1.0").split() == [
      "--config.ppo.gamma=1.0", "float", "discount", "inside", "a", "turn"]
  assert "'a' | 'b'" in line_of(page, "--config.ppo.kind=a")
  assert "which of the two" in line_of(page, "--config.ppo.kind=a")
  assert "over the batch" in line_of(page, "--config.ppo.whiten=true")
  assert "class" in line_of(page, "--config.env.name=x")
  assert "discount" in line_of(page, "--config.env.gamma=1.0")
  assert "float" in line_of(page, "--config.free.b1=0.9")


def test_meanings_come_from_metadata_docstring_or_comment():
  assert manual.meanings(Objective) == {
      "gamma": "discount inside a turn", "clip": "how far the ratio may go", "floor": "how far the ratio may go",
      "kind": "which of the two", "whiten": "advantages over the batch", "unsaid": ""}
