"""What is begun again, and what is not: the table of exit codes, and signals."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "restart.sh"
# Ends with the next code of a list; every life leaves a mark.
LIVES = 'echo >>lives; code=$(sed -n 1p codes); sed -i 1d codes; exit "${code:-0}"'


def lives_of(folder, codes, *flags):
  """(exit code of restart.sh, how often the command lived, what was said)."""
  (folder / "codes").write_text("".join(f"{code}\n" for code in codes))
  done = subprocess.run([SCRIPT, "--delay=0", *flags, "bash", "-c", LIVES], cwd=folder, capture_output=True, text=True,
                        timeout=30, check=False)
  return done.returncode, len((folder / "lives").read_text()), done.stderr


@pytest.mark.parametrize(("codes", "ends", "lives"), [
    ([0], 0, 1), ([1], 1, 1), ([2], 2, 1), ([130], 130, 1),   # nothing, or nothing else, would come of another life
    ([75, 0], 0, 2), ([134, 0], 0, 2), ([137, 0], 0, 2), ([3, 139, 75, 255, 0], 0, 5),
    ([137, 1], 1, 2), ([75, 2], 2, 2),
])
def test_codes_that_begin_again_and_codes_that_end(tmp_path, codes, ends, lives):
  assert lives_of(tmp_path, codes)[:2] == (ends, lives)


def test_a_command_that_keeps_dying_at_once_is_given_up(tmp_path):
  code, lives, said = lives_of(tmp_path, [134] * 9, "--most=3")
  assert (code, lives) == (134, 4)
  assert "for the 4. time in a row: given up" in said


def test_the_pause_doubles_up_to_the_longest(tmp_path):
  (tmp_path / "sleep").write_text("#!/bin/sh\necho $1 >>pauses\n")
  (tmp_path / "sleep").chmod(0o755)
  (tmp_path / "codes").write_text("134\n" * 5)
  environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
  subprocess.run([SCRIPT, "--delay=5", "--longest=30", "bash", "-c", LIVES], cwd=tmp_path, env=environment, timeout=30,
                 capture_output=True, check=True)
  assert (tmp_path / "pauses").read_text().split() == ["5", "10", "20", "30", "30"]


RUN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
pathlib.Path("begun").touch()
try:
  time.sleep(30)
except KeyboardInterrupt:
  sys.exit(130)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_is_handed_on_and_nothing_is_begun_again(tmp_path, number, code):
  child = subprocess.Popen([SCRIPT, "--delay=0", sys.executable, "-c", RUN], cwd=tmp_path, start_new_session=True)
  while not (tmp_path / "begun").exists():
    time.sleep(0.02)
  child.send_signal(number)
  assert child.wait(10) == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_pause_too(tmp_path, number, code):
  child = subprocess.Popen([SCRIPT, "--delay=30", "bash", "-c", "touch begun; exit 134"], cwd=tmp_path,
                           stderr=subprocess.PIPE, text=True)
  assert "begun again in 30 s" in child.stderr.readline()
  child.send_signal(number)
  assert child.wait(10) == code


@pytest.mark.parametrize(("words", "told"), [
    ([], "there is no command"), (["--delay=soon", "true"], "--delay is 'soon'"),
    (["--delai=1", "true"], "--delai is no flag of restart.sh. Flags: --delay"),
    (["--most", "--dry-run"], "--most needs a value"), (["-x", "true"], "flags begin with --")])
def test_wrong_words_are_refused(words, told):
  done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, timeout=10, check=False)
  assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1


def test_a_dry_run_prints_the_command_as_a_shell_takes_it():
  done = subprocess.run([SCRIPT, "--dry-run", "sftrl", "sft", "--workdir=a b"], capture_output=True, text=True,
                        timeout=10, check=True)
  assert done.stdout == "sftrl sft '--workdir=a b'\n"
