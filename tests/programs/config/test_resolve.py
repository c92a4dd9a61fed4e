"""From file and command line to a resolved config: every error has key, value, rule and way out."""

import dataclasses
import json
from typing import Literal

import pytest
from ml_collections import ConfigDict

from sftrl_jax.programs.config import resolve as config_resolve
from sftrl_jax.programs.config.resolve import ConfigError


@dataclasses.dataclass(frozen=True)
class Objective:
  gamma: float = 1.0
  kind: Literal["clip", "penalty"] = "clip"
  widths: tuple[int, ...] = (1, 2)
  whiten: bool = False

  def __post_init__(self):
    if not 0 <= self.gamma <= 1:
      raise ValueError(f"gamma is {self.gamma}, but should be from 0 to 1.")
    if self.whiten and not self.widths:
      raise ValueError("Whitening needs widths.")


@dataclasses.dataclass(frozen=True)
class Optimizer:
  name: str
  learning_rate: float = 1e-3
  args: dict = dataclasses.field(default_factory=dict)


SCHEMA = {"seed": 0, "steps": int, "start": "scratch", "ppo": Objective, "optimizer": Optimizer, "env": dict}
FILE = {"steps": 5, "ppo": {"gamma": 1}, "optimizer": {"name": "adamw", "args": {"b1": 0.9}}, "env": {"cards": 3}}


def resolve(*overrides, file=None, **more):
  words = config_resolve.parse_overrides([f"--config.{override}" for override in overrides])
  return config_resolve.resolve(ConfigDict(FILE if file is None else file), words, SCHEMA, **more)


@pytest.fixture
def write(tmp_path):
  """write(text, name) puts a config file under tmp/configs and returns its path."""
  def to(text, name="task.py"):
    path = tmp_path / "configs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)
  return to


def test_a_file_is_loaded_with_its_choice(write):
  path = write("def get_config(choice=''):\n  return dict(seed=7, start=choice)\n")
  assert config_resolve.load(path).to_dict() == {"seed": 7, "start": ""}
  assert config_resolve.load(f"{path}:quick").start == "quick"


def test_a_config_may_import_its_neighbours_whatever_was_loaded_before(tmp_path):
  for name in ("one", "two"):
    folder = tmp_path / name / "configs" / "cards"
    folder.mkdir(parents=True)
    (folder / "task.py").write_text(f"NAME = {name!r}\n")
    (folder / "sft.py").write_text("from configs.cards import task\ndef get_config(): return dict(start=task.NAME)\n")
  for name in ("one", "two", "one"):
    assert config_resolve.load(str(tmp_path / name / "configs" / "cards" / "sft.py")).start == name


@pytest.mark.parametrize(("text", "choice", "message"), [
    ("x = 1\n", "", "defines no get_config"),
    ("def get_config(:\n", "", r"task\.py, line 1: "),
    ("import nothing_like_this\n", "", r"task\.py, line 1: ModuleNotFoundError"),
    ("def get_config():\n  return 1 / 0\n", "", r"task\.py, line 2: ZeroDivisionError"),
    ("def get_config():\n  return {}\n", ":quick", "takes no choice"),
    ("def get_config(choice):\n  raise ValueError(f'choice {choice} is unknown')\n", ":x", "line 2: choice x is"),
    ("def get_config():\n  return 3\n", "", "returned int"),
])
def test_a_broken_file_is_told_with_its_line(write, text, choice, message):
  with pytest.raises(ConfigError, match=message):
    config_resolve.load(write(text) + choice)


def test_a_missing_file_is_told_with_the_nearest(write):
  path = write("")
  with pytest.raises(ConfigError, match=r"did you mean .*task\.py\?"):
    config_resolve.load(path.replace("task.py", "tsk.py"))
  with pytest.raises(ConfigError, match=r"write --config=FILE\.py"):
    config_resolve.load("configs/task.yaml")
  with pytest.raises(ConfigError, match="paths are relative to"):
    config_resolve.load("no/such/folder/task.py:quick")


def test_missing_keys_get_the_defaults_of_their_dataclass_and_the_result_is_locked():
  config = resolve()
  assert config.to_dict() == {
      "seed": 0, "steps": 5, "start": "scratch", "env": {"cards": 3},
      "ppo": {"gamma": 1.0, "kind": "clip", "widths": (1, 2), "whiten": False},
      "optimizer": {"name": "adamw", "learning_rate": 1e-3, "args": {"b1": 0.9}},
  }
  with pytest.raises(AttributeError):
    config.ppo.gama = 1


def test_overrides_are_converted_and_the_last_one_counts():
  config = resolve("steps=1e3", "ppo.gamma=1", "ppo.gamma=0.5", "ppo.whiten=true", "ppo.widths=3,4", "env.cards=4",
                   "env.deck=52", "env.cards=5", "optimizer.args.b2=0.95", "start=runs/base=1")
  assert (config.steps, config.ppo.gamma, config.ppo.whiten, config.ppo.widths) == (1000, 0.5, True, (3, 4))
  assert config.env.to_dict() == {"cards": 5, "deck": 52}
  assert config.optimizer.args.to_dict() == {"b1": 0.9, "b2": 0.95}
  assert config.start == "runs/base=1"
  assert resolve("optimizer.args={'b3': 1, 'deep.er': 2}").optimizer.args.to_dict() == {"b3": 1, "deep": {"er": 2}}


@pytest.mark.parametrize(("override", "message"), [
    ("ppo.gama=1", r"config\.ppo\.gama is not a key of config\.ppo: did you mean config\.ppo\.gamma\? Valid: gamma"),
    ("pppo.gamma=1", r"config\.pppo is not a key of this config: did you mean config\.ppo\?"),
    ("gamm=1", r"config\.gamm is not a key of this config: did you mean config\.ppo\.gamma\?"),
    ("gamma=1", r"config\.gamma is not a key of this config: did you mean config\.ppo\.gamma\?"),
    ("ppo=1", r"config\.ppo is a section: override one of its keys"),
    ("seed.x=1", r"config\.seed is a value \(int\), no section"),
    ("env.cards.x=1", r"cards in config\.env is 3, no section"),
    ("ppo.gamma.x=1", r"config\.ppo\.gamma is a value"),
    ("steps=0.5", r"config\.steps is '0\.5', but should be int: write a whole number"),
    ("ppo.whiten=1", r"config\.ppo\.whiten is '1', but should be bool: write true or false"),
    ("ppo.kind=clp", r"should be one of 'clip', 'penalty'"),
    ("optimizer.args={'b1': None}", "no None"),
])
def test_a_wrong_override_is_told(override, message):
  with pytest.raises(ConfigError, match=message):
    resolve(override)


@pytest.mark.parametrize(("change", "message"), [
    ({"sed": 1}, r"config\.sed is not a key of this config: did you mean config\.seed\?"),
    ({"ppo": {"gama": 1}}, r"did you mean config\.ppo\.gamma\?"),
    ({"ppo": 3}, r"config\.ppo is 3, but should be a section"),
    ({"ppo": {"gamma": "high"}}, r"config\.ppo\.gamma is 'high', but should be float"),
    ({"start": None}, r"config\.start is None"),
    ({"env": {"cards": None}}, r"no None"),
    ({"optimizer": {"learning_rate": 1}}, r"config\.optimizer\.name is missing and has no default"),
])
def test_a_wrong_file_is_told(change, message):
  with pytest.raises(ConfigError, match=message):
    resolve(file={**FILE, **change})


def test_a_key_that_has_to_be_given_may_be_given_by_the_command_line():
  file = {key: value for key, value in FILE.items() if key != "steps"}
  with pytest.raises(ConfigError, match=r"config\.steps is missing .* --config\.steps=VALUE"):
    resolve(file=file)
  assert resolve("steps=9", file=file).steps == 9


def swap(section, name):
  if name == "unheard":
    raise ValueError("there is no such optimizer")
  return {**section, "name": name, "learning_rate": 0.02, "args": {}}, f"now {name}"


def test_another_optimizer_replaces_what_belonged_to_the_first():
  notes = []
  changes = {"optimizer.name": swap}
  config = resolve("optimizer.args.b3=1", "optimizer.name=muon", on_override=changes, note=notes.append)
  assert config.optimizer.to_dict() == {"name": "muon", "learning_rate": 0.02, "args": {"b3": 1}}
  assert notes == ["now muon"]
  config = resolve("optimizer.learning_rate=1", "optimizer.name=muon", on_override=changes, note=notes.append)
  assert config.optimizer.learning_rate == 1.0
  config = resolve("optimizer.name=adamw", on_override=changes, note=notes.append)
  assert config.optimizer.args.to_dict() == {"b1": 0.9}
  assert len(notes) == 2
  with pytest.raises(ConfigError, match=r"config\.optimizer\.name=unheard: there is no such optimizer"):
    resolve("optimizer.name=unheard", on_override=changes)


def kind_of(section, key):
  if key != "b1":
    raise ValueError(f"{key} is no argument of {section['name']}")
  return float


def test_keys_of_a_free_section_are_those_that_are_told_of_and_have_their_types():
  free = {"optimizer.args": kind_of, "absent.args": kind_of}
  file = {**FILE, "optimizer": {"name": "adamw", "args": {"b1": 1}}}
  assert type(resolve(file=file, free=free).optimizer.args.b1) is float
  assert resolve("optimizer.args.b1=1e-1", file=file, free=free).optimizer.args.b1 == 0.1
  for word, message in (("optimizer.args.b2=1", r"config\.optimizer\.args\.b2 is no argument of adamw"),
                     ("optimizer.args={'b3': 1}", r"config\.optimizer\.args\.b3 is no argument of adamw"),
                     ("optimizer.args.b1=x", r"config\.optimizer\.args\.b1 is 'x', but should be float")):
    with pytest.raises(ConfigError, match=message):
      resolve(word, free=free)


@pytest.mark.parametrize("argument", ["--config.a", "--config.=1", "--confg.a=1", "--config.a..b=1", "a=1"])
def test_what_is_no_override_is_told(argument):
  with pytest.raises(ConfigError, match=r"write --config\.section\.key=value"):
    config_resolve.parse_overrides([argument])


def test_build_names_the_key_that_is_wrong():
  assert config_resolve.build(Objective, ConfigDict({"gamma": 0.5}), "config.ppo") == Objective(gamma=0.5)
  with pytest.raises(ConfigError, match=r"^config\.ppo\.gamma is 2\.0, but should be from 0 to 1"):
    config_resolve.build(Objective, {"gamma": 2.0}, "config.ppo")
  with pytest.raises(ConfigError, match=r"^config\.ppo: Whitening needs widths"):
    config_resolve.build(Objective, {"whiten": True, "widths": ()}, "config.ppo")
  with pytest.raises(ConfigError, match=r"config\.ppo\.gama is not a key of .*: did you mean config\.ppo\.gamma"):
    config_resolve.build(Objective, {"gama": 2.0}, "config.ppo")
  with pytest.raises(ConfigError, match=r"config\.optimizer\.name is missing"):
    config_resolve.build(Optimizer, {}, "config.optimizer")
  assert config_resolve.build(lambda **free: free, {"any": 1}, "config.x") == {"any": 1}


def test_a_config_equals_its_own_json():
  config = resolve()
  assert config_resolve.differences(config, json.loads(json.dumps(config.to_dict()))) == []


def test_differences_name_every_key():
  found = config_resolve.differences({"a": 1, "b": {"c": (1, 2), "d": 0}}, {"a": 1, "b": {"c": [1, 3]}, "e": {}})
  assert found == [("b.c", (1, 2), [1, 3]), ("b.d", 0, "(absent)"), ("e", "(absent)", {})]


def test_a_workdir_takes_no_other_config_but_may_go_on_longer():
  recorded = resolve().to_dict()
  config_resolve.refuse_another(recorded, resolve("steps=9"), "runs/x")
  with pytest.raises(ConfigError, match=r"another config:\n  config\.ppo\.gamma: 1\.0 there, 0\.5"):
    config_resolve.refuse_another(recorded, resolve("ppo.gamma=0.5"), "runs/x")


def test_room_for_texts_may_grow_and_what_is_left_out_may_change_but_no_room_may_shrink():
  recorded = {"max_dropped": 100, "rollout": {"prompt_tokens": 4, "feedback_tokens": 2}}
  config_resolve.refuse_another(recorded, {"max_dropped": 0, "verdict_seconds": 9.0, "verdict_workers": 3, "rollout": {
      "prompt_tokens": 11, "feedback_tokens": 9}}, "runs/x")
  for key in ("prompt_tokens", "feedback_tokens"):
    with pytest.raises(ConfigError, match=rf"rollout\.{key}: . there, 1 now\n.*rollout\.feedback_tokens, .* grow"):
      config_resolve.refuse_another(recorded, {**recorded, "rollout": {**recorded["rollout"], key: 1}}, "runs/x")
