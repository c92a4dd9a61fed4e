"""Studies of stand-in configs: nothing here is trained."""

import pathlib
import sys

import pytest

from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.study import process_pool, runs
from sftrl_jax.programs.study.config import SCHEMA, StudyConfig

SCRIPT = '''
import json, os, pathlib, signal, sys, time

words = dict(word[2:].split("=", 1) for word in sys.argv[2:])
home = pathlib.Path(words["workdir"])
home.mkdir(parents=True, exist_ok=True)

def tell(phase, done):
  part = home / "progress.part"
  part.write_text(json.dumps({"phase": phase, "done": done, "text": f"step {done:.0%}", "rate": "3 it/s", "eta": 1}))
  part.replace(home / "progress.json")

def stop(number, frame):
  print("checkpoint written")
  sys.exit(75 if number == signal.SIGTERM else 130)

signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
if (home.parents[1] / f"fail-{home.name}").exists():
  sys.exit("error: config.ppo.gamma is out of range")
threads = int(words["config.mesh.cpu_threads"])
(home / "config.json").write_text(json.dumps({"verb": sys.argv[1], "mesh": {"cpu_threads": threads}}))
with open(home / "evals.jsonl", "a") as evals:
  for step in range(3):
    evals.write(json.dumps({"step": step, "variant": "id_seen", "temperature": 0.0}) + "\\n")
    evals.flush()
    tell("train", step / 3)
    while (home.parents[1] / "hold").exists():
      time.sleep(0.02)
(home / "checkpoints" / "3").mkdir(parents=True)
tell("complete", 1.0)
'''


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
  """Children become stand-ins: `hold` in the study's directory makes them wait, `fail-NAME` makes one fail."""
  script = tmp_path / "stand_in.py"
  script.write_text(SCRIPT)
  monkeypatch.setattr(process_pool, "COMMAND", (sys.executable, str(script)))


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
