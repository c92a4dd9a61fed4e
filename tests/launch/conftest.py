"""Scripts of launch/ in a small checkout of their own, with a gcloud and an xpk on PATH that only write down what they
are asked."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
RECORDER = r"""#!/usr/bin/env bash
{ printf '%s\0' "${0##*/}" "$@"; printf '\n\0'; } >>"$RECORDED/calls"
case " $* " in
  *" describe "*)
    read -r state <"$RECORDED/states" || { echo "NOT_FOUND" >&2; exit 1; }
    sed -i 1d "$RECORDED/states"
    printf '%s\n' "$state" ;;
  *" scp "*)
    for word in "$@"; do case "$word" in */hf_token)
      { stat -c %a "$word"; cat "$word"; } >"$RECORDED/token" ;;
    esac; done ;;
esac
if [ -s "$RECORDED/fails" ] && [[ " $* " == *" $(cat "$RECORDED/fails") "* ]]; then exit 1; fi
"""
CONFIG = """def get_config(choice=""):
  return dict(start="meta-llama/Llama-3.2-1B" if choice == "hub" else "scratch", steps=1)
"""


@dataclasses.dataclass
class Done:
  """What a script printed, how it ended, and what gcloud and xpk were asked meanwhile."""
  code: int
  out: str
  err: str
  calls: list[list[str]]


@dataclasses.dataclass
class Checkout:
  """home: of the checkout. recorded: of what gcloud and xpk were asked and will answer."""
  home: pathlib.Path
  recorded: pathlib.Path

  def run(self, script, *words, stdin=subprocess.DEVNULL, **variables):
    """Runs launch/SCRIPT WORDS. Environment variables of the machine that matter are taken away first."""
    for name in ("calls", "token"):
      (self.recorded / name).unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(
        ("HF_", "SFTRL_", "CLOUDSDK_", "JAX_", "GIT_", "LOCAL_DEVICES"))}
    environment |= {"PATH": f"{self.recorded / 'bin'}:{environment['PATH']}", "RECORDED": str(self.recorded),
                    "HOME": str(self.recorded), "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run([self.home / "launch" / script, *words], env=environment, stdin=stdin, capture_output=True,
                          text=True, timeout=60, check=False)
    return Done(done.returncode, done.stdout, done.stderr, self.calls())

  def calls(self):
    path = self.recorded / "calls"
    written = path.read_text() if path.exists() else ""
    return [call.split("\0")[:-1] for call in written.split("\n\0") if call]

  def states(self, *states):
    """What gcloud says of the pod, one state an answer; then that there is none."""
    (self.recorded / "states").write_text("".join(f"{state}\n" for state in states))

  def fails(self, words):
    """gcloud fails where these words follow one another; "" nowhere."""
    (self.recorded / "fails").write_text(words)


@pytest.fixture(scope="package")
def made(tmp_path_factory):
  home = tmp_path_factory.mktemp("checkout")
  shutil.copytree(ROOT / "launch", home / "launch")
  for name in ("pyproject.toml", ".gitignore"):
    shutil.copy(ROOT / name, home / name)
  (home / "run.py").write_text(CONFIG)
  # A virtual environment is told by the place of its python, so a link would not do.
  (home / ".venv" / "bin").mkdir(parents=True)
  python = home / ".venv" / "bin" / "python"
  python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
  python.chmod(0o755)
  git = ("git", "-c", "user.name=A", "-c", "user.email=a@b.c", "-C", home)
  for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "All there is")):
    subprocess.run([*git, *words], check=True)
  return home


@pytest.fixture
def checkout(made, tmp_path):
  """The checkout, and a gcloud and an xpk that are new for each test."""
  (tmp_path / "bin").mkdir()
  for name in ("gcloud", "xpk"):
    (tmp_path / "bin" / name).write_text(RECORDER)
    (tmp_path / "bin" / name).chmod(0o755)
  shutil.rmtree(made / "runs", ignore_errors=True)
  each = Checkout(made, tmp_path)
  each.states()
  each.fails("")
  return each
