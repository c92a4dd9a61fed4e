"""What each verb does with its words: reads the config, prepares the process for JAX, and calls a program.

Nothing heavy is imported before the words are known to be right; main.py says which words a verb takes.
"""

import atexit
import contextlib
import glob
import importlib.util
import json
import os
import sys
from pathlib import Path

from sftrl_jax import jsonl, places
from sftrl_jax.programs.mistakes import ConfigError, Refused, here, place, refuse_file

ACCELERATORS = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*", "/dev/kfd")


def optimizers_page(command) -> str:
  from sftrl_jax.programs import settings
  settings.load(command.flags["--config"])
  os.environ["JAX_PLATFORMS"] = "cpu"   # only shapes are looked at
  from sftrl_jax.programs import optimizers
  return optimizers.page()


def configured(command):
  """(resolved config, schema) of a verb that takes --config; the process is prepared for JAX on the way."""
  from sftrl_jax.programs import settings, smoke
  config = settings.load(command.flags["--config"])
  if smoke.split(command.flags["--config"])[2]:
    for name, value in smoke.ENVIRONMENT.items():
      os.environ.setdefault(name, value)
  verb = command.verb
  if verb in ("check", "bench", "data", "plan"):
    from sftrl_jax.programs.check import verb_of
    verb = verb_of(config, command.overrides)
  if verb == "study":
    from sftrl_jax.programs.study import SCHEMA
    return settings.resolve(config, command.overrides, SCHEMA), SCHEMA
  prepare(_threads(config.to_dict(), command.overrides))
  resolved = settings.resolve_for(verb, config, command.overrides)
  from sftrl_jax.programs.setup import SCHEMAS
  return resolved, SCHEMAS[verb]


def _threads(config, overrides) -> int:
  """mesh.cpu_threads before the config is checked; anything strange is 0 here and an error of `resolve` later."""
  mesh = config.get("mesh", {})
  value = dict(overrides).get("mesh.cpu_threads", mesh.get("cpu_threads", 0) if isinstance(mesh, dict) else 0)
  return int(value) if str(value).isdecimal() else 0


def prepare(threads) -> None:
  """Sets the environment that JAX reads when it is imported: CPU threads (0 leaves them alone) and quiet logs.

  Where libtpu is there for `sftrl plan` alone, JAX would look for TPUs, print errors and hold libtpu's lock.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  if importlib.util.find_spec("libtpu") and not any(map(glob.glob, ACCELERATORS)):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
  if not threads:
    return
  os.environ["NPROC"] = str(threads)
  flags = ("--xla_cpu_multi_thread_eigen=false", "intra_op_parallelism_threads=1") if threads == 1 else ()
  present = os.environ.get("XLA_FLAGS", "").split()
  os.environ["XLA_FLAGS"] = " ".join([*present, *(flag for flag in flags if flag not in present)])


def _study(command):
  from sftrl_jax.programs import study
  config, _ = configured(command)
  workdir = place(command.flags["--workdir"], "--workdir")
  if "--list" in command.switches:
    study.listing(config, workdir, command.text)
    return
  if not places.is_here(workdir):
    raise ConfigError(f"--workdir={workdir}: a study begins its runs and writes on this machine; `--list` prints the "
                      "commands of runs that write into a bucket.")
  study.run(config, workdir, command.text)


def _training_config(command):
  """The config of a run, its start pinned to a step where that is to be the best one."""
  from sftrl_jax.programs import origin
  config, _ = configured(command)
  if origin.BEST in config.get("start", ""):
    with config.unlocked():
      config.start = origin.pinned(config.start)
  return config


@contextlib.contextmanager
def _together(command):
  """The block as one of the processes of a run, if there are several; yields whether this is the first."""
  from sftrl_jax.parallel import hosts, peers
  try:
    hosts.join(command.flags)
  except ValueError as error:
    raise ConfigError(str(error)) from error
  if not hosts.several():
    yield True
    return
  fellows = peers.connect()
  try:
    yield hosts.leads()
    hosts.wait()   # for the report
  except Refused:
    raise   # all do
  except Exception as error:
    if not isinstance(error, ConfigError):
      fellows.settle()
    atexit.register(_leave_now)   # the others are not waited for
    fellows.ended(1, str(error).partition("\n")[0][:300])
    raise
  finally:
    fellows.ended(0)


def _leave_now() -> None:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(1)


def _train(command):
  config = _training_config(command)
  from sftrl_jax.programs import rl, sft
  workdir = place(command.flags["--workdir"], "--workdir")
  with _together(command) as first:
    {"sft": sft, "rl": rl}[command.verb].run(config, workdir)
    if first:
      _report_run(config, workdir)


def _check(command):
  from sftrl_jax.programs import check, smoke
  if smoke.split(command.flags["--config"])[2]:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
  cases = check.cases(command.flags["--config"], command.overrides)
  prepare(check.threads(cases))
  scratch = place(command.flags["--workdir"], "--workdir") if "--workdir" in command.flags else None
  with _together(command):
    check.run(cases, command.flags.get("--plan", ""), command.flags.get("--within", ""), scratch)


def _data(command):
  from sftrl_jax.programs import data, dotted, settings
  from sftrl_jax.programs.check import verb_of
  out, count = here(command.flags["--out"], "--out"), data.parse_count(command.flags.get("--count", str(data.COUNT)))
  data.refuse_out(out)
  if verb_of(settings.load(command.flags["--config"]), command.overrides) == "study":
    raise ConfigError(f"--config={command.flags['--config']} is a study; data takes the config of one run.")
  config, _ = configured(command)
  data.run(dotted.plain(config), out, command.flags.get("--variant", ""), count)


def _report_run(config, workdir) -> None:
  """The report of one run; one that has neither evaluations nor rows of one's own has nothing to show."""
  if (jsonl.files(workdir / "evals.jsonl") or (workdir / "data.json").is_file()) and config.log.report:
    from sftrl_jax.study import report
    with places.made(workdir / "report") as out:
      report.write_run(workdir, out)
    print(f"Report: {workdir / 'report' / 'report.html'}")


def _prepare_from(command) -> str:
  """FROM of a verb that reads a workdir; the process is prepared with the threads that its run had."""
  from sftrl_jax.programs import origin
  source = command.positionals[0]
  recorded = origin.home_of(source) / "config.json"
  try:
    config = json.loads(recorded.read_text()) if recorded.is_file() else {}
  except json.JSONDecodeError:
    config = {}   # the program tells of it
  prepare(_threads(config if isinstance(config, dict) else {}, command.overrides))
  return source


def _evaluate(command):
  source = _prepare_from(command)
  from sftrl_jax.programs import evaluate
  with _together(command):
    evaluate.run(source, list(command.overrides), command.flags.get("--workdir", ""))


def _sample(command):
  source = _prepare_from(command)
  from sftrl_jax.programs import sample
  sample.run(source, sample.asked(command.flags, command.switches), command.overrides)


def _bench(command):
  from sftrl_jax.programs import settings
  from sftrl_jax.programs.check import verb_of
  if "--out" in command.flags:
    refuse_file("--out", here(command.flags["--out"], "--out"))
  verb = verb_of(settings.load(command.flags["--config"]), command.overrides)
  if verb == "study":
    raise ConfigError(f"--config={command.flags['--config']} is a study; bench takes the config of one run.")
  pairs = command.flags.get("--pairs", "5")
  if not pairs.isdecimal():
    raise ConfigError(f"--pairs={pairs} is no whole number.")
  if "--against" in command.flags:   # two frameworks share the device's memory
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  config = _training_config(command)
  from sftrl_jax.programs import bench
  only = tuple(kind for kind in command.flags.get("--only", "").split(",") if kind)
  bench.run(config, verb, command.flags.get("--against", ""), command.flags.get("--out", ""), int(pairs), only)


def _plan(command):
  from sftrl_jax.programs import asked
  from sftrl_jax.programs.check import verb_of
  from sftrl_jax.programs.settings import load
  wanted = asked.read(command.flags, verb_of(load(command.flags["--config"]), command.overrides))
  config = _training_config(command)
  if wanted.where is None:
    from sftrl_jax.programs import measured
    measured.run(config, wanted)
  else:
    from sftrl_jax.programs import plan
    plan.run(config, wanted)


def _convert(command):
  os.environ.setdefault("JAX_PLATFORMS", "cpu")   # nothing is computed, and hosts have room for more
  prepare(0)
  from sftrl_jax.programs import convert
  convert.run(*command.positionals, command.flags.get("--dtype", ""))


def _report(command):
  from sftrl_jax.study import report
  if "--out" in command.flags:
    refuse_file("--out", place(command.flags["--out"], "--out"))
  directories = [place(directory) for directory in command.positionals]
  for directory in directories:
    if not (directory / "study.json").is_file() and not (directory / "config.json").is_file():
      raise ConfigError(f"{directory} is no workdir: it holds neither study.json (a study) nor config.json (a run).")
  several = len(directories) > 1
  home = place(command.flags["--out"]) if "--out" in command.flags else (
      directories[0] / ("overlay" if several else "report"))
  with places.made(home) as out:
    if several:
      report.write_overlay(directories, out)
    elif (directories[0] / "study.json").is_file():
      report.write_study(directories[0], out)
    else:
      report.write_run(directories[0], out)
  print(f"Report: {home / 'report.html'}")


def _configs(command):
  from sftrl_jax.programs import catalogue
  print(catalogue.page(Path(*command.positionals or ("configs",))))


PROGRAMS = {"study": _study, "sft": _train, "rl": _train, "check": _check, "data": _data, "evaluate": _evaluate,
            "sample": _sample, "bench": _bench, "plan": _plan, "convert": _convert, "report": _report,
            "configs": _configs}
