"""A study runs, reports, stops and resumes."""

import json
import os
import shlex
import signal
import subprocess
import threading
import time

import pytest

from sftrl_jax.main import main
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.study import process_pool, run as study_run
from sftrl_jax.report import read_workdir


class Reports:
  """Stands for sftrl_jax.report.write and records its calls."""

  def __init__(self):
    self.asked = []

  def draw_curve(self, directory, out):
    self.asked.append("curve")
    return out

  def write_study(self, directory):
    self.asked.append("study")
    return directory / "report" / "report.html"

  def summary(self, directory):
    return "a table"


@pytest.fixture
def reports(monkeypatch):
  stand_in = Reports()
  monkeypatch.setattr(study_run, "write", stand_in)
  monkeypatch.setattr(study_run.dry_run, "refuse", lambda cases, claimed: None)
  return stand_in


def test_a_study_runs_reports_and_does_nothing_twice(config_of, tmp_path, stand_in, reports, capsys):
  workdir = tmp_path / "study"
  study_run.run(config_of(), workdir, command="sftrl study --config=x")
  printed = capsys.readouterr().out
  assert "First curve after" in printed
  assert "a table" in printed
  assert str(workdir / "report" / "report.html") in printed
  assert reports.asked[0] == "curve"
  assert reports.asked[-1] == "study"
  recorded = json.loads((workdir / "study.json").read_text())
  assert recorded["bases"] == [0, 1]
  assert recorded["methods"] == {"sft": "SFT", "ppo": "PPO"}
  assert recorded["command"] == "sftrl study --config=x"
  logs = {path.name: path.read_text() for path in (workdir / "logs").iterdir()}
  assert len(logs) == 6
  study_run.run(config_of(), workdir)
  assert logs == {path.name: path.read_text() for path in (workdir / "logs").iterdir()}


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(config_of, tmp_path, stand_in, reports, capsys):
  workdir = tmp_path / "study"
  workdir.mkdir()
  (workdir / "fail-base-1").touch()
  with pytest.raises(RuntimeError, match=r"3 of 6 runs failed: base-1, base-1-ppo-0, base-1-sft-0"):
    study_run.run(config_of(), workdir)
  assert "gamma is out of range" in capsys.readouterr().out
  assert reports.asked[-1] == "study"
  (workdir / "fail-base-1").unlink()
  study_run.run(config_of(), workdir)


def test_a_study_in_pieces_is_the_study(config_of, tmp_path, stand_in, reports, capsys):
  workdir = tmp_path / "study"
  done = lambda: sorted(path.stem for path in (workdir / "logs").iterdir())
  study_run.run(config_of(), workdir, only=("ppo",))
  assert done() == ["base-0", "base-0-ppo-0", "base-1", "base-1-ppo-0"]
  printed = capsys.readouterr().out
  assert "Report of the runs so far" in printed and "Not complete: 2." in printed
  assert json.loads((workdir / "study.json").read_text())["methods"] == {"sft": "SFT", "ppo": "PPO"}
  logs = {path.name: path.read_text() for path in (workdir / "logs").iterdir()}
  study_run.run(config_of(), workdir, only=("sft",))
  assert len(done()) == 6 and "Study complete" in capsys.readouterr().out
  assert logs.items() <= {path.name: path.read_text() for path in (workdir / "logs").iterdir()}.items()
  with pytest.raises(ConfigError, match="--only names 'dpo'"):
    study_run.run(config_of(), tmp_path / "another", only=("dpo",))
  assert not (tmp_path / "another").exists()


def signal_when_begun(workdir, number):
  while not all((workdir / "runs" / f"base-{base}" / "progress.json").exists() for base in (0, 1)):
    time.sleep(0.02)
  os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_stops_all_and_the_same_call_goes_on(config_of, tmp_path, stand_in, reports, number, error):
  workdir = tmp_path / "study"
  workdir.mkdir()
  (workdir / "hold").touch()
  threading.Thread(target=signal_when_begun, args=(workdir, number)).start()
  with pytest.raises(error) as stopped:
    study_run.run(config_of(), workdir)
  if error is SystemExit:
    assert stopped.value.code == 75
  assert "study" not in reports.asked
  (workdir / "hold").unlink()
  study_run.run(config_of(), workdir)
  assert reports.asked[-1] == "study"


def test_another_study_in_the_same_directory_is_refused_but_for_jobs(config_of, tmp_path, stand_in, reports):
  workdir = tmp_path / "study"
  study_run.run(config_of(), workdir)
  study_run.run(config_of(jobs=1), workdir)
  with pytest.raises(ConfigError, match=r"config\.study\.bases: 2 there, 3 now"):
    study_run.run(config_of(bases=3), workdir)
  with pytest.raises(ConfigError, match="workdir of one sft run"):
    study_run.run(config_of(), workdir / "runs" / "base-0")


def test_a_study_that_an_older_version_began_goes_on(config_of, tmp_path, stand_in, reports):
  workdir = tmp_path / "study"
  study_run.run(config_of(), workdir)
  config = json.loads((workdir / "config.json").read_text())
  for key in ("measure", "claims", "notes", "bases_of"):
    del config["study"][key]
  (workdir / "config.json").write_text(json.dumps(config))
  study_run.run(config_of(), workdir)
  with pytest.raises(ConfigError, match=r"config\.study\.measure: 'success' there, 'per_step' now"):
    (workdir / "config.json").write_text(json.dumps(config))
    study_run.run(config_of(measure="per_step"), workdir)


def test_claims_cannot_be_changed_once_the_runs_have_begun(config_of, tmp_path, stand_in, reports):
  workdir, claims = tmp_path / "study", ({"method": "ppo", "least": 0.1},)
  config = config_of(claims=claims, at={"ppo": (0.5,)})
  study_run.run(config, workdir)
  assert json.loads((workdir / "study.json").read_text())["claims"] == list(claims)
  study_run.run(config_of(claims=claims, at={"ppo": (0.5,)}), workdir)
  with pytest.raises(ConfigError, match=r"config\.study\.claims: .*0\.1.* there, .*0\.05.* now"):
    study_run.run(config_of(claims=({"method": "ppo", "least": 0.05},), at={"ppo": (0.5,)}), workdir)


def commands(text):
  return [line for line in text.splitlines() if not line.startswith("#")]


def test_listed_commands_are_those_of_the_children_bases_first(config_of, tmp_path, stand_in, reports, capsys):
  overrides = {"ppo": {"env": {"faces": (11, 12, 13)}, "reward": "it's $HOME"}}
  workdir, config = tmp_path / "a study", config_of(overrides=overrides)
  study_run.list_commands(config, workdir, command="sftrl study --list")
  listed = commands(capsys.readouterr().out)
  assert not (workdir / "runs").exists() and not (workdir / "logs").exists()
  assert json.loads((workdir / "study.json").read_text())["command"] == "sftrl study --list"
  study_run.run(config, workdir)   # the same study goes on in the same directory
  began = [path.read_text().splitlines()[0] for path in (workdir / "logs").iterdir()]
  assert sorted(f"$ {' '.join(shlex.split(line))}" for line in listed) == sorted(began)
  assert [("runs/base-" in line.partition("--config.start=")[2]) for line in listed] == [False] * 2 + [True] * 4
  study_run.list_commands(config, workdir)
  assert commands(capsys.readouterr().out)[-6:] == listed
  study_run.list_commands(config, workdir, only=("sft",))
  assert sorted(commands(capsys.readouterr().out)) == sorted(line for line in listed if "ppo" not in line)


def test_a_listed_study_may_be_in_a_bucket_and_one_that_trains_here_is_here(config_of, tmp_path, bucket, capsys):
  (tmp_path / "it.py").write_text(f"def get_config():\n  return {{'study': {config_of().study.to_dict()!r}}}\n")
  config, home = f"--config={tmp_path / 'it.py'}", "gs://bucket/a study"
  assert main(["study", config, f"--workdir={home}", "--list"]) == 0
  assert shlex.split(commands(capsys.readouterr().out)[0])[3] == f"--workdir={home}/runs/base-0"
  assert read_workdir.read_study(home).missing == tuple(f"base-{b}-{name}-0" for b in (0, 1) for name in ("ppo", "sft"))
  assert main(["study", config, f"--workdir={home}"]) == 1
  assert "on this machine; `--list` prints the commands" in capsys.readouterr().err


SFTRL = """
import json, pathlib, runpy, sys
home = pathlib.Path(next(word for word in sys.argv if word.startswith("--workdir=")).partition("=")[2])
runpy.run_path({script!r}, run_name="__main__")
lines = [json.loads(line) for line in (home / "evals.jsonl").read_text().splitlines()]
(home / "evals.jsonl").write_text("".join(json.dumps(dict(
    line, variant=variant, seed=0, attempts=1, episodes=4, successes=2, success=0.5, ci95=[0.1, 0.9], flops=1.0,
    outcomes="0110")) + "\\n" for line in lines for variant in ("id_seen", "rule_ood")))
"""


def test_a_study_whose_runs_were_started_one_by_one_is_complete(config_of, expand, tmp_path, stand_in, capsys):
  workdir, section = tmp_path / "study", config_of().study.to_dict()
  (tmp_path / "it.py").write_text(f"def get_config():\n  return {{'study': {section!r}}}\n")
  assert main(["study", f"--config={tmp_path / 'it.py'}", f"--workdir={workdir}", "--list"]) == 0
  (tmp_path / "sftrl.py").write_text(SFTRL.format(script=process_pool.COMMAND[1]))
  (tmp_path / "sftrl").write_text(f'#!/bin/sh\nexec {process_pool.COMMAND[0]} {tmp_path / "sftrl.py"} "$@"\n')
  (tmp_path / "sftrl").chmod(0o755)
  subprocess.run(["sh", "-e"], input=capsys.readouterr().out.replace("# The report", "exit  # The report"), text=True,
                 env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True, timeout=60)
  assert main(["report", str(workdir)]) == 0
  page = (workdir / "report" / "report.md").read_text()
  assert page.count("| complete |") == 6 and "the machines of its runs, started one by one" in page
  assert all(process_pool.is_complete(run) for run in expand(workdir=workdir))


def test_comparable_means_two_evaluations_of_every_method_on_one_base(section_of, tmp_path):
  section = section_of()

  def evaluate(name, *lines):
    home = tmp_path / "runs" / name
    home.mkdir(parents=True, exist_ok=True)
    (home / "evals.jsonl").write_text("".join(lines))
  evaluate("base-0-sft-0", '{"step": 0}\n', '{"step": 5}\n')
  evaluate("base-1-ppo-0", '{"step": 0}\n', '{"step": 5}\n')
  assert not study_run.is_comparable(section, tmp_path)
  evaluate("base-0-ppo-0", '{"step": 0}\n', '{"step": 0}\n', '{"st')
  assert not study_run.is_comparable(section, tmp_path)
  evaluate("base-0-ppo-0", '{"step": 0}\n', '{"step": 3}\n')
  assert study_run.is_comparable(section, tmp_path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"bases": 0}, r"config\.study\.bases is 0"), ({"methods": {"sft": "nowhere.py"}}, "there is no file nowhere.py")])
def test_a_wrong_study_writes_nothing(config_of, tmp_path, reports, changes, message):
  with pytest.raises(ConfigError, match=message):
    study_run.run(config_of(**changes), tmp_path / "study")
  assert not (tmp_path / "study").exists()
