"""The page of keys: each with value, type, choices and meaning."""

import dataclasses
import os
import pathlib
import subprocess
import sys
from typing import Literal

import pytest

from sftrl_jax.programs.cli import config_help, experiments
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.experiment.kinds import KINDS
from sftrl_jax.programs.study import config as study_config

ROOT = pathlib.Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True)
class Objective:
  """What is minimized.

  gamma: discount inside a turn
  clip, floor: how far the ratio
    may go
  """

  gamma: float = 1.0
  clip: float = 0.2
  floor: float = 0.1
  kind: Literal["a", "b"] = "a"   # which of the two
  whiten: bool = dataclasses.field(default=True, metadata={"help": "advantages over the batch"})
  undescribed: int = 0


def task(section):
  return Objective


SCHEMA = {"seed": 0, "steps": int, "ppo": Objective, "env": task, "free": dict}


def line_of(page, flag):
  return next(line for line in page.splitlines() if line.strip().startswith(flag))


def test_every_key_has_a_line_with_value_type_and_meaning():
  config = resolve.resolve({"steps": 3, "env": {"name": "x"}, "free": {"b1": 0.9}}, [], SCHEMA)
  page = config_help.page(config, SCHEMA)
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
  assert config_help.meanings(Objective) == {
      "gamma": "discount inside a turn", "clip": "how far the ratio may go", "floor": "how far the ratio may go",
      "kind": "which of the two", "whiten": "advantages over the batch", "undescribed": ""}


@pytest.fixture(scope="module")
def resolved():
  """{verb: (a resolved config of it, its schema)} for every verb that takes --config."""
  by_verb = {}
  for entry in experiments.find(ROOT / "configs"):
    verb = entry.commands[0].split()[1]
    schema = study_config.SCHEMA if verb == "study" else KINDS[verb].schema
    config = resolve.load(str(entry.path))
    by_verb[verb] = (resolve.resolve(config, [], schema) if verb == "study" else
                   run_config.resolve_for(verb, config, [], lambda _: None)), schema
  return by_verb


def test_every_key_of_every_verb_has_a_meaning_and_every_section_a_heading(resolved):
  assert resolved.keys() == {"study", *KINDS}
  for verb, (config, schema) in resolved.items():
    rows = list(config_help.rows(config, schema))
    silent = [row.path for row in rows if not row.meaning]
    assert not silent, f"{verb}: say in the docstring of their class, or in config_help.MEANINGS, what {silent} mean."
    assert {row.section for row in rows} - {""} <= config_help.MEANINGS.keys()
    pages = config_help.page(config, schema)
    assert all(f"--config.{row.path}=" in pages for row in rows)


def test_a_method_of_rl_has_the_keys_of_its_own_section_each_with_a_meaning(resolved):
  config, schema = resolved["rl"]
  for name in config_help.choices("algorithm"):
    chosen = run_config.resolve_for("rl", config, [("algorithm", name)], lambda _: None)
    rows = [row for row in config_help.rows(chosen, schema) if row.section in config_help.choices("algorithm")]
    assert {row.section for row in rows} == {name} and all(row.meaning for row in rows)
    assert {f"{name}.epochs", f"{name}.minibatches"} <= {row.path for row in rows}


def test_names_that_a_key_takes_are_listed_and_taken(resolved):
  """What a type does not list: the names on the page are the ones that a run takes."""
  from sftrl_jax.programs.experiment.build import build_experiment
  config, schema = resolved["rl"]
  pages = config_help.page(config, schema)
  choices = {row.path: config_help.choices(row.path) for row in config_help.rows(config, schema)}
  closed = {path: names for path, names in choices.items() if names}
  assert closed.keys() >= {"env.name", "optimizer.name", "algorithm", "tokenizer.name"}
  for path, names in closed.items():
    assert all(name in pages for name in names)
    with pytest.raises(ConfigError) as error:
      build_experiment(run_config.resolve_for("rl", config, [(path, "nameless")], lambda _: None), "rl")
    named = [name for name in names if ".py" not in name]
    assert "nameless" in str(error.value) and all(name in str(error.value) for name in named), path
  assert "'none' | 'linear'" in pages and "'none' | 'full'" in pages


def test_help_needs_no_device_and_starts_nothing(tmp_path):
  """On a platform that this machine lacks: asking for a device would fail."""
  words = ["rl", "--config=configs/general_points/ppo.py", f"--workdir={tmp_path / 'run'}", "--help"]
  done = subprocess.run([sys.executable, "-m", "sftrl_jax", *words], capture_output=True, text=True, cwd=ROOT,
                        check=False, env={**os.environ, "JAX_PLATFORMS": "tpu"})
  assert done.returncode == 0, done.stderr
  assert "--config.ppo.clip=0.2" in done.stdout and not list(tmp_path.iterdir())
