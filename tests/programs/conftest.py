"""A stand-in for the children of a study: a script that writes a workdir as a run does, without training anything."""

import sys

import pytest

from sftrl_jax.programs import pool

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
tell("complete", 1.0)
'''


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
  """Children become stand-ins: `hold` in the study's directory makes them wait, `fail-NAME` makes one fail."""
  script = tmp_path / "stand_in.py"
  script.write_text(SCRIPT)
  monkeypatch.setattr(pool, "COMMAND", (sys.executable, str(script)))
