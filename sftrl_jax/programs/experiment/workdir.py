"""A workdir held by one writer, with its config and its environment's labels recorded."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import jax

from sftrl_jax import paths
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
from sftrl_jax.training.log import Log, write_json


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
        yield log, stop
    finally:
      watchdog.close()
      log.close()


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
    user_files.refuse_changed(experiment.config, workdir)
  paths.make(workdir)
  held.enter_context(only_writer(workdir))
  if not path.is_file() or differences(recorded(workdir), record):
    write_json(path, record)
  write_json(workdir / "labels.json", labels_of(experiment.env))   # for reports, which import no environment
  user_files.record(experiment.config, workdir)
  if experiment.config["model"]["name"] == pretrained.NAME:
    pretrained.keep(workdir, experiment.start, experiment.model.config, experiment.tokenizer)


def complete(workdir: Path, experiment: Experiment) -> bool:
  """Whether the run in this workdir has reached the end that this config asks for."""
  path = workdir / "progress.json"
  progress = json.loads(path.read_text()) if path.is_file() else {}
  wanted = {"phase": "complete", "steps": experiment.limits.steps, "flops": experiment.limits.flops}
  return all(progress.get(key) == value for key, value in wanted.items())
