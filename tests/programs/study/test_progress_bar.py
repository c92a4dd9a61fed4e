"""The display of a study's progress."""

import io
import json

import pytest

from sftrl_jax.programs.study.process_pool import ChildRun
from sftrl_jax.programs.study.progress_bar import clock, describe, progress_display


def run_at(tmp_path, name, **progress):
  home = tmp_path / name
  home.mkdir()
  if progress:
    (home / "progress.json").write_text(json.dumps(progress))
  return ChildRun(name, (), home, tmp_path / f"{name}.txt")


def test_without_a_terminal_there_is_a_line_at_a_time(tmp_path):
  runs = [run_at(tmp_path, "base-0", phase="complete", done=1.0),
          run_at(tmp_path, "base-1", phase="train", done=0.5, text="step 5/10", rate="2 it/s"),
          run_at(tmp_path, "base-2"), run_at(tmp_path, "base-3", phase="train", done="odd")]
  stream = io.StringIO()
  with progress_display(runs, every=1000.0, stream=stream) as (show, say):
    show(tuple(runs[1:3]))
    show(tuple(runs[1:3]))
    say("news")
  line, news = stream.getvalue().splitlines()
  assert line.startswith(" 38%  1.5/4 runs")
  assert line.endswith("base-1 (step 5/10, 2 it/s); base-2 (starting)")
  assert news == "news"


@pytest.mark.parametrize("done, known", [(0.001, False), (0.5, True)])
def test_an_end_is_guessed_once_a_hundredth_is_done(tmp_path, monkeypatch, done, known):
  """Before, runs compile, and the guess would be days."""
  clock = iter(range(0, 1000, 30))
  monkeypatch.setattr("sftrl_jax.programs.study.progress_bar.time.monotonic", lambda: next(clock))
  run, stream = run_at(tmp_path, "a"), io.StringIO()
  with progress_display([run], every=1.0, stream=stream) as (show, _):
    (tmp_path / "a" / "progress.json").write_text(json.dumps(dict(phase="train", done=done)))
    show((run,))
  assert ("left" in stream.getvalue()) == known and ("so far, starting" in stream.getvalue()) != known


def test_a_run_without_progress_is_starting(tmp_path):
  assert describe(run_at(tmp_path, "a")) == "a (starting)"


def test_clocks():
  assert [clock(seconds) for seconds in (0, 65, 3725)] == ["0:00", "1:05", "1:02:05"]
