"""A study: which runs it has, that it goes on where it was, and what it says when something is wrong."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import threading
import time

import pytest
from ml_collections import ConfigDict

from sftrl_jax.main import main
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.resolve import ConfigError
from sftrl_jax.programs.study import config as study_config, process_pool, run as study_run, runs as study_runs
from sftrl_jax.report import read_workdir


class Reports:
  """Stands for sftrl_jax.report.write and remembers what was asked of it."""

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
def files(tmp_path):
  """Config files of a base, sft and ppo under tmp/configs: {name: path}."""
  folder = tmp_path / "configs"
  folder.mkdir()
  for name, extra in (("base", ""), ("sft", ""), ("ppo", ", algorithm='ppo'")):
    (folder / f"{name}.py").write_text(f"def get_config():\n  return dict(seed=0{extra})\n")
  return {name: str(folder / f"{name}.py") for name in ("base", "sft", "ppo")}


@pytest.fixture
def reports(monkeypatch):
  stand_in = Reports()
  monkeypatch.setattr(study_run, "report", stand_in)
  monkeypatch.setattr(study_run.rehearsal, "refuse", lambda cases: None)
  return stand_in


def config_of(files, **changes):
  section = {"name": "Try", "claim": "It holds.", "bases": 2, "seeds": 1, "jobs": 2, "flops": 1e9,
             "base": files["base"], "methods": {"sft": files["sft"], "ppo": files["ppo"]}, **changes}
  return resolve.resolve(ConfigDict({"study": section}), [], study_config.SCHEMA)


def expanded(files, workdir=pathlib.Path("runs/x"), **changes):
  return study_runs.expand(resolve.build(study_config.StudyConfig, config_of(files, **changes).study, "config.study"), workdir)


def test_runs_are_the_bases_and_every_method_on_each(files):
  runs = {run.name: run for run in expanded(files, seeds=2)}
  assert {"base-0", "base-1"} < runs.keys()
  assert len(runs) == 2 + 2 * 2 * 2
  run = runs["base-1-ppo-1"]
  assert run.needs == "base-1"
  assert run.words[:3] == ("rl", f"--config={files['ppo']}", "--workdir=runs/x/runs/base-1-ppo-1")
  assert {"--config.flops=1000000000.0", "--config.seed=201", "--config.start=runs/x/runs/base-1"} <= set(run.words)
  assert runs["base-1-sft-1"].words[0] == "sft"
  assert "--config.seed=1" in runs["base-1"].words
  assert not any("flops" in word for word in runs["base-1"].words)


def test_no_two_runs_share_a_seed_and_methods_of_a_base_are_paired(files):
  runs = [run for run in expanded(files, bases=3, seeds=3) if run.needs]
  seeds = [next(word for word in run.words if word.startswith("--config.seed=")) for run in runs]
  assert len(set(seeds)) == 9
  assert all(seeds.count(seed) == 2 for seed in seeds)


def test_the_first_comparison_comes_first_and_the_other_bases_before_the_other_runs(files):
  names = [run.name for run in expanded(files, bases=3, seeds=2)]
  assert names[:5] == ["base-0", "base-0-ppo-0", "base-0-sft-0", "base-1", "base-2"]
  assert names[5:9] == ["base-1-ppo-0", "base-1-sft-0", "base-2-ppo-0", "base-2-sft-0"]


def test_shipped_bases_are_named_and_need_nothing(files):
  runs = expanded(files, base="")
  assert [run.name for run in runs][:2] == ["base-0-ppo-0", "base-0-sft-0"]
  assert "--config.start=base:general_points_1" in runs[-1].words
  assert not any(run.needs for run in runs)


def test_overrides_and_hands_reach_their_runs_only(files):
  overrides = {"ppo": {"optimizer": {"learning_rate": 3e-4}, "env.faces": (11, 12, 13)}, "base": {"steps": 7}}
  section = {"name": "Try", "claim": ".", "base": files["base"], "eval_episodes": 64, "overrides": overrides,
             "methods": {"sft": files["sft"], "ppo": files["ppo"]}}
  config = resolve.resolve({"study": section}, [], study_config.SCHEMA)
  base, ppo, sft = study_runs.expand(resolve.build(study_config.StudyConfig, config.study, "config.study"), pathlib.Path("x"))
  assert {"--config.optimizer.learning_rate=0.0003", "--config.env.faces=(11, 12, 13)"} <= set(ppo.words)
  assert {"--config.steps=7", "--config.seed=0"} <= set(base.words)
  assert "--config.evals.episodes=64" in sft.words
  assert not any("learning_rate" in word or "steps" in word for word in sft.words)


def test_a_run_that_has_begun_keeps_its_threads(files, tmp_path):
  home = tmp_path / "runs" / "base-0"
  home.mkdir(parents=True)
  (home / "config.json").write_text(json.dumps({"mesh": {"cpu_threads": 7}}))
  runs = expanded(files, workdir=tmp_path, jobs=1000)
  assert "--config.mesh.cpu_threads=7" in runs[0].words
  assert "--config.mesh.cpu_threads=1" in runs[1].words


def test_a_study_runs_reports_and_does_nothing_twice(files, tmp_path, stand_in, reports, capsys):
  workdir = tmp_path / "study"
  study_run.run(config_of(files), workdir, command="sftrl study --config=x")
  said = capsys.readouterr().out
  assert "First curve after" in said
  assert "a table" in said
  assert str(workdir / "report" / "report.html") in said
  assert reports.asked[0] == "curve"
  assert reports.asked[-1] == "study"
  recorded = json.loads((workdir / "study.json").read_text())
  assert recorded["bases"] == [0, 1]
  assert recorded["methods"] == {"sft": "SFT", "ppo": "PPO"}
  assert recorded["command"] == "sftrl study --config=x"
  logs = {path.name: path.read_text() for path in (workdir / "logs").iterdir()}
  assert len(logs) == 6
  study_run.run(config_of(files), workdir)
  assert logs == {path.name: path.read_text() for path in (workdir / "logs").iterdir()}


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(files, tmp_path, stand_in, reports, capsys):
  workdir = tmp_path / "study"
  workdir.mkdir()
  (workdir / "fail-base-1").touch()
  with pytest.raises(RuntimeError, match=r"3 of 6 runs failed: base-1, base-1-ppo-0, base-1-sft-0"):
    study_run.run(config_of(files), workdir)
  assert "gamma is out of range" in capsys.readouterr().out
  assert reports.asked[-1] == "study"
  (workdir / "fail-base-1").unlink()
  study_run.run(config_of(files), workdir)


def signal_when_begun(workdir, number):
  while not all((workdir / "runs" / f"base-{base}" / "progress.json").exists() for base in (0, 1)):
    time.sleep(0.02)
  os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_stops_all_and_the_same_call_goes_on(files, tmp_path, stand_in, reports, number, error):
  workdir = tmp_path / "study"
  workdir.mkdir()
  (workdir / "hold").touch()
  threading.Thread(target=signal_when_begun, args=(workdir, number)).start()
  with pytest.raises(error) as stopped:
    study_run.run(config_of(files), workdir)
  if error is SystemExit:
    assert stopped.value.code == 75
  assert "study" not in reports.asked
  (workdir / "hold").unlink()
  study_run.run(config_of(files), workdir)
  assert reports.asked[-1] == "study"


def test_another_study_in_the_same_directory_is_refused_but_for_jobs(files, tmp_path, stand_in, reports):
  workdir = tmp_path / "study"
  study_run.run(config_of(files), workdir)
  study_run.run(config_of(files, jobs=1), workdir)
  with pytest.raises(ConfigError, match=r"config\.study\.bases: 2 there, 3 now"):
    study_run.run(config_of(files, bases=3), workdir)
  with pytest.raises(ConfigError, match="workdir of one sft run"):
    study_run.run(config_of(files), workdir / "runs" / "base-0")


def commands(text):
  return [line for line in text.splitlines() if not line.startswith("#")]


def test_listed_commands_are_those_of_the_children_bases_first(files, tmp_path, stand_in, reports, capsys):
  overrides = {"ppo": {"env": {"faces": (11, 12, 13)}, "reward": "it's $HOME"}}
  workdir, config = tmp_path / "a study", config_of(files, overrides=overrides)
  study_run.listing(config, workdir, command="sftrl study --list")
  listed = commands(capsys.readouterr().out)
  assert not (workdir / "runs").exists() and not (workdir / "logs").exists()
  assert json.loads((workdir / "study.json").read_text())["command"] == "sftrl study --list"
  study_run.run(config, workdir)   # the same study goes on in the same directory
  began = [path.read_text().splitlines()[0] for path in (workdir / "logs").iterdir()]
  assert sorted(f"$ {' '.join(shlex.split(line))}" for line in listed) == sorted(began)
  assert [("runs/base-" in line.partition("--config.start=")[2]) for line in listed] == [False] * 2 + [True] * 4
  study_run.listing(config, workdir)
  assert commands(capsys.readouterr().out)[-6:] == listed


def test_a_study_over_machines_may_be_in_a_bucket_and_one_that_trains_here_is_here(files, tmp_path, bucket, capsys):
  (tmp_path / "it.py").write_text(f"def get_config():\n  return {{'study': {config_of(files).study.to_dict()!r}}}\n")
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


def test_a_study_whose_runs_were_started_one_by_one_is_reported_and_complete(files, tmp_path, stand_in, capsys):
  workdir, section = tmp_path / "study", config_of(files).study.to_dict()
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
  assert all(process_pool.is_complete(run) for run in expanded(files, workdir=workdir))


@pytest.mark.parametrize(("changes", "told"), [
    ({"bases": 0}, r"config\.study\.bases is 0"),
    ({"jobs": -1}, r"config\.study\.jobs is -1"),
    ({"labels": {"spo": "X"}}, r"labels has 'spo'.*did you mean ppo"),
    ({"reference": "ppp"}, r"reference has 'ppp'.*did you mean ppo"),
    ({"overrides": {"pp": {"a": 1}}}, r"overrides has 'pp'.*did you mean ppo"),
    ({"methods": {"base": "x.py"}}, "methods has 'base'"),
    ({"methods": {"sft": "nowhere.py"}}, "there is no file nowhere.py"),
    ({"methods": {"sft": ""}}, r"methods\.sft is ''"), ({"overrides": {"ppo": 3}}, r"overrides\.ppo is 3"),
    ({"at": (0.5, 2.0)}, r"config\.study\.at is \(0\.5, 2\.0\)"),
])
def test_a_wrong_study_is_told_and_nothing_is_made(files, tmp_path, reports, changes, told):
  with pytest.raises(ConfigError, match=told):
    study_run.run(config_of(files, **changes), tmp_path / "study")
  assert not (tmp_path / "study").exists()


def test_comparable_means_two_evaluations_of_every_method_on_one_base(files, tmp_path):
  section = resolve.build(study_config.StudyConfig, config_of(files).study, "config.study")

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
