"""What keys a config may have, from dataclasses."""

import dataclasses

import pytest

from sftrl_jax.programs.mistakes import ConfigError
from sftrl_jax.programs.schema import REQUIRED, Key, keys_of


@dataclasses.dataclass(frozen=True)
class Inner:
  depth: int = 2


@dataclasses.dataclass(frozen=True)
class Outer:
  name: str
  inner: Inner = Inner()
  args: dict = dataclasses.field(default_factory=dict)
  derived: int = dataclasses.field(default=0, init=False)


def chosen(section):
  if section.get("name") != "inner":
    raise ValueError(f"name is {section.get('name')!r}, but should be inner")
  return Inner


def test_every_form_of_an_entry():
  keys = keys_of({"env": {"name": "inner"}},
                 {"seed": 0, "steps": int, "free": dict, "outer": Outer, "env": chosen, "words": ("a",)})
  assert keys == {
      "seed": Key(int, 0), "steps": Key(int, REQUIRED), "free": Key(dict, {}), "words": Key(tuple, ("a",)),
      "outer": {"name": Key(str, REQUIRED), "inner": {"depth": Key(int, 2)}, "args": Key(dict, {})},
      "env": {"name": Key(str, REQUIRED), "depth": Key(int, 2)},
  }


def test_an_unknown_name_of_a_chosen_section_is_told():
  with pytest.raises(ConfigError, match=r"config\.env\.name is 'other', but should be inner"):
    keys_of({"env": {"name": "other"}}, {"env": chosen})
