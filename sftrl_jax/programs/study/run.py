"""`sftrl study`: methods compared on the same bases at the same FLOPs, every run a process, and then the report."""

import contextlib
import importlib.metadata
import json
import platform
import shlex
import signal
import time
from pathlib import Path

from sftrl_jax import paths
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError, recorded
from sftrl_jax.programs.runtime.lock import only_writer
from sftrl_jax.programs.runtime.shutdown import STOPPED
from sftrl_jax.programs.study import dry_run, process_pool
from sftrl_jax.programs.study.config import StudyConfig
from sftrl_jax.programs.study.progress_bar import board, clock
from sftrl_jax.programs.study.runs import cores, expand, method_of, record
from sftrl_jax.report import write


def run(config, workdir, command="sftrl study") -> None:
  """Everything that the study still lacks, then DIR/report; the same call goes on after an interruption.

  Raises ConfigError before anything is written, RuntimeError at the end when runs failed, SystemExit(75) after SIGTERM
  and KeyboardInterrupt after Ctrl-C, both with every run stopped behind a checkpoint.
  """
  start = time.monotonic()
  study = resolve.build(StudyConfig, config.study, "config.study")
  runs = expand(study, workdir)
  _check_recorded(config, workdir)
  if not all(process_pool.is_complete(run) for run in runs):
    dry_run.refuse([(method_of(run.name), run) for run in runs])
  with only_writer(workdir) as lock:
    _write_json(workdir / "config.json", {**config.to_dict(), "verb": "study"})
    _write_json(workdir / "study.json", record(study, command, _hardware()))
    failed = _train(runs, study, workdir, start, lock)
    _report(workdir, failed, clock(time.monotonic() - start))
  if failed:
    names = ", ".join(run.name for run in failed)
    raise RuntimeError(f"{len(failed)} of {len(runs)} runs failed: {names}. Their logs are in {workdir / 'logs'}; the "
                       "report covers the others. The same command tries them again.")


def listing(config, workdir, command="sftrl study --list") -> None:
  """Prints the command of every run, bases first, and writes what `sftrl report` needs besides the runs.

  The parts of the runs are not tried: a mesh for a pod cannot be made where they are listed.
  """
  study = resolve.build(StudyConfig, config.study, "config.study")
  runs = sorted(expand(study, workdir), key=lambda run: bool(run.needs))
  _check_recorded(config, workdir)
  paths.make(workdir)
  _write_json(workdir / "config.json", {**config.to_dict(), "verb": "study"})
  _write_json(workdir / "study.json", record(study, command, "the machines of its runs, started one by one"))
  needed = [run for run in runs if not run.needs]
  for title, several in (("These need nothing", needed), ("These need the ones above", runs[len(needed):])):
    if several:
      print("\n".join([f"# {title}:", *(shlex.join(["sftrl", *run.words]) for run in several)]))
  print(f"# The report, at any time: {shlex.join(['sftrl', 'report', str(workdir)])}", flush=True)


def _check_recorded(config, workdir) -> None:
  """ConfigError when the directory holds another study, or a single run."""
  if not (workdir / "config.json").is_file():
    return
  before = recorded(workdir)
  verb = before.pop("verb", "study")
  if verb != "study":
    raise ConfigError(f"{workdir} is the workdir of one {verb} run: give another --workdir.")
  resolve.refuse_another(before, config, workdir)


def _train(runs, study, workdir, start, lock) -> list[process_pool.Run]:
  """Runs what is not complete and returns what failed; draws the curve whenever a run ended. The runs hold the lock."""
  environment = {"JAX_COMPILATION_CACHE_DIR": str((workdir / "cache").resolve()),
                 "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONUNBUFFERED": "1"}
  failed, drawn, looked = [], False, 0.0
  with process_pool.signals() as received, board(runs) as (show, say):
    for moment in process_pool.supervise(runs, study.jobs or cores(), environment, received, keep=(lock,)):
      show(moment.live)
      for ended, code in moment.ended:
        if code and not received:
          failed.append(ended)
          say(f"{ended.name} failed (exit code {code}); the end of {ended.log}:\n{process_pool.tail(ended)}")
      if not drawn and (moment.ended or time.monotonic() - looked > 1.0):
        looked = time.monotonic()
        if is_comparable(study, workdir):
          drawn = _draw(workdir, say, f"First curve after {time.monotonic() - start:.0f} s")
      elif drawn and any(code == 0 for _, code in moment.ended):
        _draw(workdir, say)
      if received:
        say(f"Stopping: waiting for {len(moment.live)} runs to write their checkpoints; a second signal kills them.")
  if received:
    raise KeyboardInterrupt if received[0] == signal.SIGINT else SystemExit(STOPPED)
  lost = {run.name for run in failed}
  return failed + [run for run in runs if run.needs in lost]


def is_comparable(study, workdir) -> bool:
  """Whether two methods (or the only one) have been evaluated at least twice on the same base."""
  def twice(base, method):
    homes = (workdir / "runs" / f"base-{base}-{method}-{seed}" for seed in range(study.seeds))
    return any(_evaluations(home) >= 2 for home in homes)
  enough = min(2, len(study.methods))
  return any(sum(twice(base, method) for method in study.methods) >= enough for base in range(study.bases))


def _evaluations(home) -> int:
  """How many steps of a run have been evaluated; a line that is still being written does not count."""
  steps = set()
  try:
    lines = (home / "evals.jsonl").read_text().splitlines()
  except FileNotFoundError:
    return 0
  for line in lines:
    with contextlib.suppress(json.JSONDecodeError, KeyError):
      steps.add(json.loads(line)["step"])
  return len(steps)


def _draw(workdir, say, news="") -> bool:
  """Draws the curve so far. It is a convenience: what goes wrong in it is told, and the study goes on."""
  out = workdir / "report" / "curve.png"
  out.parent.mkdir(parents=True, exist_ok=True)
  try:
    path = write.draw_curve(workdir, out)
  except (ValueError, OSError) as error:
    say(f"The curve so far could not be drawn: {error}")
    return False
  if news:
    say(f"{news}: {path}")
  return True


def _report(workdir, failed, elapsed) -> None:
  try:
    path = write.write_study(workdir)
    print(f"\n{write.summary(workdir)}\n\nStudy complete after {elapsed}. Report: {path}" if not failed else
          f"\n{write.summary(workdir)}\n\nReport of what there is: {path}", flush=True)
  except ValueError as error:
    if not failed:
      raise
    print(f"There is too little for a report: {error}", flush=True)


def _write_json(path, content) -> None:
  paths.write_whole(path, json.dumps(content, indent=2) + "\n")


def _hardware() -> str:
  """One line about the machine, for the report."""
  model = platform.processor() or platform.machine()
  with contextlib.suppress(FileNotFoundError):
    named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = named[0].partition(":")[2].strip() if named else model
  return f"{model}, {cores()} cores, {platform.system()}, Python {platform.python_version()}, jax {_version('jax')}"


def _version(package) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return "not installed"


