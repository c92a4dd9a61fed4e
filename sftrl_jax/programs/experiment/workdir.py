"""A workdir held by one writer, with its config and its environment's labels recorded."""

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from sftrl_jax import jsonl, paths
from sftrl_jax.checkpoints.store import SaveFailed
from sftrl_jax.envs.env import labels_of
from sftrl_jax.parallel import hosts, rules
from sftrl_jax.programs.config import user_files
from sftrl_jax.programs.config.errors import AbortAllProcesses, ConfigError, recorded
from sftrl_jax.programs.config.resolve import differences, refuse_another
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.runtime.lock import only_writer
from sftrl_jax.programs.runtime.shutdown import Agreement, Stop, stopping
from sftrl_jax.programs.runtime.watchdog import Watchdog, patience
from sftrl_jax.programs.start import pretrained
from sftrl_jax.training.log import FILES, Log, write_json

KEPT = []   # locks that are held until this process ends
PATIENCE = 60.0   # seconds that one of several processes waits, after an error, for the checkpoint of all of them


@contextlib.contextmanager
def workdir_of(experiment: Experiment, workdir: Path) -> Iterator[tuple[Log, Stop]]:
  """Holds the workdir for one writer, with its config recorded; yields (log, stop), under the mesh.

  Of several processes the first one holds it, and decides for all. Raises AbortAllProcesses, in all of them.
  """
  with contextlib.ExitStack() as held:
    try:
      hosts.led_by_first(lambda: _claim(experiment, workdir, held))
    except ValueError as error:
      raise AbortAllProcesses(str(error)) from error
    if not all(hosts.gathered((workdir / "config.json").is_file())):
      raise AbortAllProcesses(f"--workdir={workdir} is not one directory for all processes: give one on a file "
                              "system that they share, or gs://...")
    log = Log(workdir, experiment.log, experiment.limits, workdir.name, writes=hosts.is_first_process())
    watchdog = Watchdog(patience(experiment.log.watchdog_seconds, hosts.several()))
    log.heartbeat = watchdog.heartbeat
    for note in experiment.notes:
      log.say(note)
    agreement = Agreement(*hosts.preemption()) if hosts.several() else None
    try:
      grace = experiment.checkpoint.grace_seconds
      with stopping(grace, agreement) as stop, jax.set_mesh(experiment.mesh), rules.applied():
        nothing_new = f"{workdir}: stopped before a step; the same command goes on."
        stop.set_savepoint(lambda: log.say(nothing_new), between=True)
        try:
          yield log, stop
        except BaseException as error:
          _finish_saves(workdir, log, stop, error)
          raise
    except SaveFailed:
      KEPT.append(held.pop_all())   # something may still write there
      raise
    finally:
      watchdog.close()
      log.close()


def _finish_saves(workdir: Path, log: Log, stop: Stop, error: BaseException) -> None:
  """Waits for the checkpoint that is being written when an error ends a run, and says which one is the newest."""
  if stop.finish_saves is None or stop.received or isinstance(error, SaveFailed):
    return
  problems = []

  def finish():
    try:
      stop.finish_saves()
    except SaveFailed as failed:
      problems.append(failed)

  thread = threading.Thread(target=finish, name="last save", daemon=True)
  thread.start()
  thread.join(PATIENCE if hosts.several() else None)
  for problem in problems:
    print(f"error: {problem}", file=sys.stderr, flush=True)
  newest = max(paths.steps(workdir / "checkpoints"), default=None)
  log.say(f"{workdir}: an error ends this run. " + (
      "It has no checkpoint yet: the same command begins again." if newest is None else
      f"Its newest checkpoint is step {newest}: the same command goes on from there."))


def _claim(experiment: Experiment, workdir: Path, held: contextlib.ExitStack) -> None:
  """Takes the workdir for this run; ConfigError if it is of another run, or another process writes it."""
  verb = experiment.verb
  record = {**experiment.config, "verb": verb}
  if workdir.exists() and not workdir.is_dir():
    raise ConfigError(f"--workdir={workdir} is a file: give a directory, which is made if it is missing.")
  path = workdir / "config.json"
  if path.is_file():
    old = recorded(workdir)
    if old.get("verb") != verb:
      raise ConfigError(f"{workdir} holds a run of `{old.get('verb')}`, not of `{verb}`: use another --workdir.")
    refuse_another(old, record, workdir)
    _refuse_lost(workdir)
    user_files.refuse_changed(experiment.config, workdir)
  paths.make(workdir)
  held.enter_context(only_writer(workdir))
  if not path.is_file() or differences(recorded(workdir), record):
    write_json(path, record)
  labels = labels_of(experiment.env)   # for reports, which import no environment
  probes = {name: f"probe, {name.replace('_', ' ')}" for name in experiment.evals.probes}
  write_json(workdir / "labels.json", {**labels, "variants": {**labels["variants"], **probes}})
  user_files.record(experiment.config, workdir)
  if experiment.config["model"]["name"] == pretrained.NAME:
    pretrained.keep(workdir, experiment.start, experiment.model.config, experiment.tokenizer)


def complete(workdir: Path, experiment: Experiment) -> bool:
  """Whether the run in this workdir has reached the end that this config asks for, and its last checkpoint is there."""
  progress, steps = _progress(workdir), paths.steps(workdir / "checkpoints")
  wanted = {"phase": "complete", "steps": experiment.limits.steps, "flops": experiment.limits.flops}
  return (all(progress.get(key) == value for key, value in wanted.items())
          and bool(steps) and progress.get("step", steps[-1]) == steps[-1])


def _progress(workdir: Path) -> dict:
  """The content of progress.json; {} where it is missing or damaged."""
  try:
    progress = json.loads((workdir / "progress.json").read_text())
  except (OSError, ValueError):
    return {}
  return progress if isinstance(progress, dict) else {}


def _refuse_lost(workdir: Path) -> None:
  """ConfigError for a complete run without its model: training anew would take its time again, and may not be meant."""
  checkpoints = workdir / "checkpoints"
  if _progress(workdir).get("phase") != "complete" or paths.steps(checkpoints):
    return
  if checkpoints.is_dir() and any(".corrupt" in path.name for path in checkpoints.iterdir()):
    return   # damaged ones have their own message
  raise ConfigError(f"{workdir} was complete (progress.json), but {checkpoints} has no checkpoint: restore it from a "
                    "copy, remove progress.json to train from the start (the old lines are kept), or give another "
                    "--workdir.")


def recorded_step(workdir: Path) -> int:
  """The last step that metrics.jsonl or progress.json tell of; 0 for none."""
  steps = [_progress(workdir).get("step", 0)]
  for line in (line for file in jsonl.files(workdir / "metrics.jsonl") for line in jsonl.read_text(file).splitlines()):
    with contextlib.suppress(ValueError, KeyError, TypeError):
      steps.append(int(json.loads(line)["step"]))
  return max(steps)


def put_aside(workdir: Path, step: int, say: Callable[[str], None]) -> None:
  """Moves the lines of a run that has no checkpoint to go on from to WORKDIR/earlier/NUMBER, and says so.

  step: the last one that they tell of
  """
  numbers = [int(path.name) for path in (workdir / "earlier").glob("*") if path.name.isdecimal()]
  aside = workdir / "earlier" / str(max(numbers, default=0) + 1)
  paths.make(aside)
  for file in (file for name in FILES for file in jsonl.files(workdir / name)):
    (aside / file.name).write_bytes(file.read_bytes())   # and not renamed, which buckets cannot
    file.unlink()
  say(f"{workdir} tells of {step} steps and has no checkpoint to go on from: training begins again at step 1. The old "
      f"lines are in {aside}. If there were checkpoints, stop, and restore them and these lines.")
