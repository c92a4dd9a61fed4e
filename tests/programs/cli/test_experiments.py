"""The list of experiments: read from docstrings, past broken files."""

import pathlib

import pytest

from sftrl_jax.main import main
from sftrl_jax.programs.cli import experiments
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.study import config, runs

ROOT = pathlib.Path(__file__).parents[3]
OURS = experiments.find(ROOT / "configs")

GOOD = '''r"""Nine is more than seven: a claim.

  sftrl study --config=configs/nine.py --workdir=runs/nine        (all of it)
  sftrl study --config=configs/nine.py:quick --workdir=runs/q

Hardware: one TPU v5e-4. Minutes: 12 (quick: 3).
Result: nine is
more. Seven is not.

And more to say.
"""

def get_config(choice=""):
  return {}
'''


@pytest.fixture
def folder(tmp_path):
  """A folder with one of each: a config, one without a docstring, broken ones, and files that are none."""
  files = {
      "nine.py": GOOD, "silent.py": "def get_config():\n  return {}\n", "torn.py": "def get_config(:\n",
      "raising.py": '"""Claims much."""\ndef get_config():\n  return 1 / 0\n', "bytes.py": "x = 1\0",
      "imported.py": "from configs.silent import get_config\n", "task.py": "def shared():\n  return {}\n",
      "__init__.py": "", ".hidden/secret.py": GOOD, "deep/er/ten.py": GOOD}
  for name, text in files.items():
    path = tmp_path / "configs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return tmp_path / "configs"


def test_a_docstring_gives_claim_commands_cost_and_result(folder):
  entries = {str(entry.path.relative_to(folder)): entry for entry in experiments.find(folder)}
  assert list(entries) == ["bytes.py", "deep/er/ten.py", "imported.py", "nine.py", "raising.py", "silent.py", "torn.py"]
  nine = entries["nine.py"]
  assert (nine.claim, nine.hardware, nine.minutes) == ("Nine is more than seven: a claim.", "one TPU v5e-4",
                                                       "12 (quick: 3)")
  assert nine.result == "nine is more. Seven is not." and nine.choices == ("quick", "smoke") and not nine.error
  assert nine.commands == ("sftrl study --config=configs/nine.py --workdir=runs/nine",
                           "sftrl study --config=configs/nine.py:quick --workdir=runs/q")
  assert entries["silent.py"] == experiments.ConfigEntry(folder / "silent.py") == experiments.read(folder / "silent.py")
  assert "line 3: ZeroDivisionError" in entries["raising.py"].error and entries["raising.py"].claim == "Claims much."
  assert "SyntaxError" in entries["torn.py"].error and entries["bytes.py"].error


def test_the_verb_prints_the_list_and_goes_on_past_broken_files(folder, capsys):
  assert main(["configs", str(folder)]) == 0
  output = capsys.readouterr().out
  for words in (f"{folder / 'nine.py'}  (choices: quick, smoke)", "  Nine is more", "one TPU v5e-4; minutes: 12",
                "BROKEN: ", "no docstring", "7 configs"):
    assert words in output, words
  assert "secret" not in output and "task.py" not in output


def test_a_folder_without_configs_and_no_folder(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(["configs"]) == 1
  assert "no folder configs: run `sftrl configs` where" in capsys.readouterr().err
  (tmp_path / "configs").mkdir()
  assert main(["configs"]) == 0
  assert "No file under configs" in capsys.readouterr().out


def test_every_config_of_ours_says_claim_command_hardware_minutes_and_result():
  assert len(OURS) >= 4
  for entry in OURS:
    parts = (entry.claim, entry.commands, entry.hardware, entry.minutes, entry.result)
    assert all(parts) and not entry.error, f"{entry.path}: see the grammar in cli/experiments.py; it has {parts}."
    assert len(entry.claim) <= 120 and entry.claim[-1] in ".?"


def test_every_command_of_ours_names_its_own_file_and_resolves(monkeypatch):
  monkeypatch.chdir(ROOT)
  for entry in OURS:
    for command in entry.commands:
      verb, spec = command.split()[1], experiments.config_of(command)
      assert ROOT / spec.partition(":")[0] == entry.path and "--workdir=" in command
      for each in (spec, f"{spec}:smoke"):
        if verb == "study":
          section = resolve.resolve(resolve.load(each), [], config.SCHEMA).study
          assert runs.expand(resolve.build(config.StudyConfig, section, "study"), pathlib.Path("runs/x"))
        else:
          run_config.resolve_for(verb, resolve.load(each), [], lambda _: None)


def test_a_wrong_folder_is_told():
  with pytest.raises(ConfigError, match="no folder nowhere"):
    experiments.find(pathlib.Path("nowhere"))
