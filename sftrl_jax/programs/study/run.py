"""`sftrl study`: methods compared on the same bases at the same FLOPs, every run a process, and then the report."""

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import shlex
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

from ml_collections import ConfigDict

from sftrl_jax import paths
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError, recorded
from sftrl_jax.programs.runtime.interrupt import STOPPED
from sftrl_jax.programs.runtime.lock import only_writer
from sftrl_jax.programs.runtime.process import cores
from sftrl_jax.programs.study import dry_run, process_pool
from sftrl_jax.programs.study.config import StudyConfig
from sftrl_jax.programs.study.process_pool import ChildRun
from sftrl_jax.programs.study.progress_bar import clock, progress_display
from sftrl_jax.programs.study.runs import expand, method_of, record, select
from sftrl_jax.report import write


def run(config: ConfigDict, workdir: Path, command: str = "sftrl study", only: Sequence[str] = ()) -> None:
  """Trains every run that is not complete, then writes DIR/report. The same call resumes an interrupted study.

  config: resolved, with the section `study`
  command: the command line, which study.json records
  only: methods whose runs are trained, with what they need; a later call trains the others. () for all

  Raises ConfigError before it writes anything, RuntimeError at the end when runs failed, SystemExit(75) after SIGTERM
  and KeyboardInterrupt after Ctrl-C. After either signal, every run has written a checkpoint and ended.
  """
  start = time.monotonic()
  study = resolve.build(StudyConfig, config.study, "config.study")
  all_runs = expand(study, workdir)
  runs = select(all_runs, only)
  _refuse_recorded(config, workdir)
  if not all(process_pool.is_complete(run) for run in runs):
    # All runs, so that a mistake in the last piece of a study is an error before the first one.
    dry_run.refuse([(method_of(run.name), run) for run in all_runs], study.claimed_parts())
  with only_writer(workdir) as lock:
    _write_json(workdir / "config.json", {**config.to_dict(), "verb": "study"})
    _write_json(workdir / "study.json", record(study, command, _hardware()))
    failed = _train(runs, study, workdir, start, lock)
    incomplete = sum(not process_pool.is_complete(run) for run in all_runs)
    _report(workdir, incomplete, clock(time.monotonic() - start))
  if failed:
    names = ", ".join(run.name for run in failed)
    raise RuntimeError(f"{len(failed)} of {len(runs)} runs failed: {names}. Their logs are in {workdir / 'logs'}; the "
                       "report covers the others. The same command tries them again.")


def list_commands(config: ConfigDict, workdir: PurePath, command: str = "sftrl study --list",
                  only: Sequence[str] = ()) -> None:
  """Prints the command of every run, bases first, and writes what `sftrl report` reads besides the runs.

  No dry run: the mesh of a pod cannot be built on the machine that lists its commands. Arguments are those of `run`.
  """
  study = resolve.build(StudyConfig, config.study, "config.study")
  runs = sorted(select(expand(study, workdir), only), key=lambda run: bool(run.needs))
  _refuse_recorded(config, workdir)
  paths.make(workdir)
  _write_json(workdir / "config.json", {**config.to_dict(), "verb": "study"})
  _write_json(workdir / "study.json", record(study, command, "the machines of its runs, started one by one"))
  needed = [run for run in runs if not run.needs]
  for title, group in (("These need nothing", needed), ("These need the ones above", runs[len(needed):])):
    if group:
      print("\n".join([f"# {title}:", *(shlex.join(["sftrl", *run.words]) for run in group)]))
  print(f"# The report, at any time: {shlex.join(['sftrl', 'report', str(workdir)])}", flush=True)


def _refuse_recorded(config: ConfigDict, workdir: PurePath) -> None:
  """ConfigError when the directory holds another study, or a single run."""
  if not (workdir / "config.json").is_file():
    return
  recorded_config = recorded(workdir)
  verb = recorded_config.pop("verb", "study")
  if verb != "study":
    raise ConfigError(f"{workdir} is the workdir of one {verb} run: give another --workdir.")
  if isinstance(recorded_config.get("study"), dict):   # one that an older version began lacks newer keys
    recorded_config["study"] = {**_defaults(), **recorded_config["study"]}
  resolve.refuse_another(recorded_config, config, workdir)


def _defaults() -> dict[str, Any]:
  """The keys of a study that have a default, with these."""
  factories = {field.name: field.default_factory() for field in dataclasses.fields(StudyConfig)
               if field.default_factory is not dataclasses.MISSING}
  return {field.name: field.default for field in dataclasses.fields(StudyConfig)
          if field.default is not dataclasses.MISSING} | factories


def _train(runs: list[ChildRun], study: StudyConfig, workdir: Path, start: float, lock: int) -> list[ChildRun]:
  """Trains every run that is not complete; returns those that failed, and those whose base failed.

  It draws the curve as soon as two methods can be compared, and again whenever a run ends.
  start: time.monotonic() at which the study began
  lock: file descriptor of the workdir's lock. The runs inherit it, so that the workdir stays locked while one is alive.
  """
  environment = {"PYTHONUNBUFFERED": "1"}
  failed, drawn, last_look = [], False, 0.0
  with process_pool.signals() as received, progress_display(runs) as (show, say):
    for moment in process_pool.supervise(runs, study.jobs or cores(), environment, received, keep=(lock,)):
      show(moment.live)
      for ended, code in moment.ended:
        if code and not received:
          failed.append(ended)
          say(f"{ended.name} failed (exit code {code}); the end of {ended.log}:\n{process_pool.tail(ended)}")
      if not drawn and (moment.ended or time.monotonic() - last_look > 1.0):
        last_look = time.monotonic()
        if is_comparable(study, workdir):
          drawn = _draw(workdir, say, f"First curve after {time.monotonic() - start:.0f} s")
      elif drawn and any(code == 0 for _, code in moment.ended):
        _draw(workdir, say)
      if received:
        say(f"Stopping: waiting for {len(moment.live)} runs to write their checkpoints; a second signal kills them.")
  if received:
    raise KeyboardInterrupt if received[0] == signal.SIGINT else SystemExit(STOPPED)
  names = {run.name for run in failed}
  for run in runs:   # in an order in which a run follows what it needs
    if run.needs in names:
      failed.append(run)
      names.add(run.name)
  return failed


def is_comparable(study: StudyConfig, workdir: Path) -> bool:
  """Whether two methods (or the only one) have been evaluated at least twice on the same base."""
  needed = min(2, len(study.methods))
  for base in range(study.bases):
    curves = 0
    for method in study.methods:
      homes = (workdir / "runs" / f"base-{base}-{method}-{seed}" for seed in range(study.seeds))
      curves += any(_evaluated_steps(home) >= 2 for home in homes)
    if curves >= needed:
      return True
  return False


def _evaluated_steps(home: Path) -> int:
  """The number of steps of a run that have been evaluated. A line that the run is still writing does not count."""
  steps = set()
  try:
    lines = (home / "evals.jsonl").read_text().splitlines()
  except FileNotFoundError:
    return 0
  for line in lines:
    with contextlib.suppress(json.JSONDecodeError, KeyError):
      steps.add(json.loads(line)["step"])
  return len(steps)


def _draw(workdir: Path, say: Callable[[str], None], news: str = "") -> bool:
  """Draws the curve so far; whether it could. An error is printed and the study goes on: no result depends on it."""
  out = workdir / "report" / "curve.png"
  try:
    path = write.draw_curve(workdir, out)
  except (ValueError, OSError) as error:
    say(f"The curve so far could not be drawn: {error}")
    return False
  if news:
    say(f"{news}: {path}")
  return True


def _report(workdir: Path, incomplete: int, elapsed: str) -> None:
  """Writes the report and prints its summary. incomplete: how many runs are; elapsed: since the command began"""
  try:
    path = write.write_study(workdir)
    news = (f"Report of the runs so far, after {elapsed}: {path}. Not complete: {incomplete}." if incomplete else
            f"Study complete after {elapsed}. Report: {path}")
    print(f"\n{write.summary(workdir)}\n\n{news}", flush=True)
  except ValueError as error:
    if not incomplete:
      raise
    print(f"There is too little for a report: {error}", flush=True)


def _write_json(path: PurePath, content: dict[str, Any]) -> None:
  paths.write_whole(path, json.dumps(content, indent=2) + "\n")


def _hardware() -> str:
  """One line about the machine, for the report."""
  model = platform.processor() or platform.machine()
  with contextlib.suppress(FileNotFoundError):
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names[0].partition(":")[2].strip() if names else model
  version = importlib.metadata.version("jax")   # the process of a study need not import JAX
  return f"{model}, {cores()} cores, {platform.system()}, Python {platform.python_version()}, jax {version}"
