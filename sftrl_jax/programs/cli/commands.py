"""The function of each verb: checks its flags, reads the config, prepares the process for JAX and calls a program.

Each function imports the program that it calls: a wrong flag is an error before anything heavy is imported, and JAX
must not be imported before `prepare_environment` has set the threads that XLA reads at import. verbs.py names these
functions.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from sftrl_jax import jsonl, paths
from sftrl_jax.programs.config import automatic, nested, resolve, smoke
from sftrl_jax.programs.config.errors import ConfigError, as_local_path, as_path, refuse_file
from sftrl_jax.programs.experiment.run_config import DEFAULT_VERB, VERB_OF_KEY, resolve_run, verb_of
from sftrl_jax.programs.runtime import compile_cache
from sftrl_jax.programs.runtime.interrupt import as_exception
from sftrl_jax.programs.runtime.lock import PATIENCE, only_output
from sftrl_jax.programs.runtime.process import cpu_threads, joined_processes, prepare_environment
from sftrl_jax.programs.start import checkpoint_ref, mix


@dataclasses.dataclass(frozen=True)
class Command:
  """A parsed command line.

  flags: {flag: value}, or a list of values where a verb takes the flag several times
  overrides: ((dotted key, text), ...) of --config.KEY=TEXT, in order
  text: the command, quoted for a shell
  """

  verb: str
  flags: Mapping[str, str | list[str]]
  positionals: tuple[str, ...]
  overrides: tuple[tuple[str, str], ...]
  switches: frozenset[str]
  text: str


def optimizers_page(command: Command) -> str:
  """The page of --config.optimizer.name=help."""
  resolve.load(command.flags["--config"])
  os.environ["JAX_PLATFORMS"] = "cpu"   # the page needs shapes only
  from sftrl_jax.programs.cli import optimizer_help
  return optimizer_help.page()


def resolve_config(command: Command) -> tuple[ConfigDict, dict]:
  """(resolved config, schema) of --config; sets the environment that JAX reads before JAX is imported."""
  verb = _config_verb(command)
  if verb != "study":
    return resolve_run(command.flags["--config"], command.overrides, verb)
  from sftrl_jax.programs.study.config import SCHEMA
  return resolve.resolve(resolve.load(command.flags["--config"]), command.overrides, SCHEMA), SCHEMA


def _config_verb(command: Command) -> str:
  """`study` or a kind of training: the command's own verb if it is one of these, else the verb of its config."""
  if command.verb in (DEFAULT_VERB, *VERB_OF_KEY.values()):
    return command.verb
  return verb_of(resolve.load(command.flags["--config"]), command.overrides)


def _resolve_training(command: Command) -> ConfigDict:
  """The config of a run; a start `DIR@best:VARIANT` becomes a step, which a resume keeps."""
  config, _ = resolve_config(command)
  if checkpoint_ref.BEST in config.get("start", ""):
    with config.unlocked():
      config.start = checkpoint_ref.resolve_best(config.start)
  return config


def _training_verb(command: Command) -> str:
  """The kind of training that --config is for. ConfigError for a study."""
  verb = _config_verb(command)
  if verb == "study":
    raise ConfigError(f"--config={command.flags['--config']} is a study; {command.verb} takes the config of one run.")
  return verb


def _prepare_from(command: Command) -> str:
  """FROM of a verb that reads a workdir. It sets the environment for JAX, with the CPU threads of its run."""
  source = command.positionals[0]
  path = checkpoint_ref.home_of(source) / "config.json"
  try:
    config = json.loads(path.read_text()) if path.is_file() else {}
  except (OSError, ValueError, RecursionError):
    config = {}   # the program reads the file too and raises the error
  prepare_environment(cpu_threads(config if isinstance(config, dict) else {}, command.overrides))
  return source


@contextlib.contextmanager
def _processes(command: Command) -> Iterator[bool]:
  """Runs the block as one of the processes of a command, if there are several, with a cache of compiled programs."""
  with joined_processes(command.flags) as is_first:
    from sftrl_jax.parallel import hosts
    compile_cache.use(hosts.several())
    yield is_first


def run_study(command: Command) -> None:
  """Trains a study, or prints the commands of its runs."""
  from sftrl_jax.programs.study import run
  config, _ = resolve_config(command)
  workdir = as_path(command.flags["--workdir"], "--workdir")
  only = tuple(name for name in command.flags.get("--only", "").split(",") if name)
  if "--list" in command.switches:
    run.list_commands(config, workdir, command.text, only)
    return
  if not paths.is_here(workdir):
    raise ConfigError(f"--workdir={workdir}: a study runs and writes on this machine; `--list` prints the commands of "
                      "runs that write into a bucket.")
  run.run(config, workdir, command.text, only)


def run_training(command: Command) -> None:
  """Trains one run; the first process then writes its report."""
  config = _resolve_training(command)
  from sftrl_jax.programs.trainers import TRAINERS
  workdir = as_path(command.flags["--workdir"], "--workdir")
  with _processes(command) as is_first:
    config = _settled(config, command.verb, workdir)
    TRAINERS[command.verb](config, workdir)
    if is_first:
      _report_run(config, workdir)


def _settled(config: ConfigDict, verb: str, workdir: Path | None = None) -> ConfigDict:
  """The config with a value for each "auto", the same in all processes; see plan/automatic.py."""
  from sftrl_jax.parallel import hosts
  if not any(hosts.gathered(automatic.asked(config))):
    return config
  from sftrl_jax.programs.plan.automatic import settle
  return settle(config, verb, workdir)


def _report_run(config: ConfigDict, workdir: Path) -> None:
  """Writes the report of one run, if it has evaluations or rows of the user's own to show."""
  if (jsonl.files(workdir / "evals.jsonl") or (workdir / "data.json").is_file()) and config.log.report:
    from sftrl_jax.report import write
    home = workdir / "report"
    with only_output(home, "--out", inside=True, patience=PATIENCE), paths.staging(home) as out:
      write.write_run(workdir, out)
    print(f"Report: {workdir / 'report' / 'report.html'}")


def run_check(command: Command) -> None:
  """Checks a config, all methods of a study included."""
  from sftrl_jax.programs.check import run
  if smoke.split(command.flags["--config"])[2]:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
  cases = run.cases(command.flags["--config"], command.overrides)
  prepare_environment(run.threads(cases))
  scratch = as_path(command.flags["--workdir"], "--workdir") if "--workdir" in command.flags else None
  with as_exception(), _processes(command):
    run.run(cases, command.flags.get("--plan", ""), command.flags.get("--within", ""), scratch)


def run_data(command: Command) -> None:
  """Writes demonstrations of a task."""
  from sftrl_jax.programs import data
  out = as_local_path(command.flags["--out"], "--out")
  count = data.parse_count(command.flags.get("--count", str(data.COUNT)))
  data.refuse_out(out)
  _training_verb(command)
  config, _ = resolve_config(command)
  with as_exception():
    data.run(nested.plain(config), out, command.flags.get("--variant", ""), count)


def run_evaluate(command: Command) -> None:
  """Evaluates a checkpoint under the config of its run, or a model under --config; or asks it tasks of lm-eval."""
  from sftrl_jax.programs.harness.task_options import read_options
  tasks = read_options(command.flags, command.switches)
  spec, workdir, overrides = command.flags.get("--config", ""), command.flags.get("--workdir", ""), command.overrides
  shares = mix.parse_shares(command.flags["--interpolate"]) if "--interpolate" in command.flags else ()
  compares = "--weights" in command.switches
  if spec and (shares or compares) or shares and compares:
    raise ConfigError("--interpolate and --weights are each of a run with its own config and start: give a workdir, "
                      "one of the two, and no --config.")
  if spec:
    source = command.positionals[0]
    prepare_environment(cpu_threads(resolve.load(spec).to_dict(), overrides))
  else:
    source = _prepare_from(command)
  if tasks:
    from sftrl_jax.programs.evaluate import tasks as task_run
    with as_exception(), _processes(command):
      task_run.run(source, tasks, overrides, workdir, spec)
    return
  from sftrl_jax.programs.evaluate import run
  with as_exception(), _processes(command) as is_first:
    if compares:
      run.compare_weights(source, list(overrides), workdir)
    elif shares:
      lines, out = run.interpolate(source, list(overrides), shares, workdir)
      if is_first:
        from sftrl_jax.report.figures import interpolation_figure
        print(run.share_table(lines))
        print(f"Written: {interpolation_figure.draw(lines, checkpoint_ref.home_of(source), out)}")
    else:
      run.run(source, list(overrides), workdir, spec)


def run_sample(command: Command) -> None:
  """Samples responses of a model."""
  source = _prepare_from(command)
  from sftrl_jax.programs.sample import run
  options = run.read_options(command.flags, command.switches)
  with as_exception():
    compile_cache.use()
    run.run(source, options, command.overrides)


def run_label(command: Command) -> None:
  """Asks a person which of two responses is better."""
  source, spec = command.positionals[0], command.flags.get("--config", "")
  if spec:
    prepare_environment(cpu_threads(resolve.load(spec).to_dict(), command.overrides))
  else:
    _prepare_from(command)
  from sftrl_jax.programs.label import run
  options = run.read_options(command.flags)
  with as_exception():
    compile_cache.use()
    run.run(source, options, command.overrides)


def run_bench(command: Command) -> None:
  """Measures the speed of a config."""
  if "--out" in command.flags:
    refuse_file("--out", as_local_path(command.flags["--out"], "--out"))
  verb = _training_verb(command)
  pairs = command.flags.get("--pairs", "5")
  if not pairs.isdecimal():
    raise ConfigError(f"--pairs={pairs} is no whole number.")
  if "--against" in command.flags:   # two frameworks share the device's memory
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  numbers = {}
  for flag, name in (("--mean-length", "mean"), ("--sigma", "sigma"), ("--longest", "longest")):
    if flag in command.flags:
      try:
        numbers[name] = float(command.flags[flag])
      except ValueError:
        raise ConfigError(f"{flag}={command.flags[flag]} is no number.") from None
  config = _settled(_resolve_training(command), verb)
  from sftrl_jax.programs.bench import run
  from sftrl_jax.programs.bench.measurement import ScriptedLengths
  kinds = tuple(kind for kind in command.flags.get("--only", "").split(",") if kind)
  out = command.flags.get("--out", "")
  with only_output(Path(out), "--out", inside=True) if out else contextlib.nullcontext():
    run.run(config, verb, command.flags.get("--against", ""), out, int(pairs), kinds, ScriptedLengths(**numbers))


def run_plan(command: Command) -> None:
  """Plans a run for a TPU slice, or for this machine; or predicts runs whose speed is published."""
  from sftrl_jax.programs.plan import options
  if "--published" in command.switches:
    options.refuse_with_published(command.flags, command.overrides)
    from sftrl_jax.programs.plan.published import table
    table.run(command.flags.get("--json", ""))
    return
  plan_options = options.read_options(command.flags, _config_verb(command))
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")   # XLA logs a stack for a large program that it cannot print
  config = _resolve_training(command)
  if automatic.asked(config):
    from sftrl_jax.programs.plan.automatic import settle
    config = settle(config, plan_options.verb, where=plan_options.where)
  if plan_options.where is None:
    from sftrl_jax.programs.plan import local
    local.run(config, plan_options)
  else:
    from sftrl_jax.programs.plan import tpu_slice
    tpu_slice.run(config, plan_options)


def run_convert(command: Command) -> None:
  """Converts a model to a Hugging Face directory."""
  os.environ.setdefault("JAX_PLATFORMS", "cpu")   # it computes nothing, and host memory holds larger models
  prepare_environment(0)
  from sftrl_jax.programs import convert
  with as_exception():
    convert.run(*command.positionals, command.flags.get("--dtype", ""), "--adapters" in command.switches)


def run_report(command: Command) -> None:
  """Writes the report of a study, of a run, or of several directories over one another."""
  from sftrl_jax.report import write
  if "--out" in command.flags:
    refuse_file("--out", as_path(command.flags["--out"], "--out"))
  directories = [as_path(directory) for directory in command.positionals]
  for directory in directories:
    if not (directory / "study.json").is_file() and not (directory / "config.json").is_file():
      raise ConfigError(f"{directory} is no workdir: it holds neither study.json (a study) nor config.json (a run).")
  first, is_overlay = directories[0], len(directories) > 1
  price = _price(command, is_overlay)
  home = as_path(command.flags.get("--out", first / ("overlay" if is_overlay else "report")))
  with only_output(home, "--out", inside=True), paths.staging(home) as out:
    if is_overlay:
      write.write_overlay(directories, out)
    elif (first / "study.json").is_file():
      write.write_study(first, out, price)
    else:
      write.write_run(first, out, price)
  print(f"Report: {home / 'report.html'}")


def _price(command: Command, is_overlay: bool) -> float:
  """--price in dollars of a chip-hour, 0 without. ConfigError where nothing is forecast."""
  if "--price" not in command.flags:
    return 0.0
  if is_overlay:
    raise ConfigError("--price is of the forecast, which several directories over one another do not have: give one "
                      "run or study.")
  from sftrl_jax.programs.plan import options
  return options.parse_number("--price", command.flags["--price"])


def run_configs(command: Command) -> None:
  """Prints the experiments of a folder."""
  from sftrl_jax.programs.cli import experiments
  print(experiments.page(Path(*command.positionals or ("configs",))))
