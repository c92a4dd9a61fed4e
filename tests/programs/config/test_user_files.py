"""A class or a function of a user's own file: loaded by path, with its fields as keys and its mistakes with lines."""

import textwrap

import pytest
from ml_collections import ConfigDict

from sftrl_jax.programs.config import resolve, user_files
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.config.schema import keys_of
from sftrl_jax.programs.experiment.environment import env_section

TASK = """
    from __future__ import annotations
    import dataclasses
    import neighbour

    @dataclasses.dataclass(frozen=True)
    class Guess:
      '''low: the smallest'''
      low: int = 3
      sizes: tuple[int, ...] = (1, 2)
      variant: str = "train"
      variants, codes, attempts, words = ("here",), ("correct",), 1, ()

      def __post_init__(self):
        if self.low < 0:
          raise ValueError(f"low is {self.low}; it must not be negative.")
        neighbour.TABLE[self.low]

      def reset(self, seed): ...
      def step(self, state, response): ...
      def expert(self, state): ...

    @dataclasses.dataclass(frozen=True)
    class Guesses(Guess):
      more: bool = False

    class Thawed(Guess):
      pass

    @dataclasses.dataclass(frozen=True)
    class Silent:
      attempts: int = 1
      def reset(self, seed): ...
    def reward(chat, response, verdict):
      return 1.0
    THREE = 3
"""


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "mine" / "task.py"
  path.parent.mkdir()
  path.write_text(textwrap.dedent(TASK))
  (tmp_path / "mine" / "neighbour.py").write_text("TABLE = {number: number for number in range(10)}\n")
  return path


def test_a_class_is_loaded_once_and_its_fields_are_the_keys(file):
  guess = user_files.environment(f"{file}:Guess")
  assert guess is user_files.load(f"{file}:Guess", "x") and guess(low=4).low == 4
  keys = keys_of({"env": {"name": f"{file}:Guess"}}, {"env": env_section})["env"]
  assert {name: key.default for name, key in keys.items() if name != "name"} == {
      "low": 3, "sizes": (1, 2), "variant": "train"}


def test_paths_are_relative_to_the_current_directory_and_recorded_as_they_are_from_anywhere(file, monkeypatch):
  monkeypatch.chdir(file.parent.parent)
  schema = {"env": env_section, "reward": "", "seed": 0}
  given = {"env": {"name": "mine/task.py:Guess", "low": 5}, "reward": "mine/task.py:reward"}
  config = resolve.resolve(given, [], schema)
  assert config.env.name == f"{file}:Guess" and config.reward == f"{file}:reward" and config.env.low == 5
  monkeypatch.chdir("/")
  again = resolve.resolve(config, [("env.low", "6")], schema)
  assert again.env.name == config.env.name and again.env.low == 6
  overrides = [("env.name", f"{file}:Guess"), ("env.low", "7")]
  other = resolve.resolve({"env": {"name": "general_points"}}, overrides, schema)
  assert other.env.low == 7


def test_another_class_by_override_drops_the_old_ones_keys_and_says_so(file):
  notes, schema = [], {"env": env_section}
  config = {"env": {"name": "general_points", "cards": 3, "attempts": 2}}
  swapped = resolve.resolve(config, [("env.name", f"{file}:Guess")], schema, note=notes.append)
  assert swapped.env.to_dict() == {"name": f"{file}:Guess", "low": 3, "sizes": (1, 2), "variant": "train"}
  assert notes == [f"env.name: general_points -> {file}:Guess; dropped: cards, attempts"]
  mine = {"env": {"name": f"{file}:Guesses", "low": 8, "more": True}}
  related = resolve.resolve(mine, [("env.name", f"{file}:Guess")], schema, note=notes.append)
  assert related.env.low == 8 and "more" not in related.env
  assert notes[1].endswith("; kept: low=8; dropped: more")


def test_a_wrong_key_names_the_nearest(file):
  with pytest.raises(ConfigError, match=r"config\.env\.lw is not a key of config\.env: did you mean config\.env\.low"):
    resolve.resolve(ConfigDict({"env": {"name": f"{file}:Guess", "lw": 1}}), [], {"env": env_section})
  with pytest.raises(ConfigError, match=r"config\.env\.low is 'x', but should be int"):
    resolve.resolve(ConfigDict({"env": {"name": f"{file}:Guess", "low": "x"}}), [], {"env": env_section})


@pytest.mark.parametrize("name, message", [
    ("{file}:Gues", "has no Gues: did you mean Guess?"), ("{file}", "say which name of the file"),
    ("{folder}/tusk.py:Guess", "there is no file"), ("{file}:THREE", "of type int, which is no class"),
    ("{file}:Silent", "task.py, line 30, in Silent"), ("{file}:Silent", "it has no step(...), expert(...), variants,"),
    ("{file}:Thawed", "task.py, line 27, in Thawed: an environment is a frozen dataclass")])
def test_what_is_no_environment_is_told_with_its_line(file, name, message):
  with pytest.raises(ConfigError) as error:
    user_files.environment(name.format(file=file, folder=file.parent))
  assert message in str(error.value)


@pytest.mark.parametrize("text, message", [
    ("x = 1\ny = 1 / 0\n", r"broken\.py, line 2, in <module>: ZeroDivisionError"),
    ("x = 1\nimport sys\nsys.exit(0)\n", r"broken\.py, line 3, in <module>: SystemExit: 0"),
    ("raise KeyboardInterrupt", r"broken\.py, line 1, in <module>: KeyboardInterrupt"),
    ("def f(:\n", r"broken\.py, line 1: "), ("import no_such_module\n", r"broken\.py, line 1, .*ModuleNotFoundError")])
def test_a_broken_file_is_told_with_its_line(tmp_path, text, message):
  (tmp_path / "broken.py").write_text(text)
  with pytest.raises(ConfigError, match=message):
    user_files.load(f"{tmp_path / 'broken.py'}:X", "config.env.name")


def test_a_file_that_changed_is_read_again(tmp_path):
  path = tmp_path / "one.py"
  path.write_text("X = 1\n")
  assert user_files.load(f"{path}:X", "x") == 1
  path.write_text("X = 22\n")
  assert user_files.load(f"{path}:X", "x") == 22


def test_a_run_does_not_go_on_with_another_file_unless_told_to(file, tmp_path):
  config = {"env": {"name": f"{file}:Guess"}, "model": {"name": "decoder"}, "reward": ""}
  user_files.refuse_changed(config, tmp_path)
  user_files.record(config, tmp_path)
  user_files.record(config, tmp_path)
  user_files.refuse_changed(config, tmp_path)
  text = file.read_text()
  file.write_text(f"{text}\n\ndef get_config():\n  return dict(steps=7)\n")
  user_files.refuse_changed(config, tmp_path)   # its keys are held to config.json
  file.write_text(text.replace("THREE = 3", "THREE = 4"))
  with pytest.raises(ConfigError, match=r"task\.py has changed since the run in .* began.*delete .*own\.json"):
    user_files.refuse_changed(config, tmp_path)
  user_files.record(config, tmp_path)
  (tmp_path / user_files.RECORD).unlink()
  user_files.refuse_changed(config, tmp_path)
  user_files.record({"env": {"name": "general_points"}, "model": {"name": "decoder"}, "reward": ""}, tmp_path / "none")
  assert not (tmp_path / "none").exists()


def test_a_run_does_not_go_on_with_other_prompts(tmp_path):
  path = tmp_path / "prompts.jsonl"
  path.write_text('{"prompt": "a"}\n\n')
  config = {"env": {"name": "prompts", "path": str(path)}, "reward": ""}
  user_files.record(config, tmp_path)
  user_files.refuse_changed(config, tmp_path)
  path.write_text('{"prompt": "b"}\n')
  with pytest.raises(ConfigError, match=r"prompts\.jsonl has changed since the run"):
    user_files.refuse_changed(config, tmp_path)
  assert not user_files.digests({"env": {"name": "prompts", "path": "owner/name"}})   # of the hub


def test_a_run_does_not_go_on_with_other_tasks(tmp_path):
  folder = tmp_path / "tasks"
  (folder / "deep").mkdir(parents=True)
  for name in ("a.yaml", "deep/b.yml", "own.py", "rows.jsonl"):
    (folder / name).write_text("x = 1\n")
  config = {"evals": {"tasks": ("a",), "task_path": str(folder)}, "reward": ""}
  assert {path.rpartition("/")[2] for path in user_files.digests(config)} == {"a.yaml", "b.yml", "own.py"}
  user_files.record(config, tmp_path)
  (folder / "deep" / "b.yml").write_text("x = 2\n")
  with pytest.raises(ConfigError, match=r"b\.yml has changed since the run"):
    user_files.refuse_changed(config, tmp_path)
  assert not user_files.digests({"evals": {"tasks": ("a",), "task_path": ""}})
  assert not user_files.digests({"evals": {"tasks": (), "task_path": str(folder)}})


def test_a_reward_is_a_function_by_path(file):
  assert user_files.reward(f"{file}:reward")((), "", None) == 1.0
  for name, message in (("length", "path/to/file.py:function"), (f"{file}:THREE", "of type int"),
                     (f"{file}:Guess", "but should be a function")):
    with pytest.raises(ConfigError, match=message):
      user_files.reward(name)


def test_an_optimizer_is_a_function_by_path(tmp_path):
  file = tmp_path / "rules.py"
  file.write_text("def make(learning_rate): ...\nRATE = 3\n")
  assert user_files.optimizer(f"{file}:make").__name__ == "make"
  for name, message in ((f"{file}:RATE", "name is .* of type int, but should be a function"),
                        (f"{file}:mke", "has no mke: did you mean make"), (str(file), "say which name"),
                        (f"{tmp_path}/rule.py:make", "there is no file .*did you mean .*rules.py")):
    with pytest.raises(ConfigError, match=message):
      user_files.optimizer(name)
  config = {"optimizer": {"name": f"{file}:make"}}
  user_files.record(config, tmp_path)
  file.write_text("def make(learning_rate): return None\n")
  with pytest.raises(ConfigError, match=r"rules\.py has changed since the run"):
    user_files.refuse_changed(config, tmp_path)


def test_a_family_is_derived_from_the_decoder(file):
  class Decoder:
    pass
  with pytest.raises(ConfigError, match=r"task\.py, line 6, in Guess: .*derived from .*\.Decoder"):
    user_files.family(f"{file}:Guess", Decoder)
  parent = user_files.load(f"{file}:Guess", "x")
  assert user_files.family(f"{file}:Guesses", parent) is user_files.load(f"{file}:Guesses", "x")


def test_an_error_of_its_constructor_is_told_with_the_line(file):
  guess = user_files.environment(f"{file}:Guess")
  with pytest.raises(ConfigError, match=r"task\.py, line 17, in __post_init__: KeyError: 99"):
    user_files.instance(guess, lambda: guess(low=99))
