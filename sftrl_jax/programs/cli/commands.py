"""What each verb does with its words: reads the config, prepares the process for JAX, and calls a program.

Nothing heavy is imported before the words are known to be right; main.py says which words a verb takes.
"""

import json
import os
from pathlib import Path

from sftrl_jax import jsonl, paths
from sftrl_jax.programs.config.errors import ConfigError, as_local_path, as_path, refuse_file
from sftrl_jax.programs.runtime.process import cpu_threads, joined_processes, prepare_environment


def optimizers_page(command) -> str:
  from sftrl_jax.programs.config import resolve
  resolve.load(command.flags["--config"])
  os.environ["JAX_PLATFORMS"] = "cpu"   # only shapes are looked at
  from sftrl_jax.programs.cli import optimizer_help
  return optimizer_help.page()


def configured(command):
  """(resolved config, schema) of a verb that takes --config; the process is prepared for JAX on the way."""
  from sftrl_jax.programs.config import resolve
  from sftrl_jax.programs.experiment.run_config import resolve_run, verb_of
  spec, verb = command.flags["--config"], command.verb
  if verb in ("check", "bench", "data", "plan"):
    verb = verb_of(resolve.load(spec), command.overrides)
  if verb != "study":
    return resolve_run(spec, command.overrides, verb)
  from sftrl_jax.programs.study.config import SCHEMA
  return resolve.resolve(resolve.load(spec), command.overrides, SCHEMA), SCHEMA


def _study(command):
  from sftrl_jax.programs.study import run
  config, _ = configured(command)
  workdir = as_path(command.flags["--workdir"], "--workdir")
  if "--list" in command.switches:
    run.listing(config, workdir, command.text)
    return
  if not paths.is_here(workdir):
    raise ConfigError(f"--workdir={workdir}: a study begins its runs and writes on this machine; `--list` prints the "
                      "commands of runs that write into a bucket.")
  run.run(config, workdir, command.text)


def _training_config(command):
  """The config of a run, its start pinned to a step where that is to be the best one."""
  from sftrl_jax.programs.start import checkpoint_ref
  config, _ = configured(command)
  if checkpoint_ref.BEST in config.get("start", ""):
    with config.unlocked():
      config.start = checkpoint_ref.resolve_best(config.start)
  return config


def _train(command):
  config = _training_config(command)
  from sftrl_jax.programs.trainers import TRAINERS
  workdir = as_path(command.flags["--workdir"], "--workdir")
  with joined_processes(command) as first:
    TRAINERS[command.verb](config, workdir)
    if first:
      _report_run(config, workdir)


def _check(command):
  from sftrl_jax.programs.check import run as check_run
  from sftrl_jax.programs.config import smoke
  if smoke.split(command.flags["--config"])[2]:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
  cases = check_run.cases(command.flags["--config"], command.overrides)
  prepare_environment(check_run.threads(cases))
  scratch = as_path(command.flags["--workdir"], "--workdir") if "--workdir" in command.flags else None
  with joined_processes(command):
    check_run.run(cases, command.flags.get("--plan", ""), command.flags.get("--within", ""), scratch)


def _data(command):
  from sftrl_jax.programs import data
  from sftrl_jax.programs.config import nested, resolve
  from sftrl_jax.programs.experiment.run_config import verb_of
  out, count = as_local_path(command.flags["--out"], "--out"), data.parse_count(command.flags.get("--count", str(data.COUNT)))
  data.refuse_out(out)
  if verb_of(resolve.load(command.flags["--config"]), command.overrides) == "study":
    raise ConfigError(f"--config={command.flags['--config']} is a study; data takes the config of one run.")
  config, _ = configured(command)
  data.run(nested.plain(config), out, command.flags.get("--variant", ""), count)


def _report_run(config, workdir) -> None:
  """The report of one run; one that has neither evaluations nor rows of one's own has nothing to show."""
  if (jsonl.files(workdir / "evals.jsonl") or (workdir / "data.json").is_file()) and config.log.report:
    from sftrl_jax.report import write
    with paths.staging(workdir / "report") as out:
      write.write_run(workdir, out)
    print(f"Report: {workdir / 'report' / 'report.html'}")


def _prepare_from(command) -> str:
  """FROM of a verb that reads a workdir; the process is prepared with the threads that its run had."""
  from sftrl_jax.programs.start import checkpoint_ref
  source = command.positionals[0]
  recorded = checkpoint_ref.home_of(source) / "config.json"
  try:
    config = json.loads(recorded.read_text()) if recorded.is_file() else {}
  except json.JSONDecodeError:
    config = {}   # the program tells of it
  prepare_environment(cpu_threads(config if isinstance(config, dict) else {}, command.overrides))
  return source


def _evaluate(command):
  source = _prepare_from(command)
  from sftrl_jax.programs import evaluate
  with joined_processes(command):
    evaluate.run(source, list(command.overrides), command.flags.get("--workdir", ""))


def _sample(command):
  source = _prepare_from(command)
  from sftrl_jax.programs.sample import run as sample_run
  sample_run.run(source, sample_run.read_options(command.flags, command.switches), command.overrides)


def _bench(command):
  from sftrl_jax.programs.config import resolve
  from sftrl_jax.programs.experiment.run_config import verb_of
  if "--out" in command.flags:
    refuse_file("--out", as_local_path(command.flags["--out"], "--out"))
  verb = verb_of(resolve.load(command.flags["--config"]), command.overrides)
  if verb == "study":
    raise ConfigError(f"--config={command.flags['--config']} is a study; bench takes the config of one run.")
  pairs = command.flags.get("--pairs", "5")
  if not pairs.isdecimal():
    raise ConfigError(f"--pairs={pairs} is no whole number.")
  if "--against" in command.flags:   # two frameworks share the device's memory
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  config = _training_config(command)
  from sftrl_jax.programs.bench import run as bench_run
  only = tuple(kind for kind in command.flags.get("--only", "").split(",") if kind)
  bench_run.run(config, verb, command.flags.get("--against", ""), command.flags.get("--out", ""), int(pairs), only)


def _plan(command):
  from sftrl_jax.programs.config.resolve import load
  from sftrl_jax.programs.experiment.run_config import verb_of
  from sftrl_jax.programs.plan import options
  wanted = options.read_options(command.flags, verb_of(load(command.flags["--config"]), command.overrides))
  config = _training_config(command)
  if wanted.where is None:
    from sftrl_jax.programs.plan import local
    local.run(config, wanted)
  else:
    from sftrl_jax.programs.plan import tpu_slice
    tpu_slice.run(config, wanted)


def _convert(command):
  os.environ.setdefault("JAX_PLATFORMS", "cpu")   # nothing is computed, and hosts have room for more
  prepare_environment(0)
  from sftrl_jax.programs import convert
  convert.run(*command.positionals, command.flags.get("--dtype", ""))


def _report(command):
  from sftrl_jax.report import write
  if "--out" in command.flags:
    refuse_file("--out", as_path(command.flags["--out"], "--out"))
  directories = [as_path(directory) for directory in command.positionals]
  for directory in directories:
    if not (directory / "study.json").is_file() and not (directory / "config.json").is_file():
      raise ConfigError(f"{directory} is no workdir: it holds neither study.json (a study) nor config.json (a run).")
  several = len(directories) > 1
  home = as_path(command.flags["--out"]) if "--out" in command.flags else (
      directories[0] / ("overlay" if several else "report"))
  with paths.staging(home) as out:
    if several:
      write.write_overlay(directories, out)
    elif (directories[0] / "study.json").is_file():
      write.write_study(directories[0], out)
    else:
      write.write_run(directories[0], out)
  print(f"Report: {home / 'report.html'}")


def _configs(command):
  from sftrl_jax.programs.cli import experiments
  print(experiments.page(Path(*command.positionals or ("configs",))))


PROGRAMS = {"study": _study, "sft": _train, "rl": _train, "check": _check, "data": _data, "evaluate": _evaluate,
            "sample": _sample, "bench": _bench, "plan": _plan, "convert": _convert, "report": _report,
            "configs": _configs}
