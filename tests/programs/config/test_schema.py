"""What keys a config may have, from dataclasses."""

import dataclasses

import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.config.schema import REQUIRED, Key, OneOf, expanded, keys_of, refuse_unchosen, switched


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


@dataclasses.dataclass(frozen=True)
class Other:
  width: int = 3


METHOD = {"seed": 0, "method": OneOf("inner", {"inner": Inner, "other": Other})}


def test_a_key_says_which_of_several_sections_there_is():
  assert expanded({}, METHOD) == {"seed": 0, "method": "inner", "inner": Inner}
  assert keys_of({"method": "other", "other": {}}, METHOD) == {
      "seed": Key(int, 0), "method": Key(str, "inner"), "other": {"width": Key(int, 3)}}


@pytest.mark.parametrize("tree, message", [
    ({"method": "othr"}, "config.method is 'othr': did you mean other. Valid: inner, other"),
    ({"method": 3}, "config.method is 3"),
    ({"other": {}}, "config.other is the section of method other, but config.method is 'inner': leave it out of the "
                    "config, or use --config.method=other"),
    ({"method": "other", "inner": {}, "other": {}}, "config.inner is the section of method inner")])
def test_a_section_that_is_not_chosen_is_an_error(tree, message):
  with pytest.raises(ConfigError, match=message):
    expanded(tree, METHOD)


def test_another_choice_drops_the_section_of_the_old_one_and_says_so():
  notes = []
  tree = switched({"seed": 1, "inner": {"depth": 5}}, "method", METHOD["method"], "other", notes.append)
  assert tree == {"seed": 1, "method": "other"}
  assert notes == ["method: inner -> other; dropped: config.inner; config.other begins with its defaults"]
  both = switched({"inner": {}, "other": {"width": 9}}, "method", METHOD["method"], "other", notes.append)
  assert both == {"other": {"width": 9}, "method": "other"} and notes[1].endswith("config.other has the file's values")
  same = switched({"inner": {"depth": 5}}, "method", METHOD["method"], "inner", notes.append)
  assert same == {"inner": {"depth": 5}, "method": "inner"} and len(notes) == 2
  unknown = switched({"inner": {"depth": 5}}, "method", METHOD["method"], "othr", notes.append)
  assert unknown == {"inner": {"depth": 5}, "method": "othr"} and len(notes) == 2   # `expanded` tells of it


def test_a_key_of_a_section_that_is_not_chosen_says_how_to_choose_it():
  refuse_unchosen({}, [("inner.depth", "3"), ("method", "inner")], METHOD)
  message = r"config\.other\.width is of method other, but config\.method is 'inner': give a key of config\.inner, or"
  with pytest.raises(ConfigError, match=message):
    refuse_unchosen({}, [("seed", "1"), ("other.width", "3")], METHOD)
