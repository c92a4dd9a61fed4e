"""trackio on this machine: one run over restarts, each step in its database once."""

import json
import sqlite3
import subprocess
import sys

import pytest

pytest.importorskip("trackio")

# trackio reads its directory when it is imported, so every process of the run is one here too.
PROCESS = """
import pathlib, sys
from sftrl_jax.training.writers.trackio_writer import TrackioWriter
workdir, start, stop = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
writer = TrackioWriter(workdir, start)
for step in range(start + 1, stop):
  writer.scalars(step, {"loss": float(step), "bad": float("nan")})
writer.close_part()
writer.close()
"""


def test_a_resumed_run_continues_the_same_trackio_run(offline, tmp_path):
  workdir = tmp_path / "run"
  workdir.mkdir()
  (workdir / "config.json").write_text('{"seed": 3}')
  for start, stop in ((0, 4), (1, 6)):
    done = subprocess.run([sys.executable, "-c", PROCESS, str(workdir), str(start), str(stop)], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""   # what a person reads of the run comes from the run
  (database,) = (tmp_path / "trackio").glob("*.db")
  with sqlite3.connect(database) as connection:
    rows = connection.execute("select run_name, step, metrics from metrics order by id").fetchall()
  assert len({run for run, _, _ in rows}) == 1 and rows[0][0].startswith("run-")
  assert [step for _, step, _ in rows] == [1, 2, 3, 4, 5]
  assert [json.loads(metrics)["loss"] for _, _, metrics in rows] == [1.0, 2.0, 3.0, 4.0, 5.0]
