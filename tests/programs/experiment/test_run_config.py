"""From a file to the config of a run: which verb it is for, and that JAX waits until its threads are known."""

import json
import os
import subprocess
import sys

import pytest

from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.experiment.run_config import verb_of


@pytest.mark.parametrize("spec, overrides, verb", [
    ("configs/general_points/sft.py", (), "sft"), ("configs/general_points/ppo.py", (), "rl"),
    ("configs/general_points/sft.py", (("algorithm", "ppo"),), "rl"), ("configs/sft/chat.py", (), "sft"),
    ("configs/study/general_points_cpu.py:smoke", (), "study")])
def test_a_config_is_for_the_verb_whose_key_it_has(spec, overrides, verb):
  assert verb_of(resolve.load(spec), overrides) == verb


def test_the_environment_is_ready_when_jax_is_imported():
  code = """
import json, os, sys
from sftrl_jax.programs.experiment import run_config
assert "jax" not in sys.modules
config, schema = run_config.resolve_run("configs/general_points/ppo.py:smoke", (("mesh.cpu_threads", "1"),))
print(json.dumps([os.environ["NPROC"], "jax" in sys.modules, config.mesh.cpu_threads, "algorithm" in schema]))
"""
  environment = {name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
  done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
  assert json.loads(done.stdout.splitlines()[-1]) == ["1", True, 1, True], done.stderr
