"""The campaign of faults (tests/faults.sh) can be run, is honest, and its table and its functions agree."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).parent
CODES = {0, 1, 2, 7, 70, 71, 75, 130, 134}   # 7: of a user's own command; 134: JAX ends a process


def output(*words, code=0):
  """The lines that a campaign prints; its exit code is checked."""
  env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": f"{TESTS.parent}:{TESTS / 'faults'}"}
  done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
  assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
  return done.stdout.splitlines()


@pytest.fixture
def campaign(monkeypatch):
  monkeypatch.syspath_prepend(str(TESTS / "faults"))
  import campaign
  yield campaign
  for name in ("campaign", "inputs", *campaign.GROUPS.values()):
    sys.modules.pop(name, None)


def test_the_table_and_the_functions_agree(campaign):
  table, functions = campaign.rows(), campaign.functions()
  assert sorted(table) == sorted(functions) and len(table) >= 100
  assert {name[0] for name in table} == set(campaign.GROUPS)
  for row in table.values():
    assert row.wrong and row.command and row.code in CODES and (row.parts or row.also), row
  assert [row for row in table.values() if row.code == 0] and [row for row in table.values() if row.flags]
  for name, function in functions.items():
    assert function.__module__ == campaign.GROUPS[name[0]], f"{name} is in {function.__module__}.py"


def test_a_sample_of_the_campaign_holds():
  lines = output("bash", str(TESTS / "faults.sh"), "C1", "C13", "D2", "V21", "H5", "H9")
  assert {line.split()[0] for line in lines if re.search("  holds  ", line)} == {"C1", "C13", "D2", "V21", "H5", "H9"}
  assert lines[-1] == "6 of 6 hold." and lines[-2] == "0 tracebacks, 0 hangs, 0 wrong exit codes."


def test_what_does_not_hold_is_named():
  """Another exit code, another message, a file that is left, and a process that is."""
  tampered = """
import dataclasses, os, sys, campaign, inputs
rows, campaign.warm_up = campaign.rows(), lambda scratch: None
change = lambda name, **fields: rows.update({name: dataclasses.replace(rows[name], **fields)})
change("C1", code=0), change("C4", parts=("no such words",)), change("C5", also=campaign.CLOSED)
def writes(case):
  (case.home / "words.py").write_text("def get_config():\\n  open('left', 'w').close(); raise ValueError\\n")
  return inputs.sft(config="words.py")
def stays(case):
  return campaign.Command(("bash", "-c", "sleep 60 >/dev/null 2>&1 & exit 1"), script=True)
setups = {**campaign.functions(), "C5": writes, "C6": stays}
change("C5", parts=()), change("C6", parts=(), command="", also="")
campaign.rows, campaign.functions = lambda: rows, lambda: setups
sys.exit(campaign.main(["C1", "C3", "C4", "C5", "C6"]))
"""
  text = "\n".join(output(sys.executable, "-c", tampered, code=1))
  assert text.endswith("1 of 5 hold.") and "exit code 1 instead of 0" in text and "no 'no such words'" in text
  assert "written: ['left']" in text and "left behind: ['sleep 60 ']" in text
