"""Steps that are asked for are traced, neighbours into one trace, with their spans.

In a process of its own: a trace cannot begin in one that has opened the TPU compiler, as other tests do.
"""

import os
import pathlib
import subprocess
import sys

SCRIPT = """
import pathlib, sys
import jax.numpy as jnp
from sftrl_jax.training.profile import Profile, span

def step(profile, number):
  with profile.step(number), span("a span by this name"):
    jnp.ones(3).sum().block_until_ready()

home, told = pathlib.Path(sys.argv[1]), []
traces = lambda folder: sorted(folder.rglob("*.xplane.pb"))
profile, seen = Profile(home / "run", (2, 3, 9), told.append), []
for number in range(1, 6):
  step(profile, number)
  seen.append(len(traces(home / "run")))
assert seen == [0, 0, 1, 1, 1] and len(told) == 1, (seen, told)
assert b"a span by this name" in traces(home / "run")[0].read_bytes()

profile = Profile(home / "ended", (1, 2), told.append)   # a run that ends inside keeps its trace
step(profile, 1)
profile.close()
profile.close()
assert len(traces(home / "ended")) == 1
"""


def test_only_the_steps_that_are_asked_for_are_traced(tmp_path):
  done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False,
                        cwd=pathlib.Path(__file__).parents[2], env={**os.environ, "JAX_PLATFORMS": "cpu"})
  assert done.returncode == 0, done.stdout + done.stderr
