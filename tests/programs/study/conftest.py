"""Studies of stand-in configs: nothing here is trained."""

import pathlib

import pytest

from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.study import runs
from sftrl_jax.programs.study.config import SCHEMA, StudyConfig


@pytest.fixture
def files(tmp_path):
  """Config files of a base, sft and ppo under tmp/configs: {name: path}."""
  folder = tmp_path / "configs"
  folder.mkdir()
  for name, extra in (("base", ""), ("sft", ""), ("ppo", ", algorithm='ppo'")):
    (folder / f"{name}.py").write_text(f"def get_config():\n  return dict(seed=0{extra})\n")
  return {name: str(folder / f"{name}.py") for name in ("base", "sft", "ppo")}


@pytest.fixture
def config_of(files):
  """config_of(**changes) -> the resolved config of a study of sft and ppo on two bases."""
  def make(**changes):
    section = {"name": "Try", "claim": "It holds.", "bases": 2, "seeds": 1, "jobs": 2, "flops": 1e9,
               "base": files["base"], "methods": {"sft": files["sft"], "ppo": files["ppo"]}, **changes}
    return resolve.resolve({"study": section}, [], SCHEMA)
  return make


@pytest.fixture
def section_of(config_of):
  """section_of(**changes) -> the same study as a StudyConfig."""
  return lambda **changes: resolve.build(StudyConfig, config_of(**changes).study, "config.study")


@pytest.fixture
def expand(section_of):
  """expand(workdir, **changes) -> the runs of the same study."""
  return lambda workdir=pathlib.Path("runs/x"), **changes: runs.expand(section_of(**changes), workdir)
