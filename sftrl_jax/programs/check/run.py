"""`sftrl check`: checks a task and a run's parts before hours are spent on them. Writes nothing.

First the task's expert plays it without a model (task_checks.py), then the parts are tried on the real mesh
(run_checks.py). Nothing here imports JAX before the configs are resolved: the first mistakes are printed in a second.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sftrl_jax.programs.check import plan_check
from sftrl_jax.programs.check.task_checks import CheckResult, check_task
from sftrl_jax.programs.config import nested, resolve
from sftrl_jax.programs.config.errors import AbortAllProcesses, ConfigError, as_path
from sftrl_jax.programs.experiment.run_config import resolve_for, verb_of
from sftrl_jax.programs.runtime.process import cpu_threads
from sftrl_jax.programs.start import checkpoint_ref

Overrides = Sequence[tuple[str, str]]   # (dotted key, text)


@dataclasses.dataclass(frozen=True)
class Case:
  """One run to check: its verb, its config FILE.py[:choice], and overrides.

  id_variant: the study's variant in distribution; "" for the first one
  training: whether the training task may share no episode with the shifted variants; False for a study's base
  """

  name: str
  verb: str
  spec: str
  overrides: tuple[tuple[str, str], ...]
  id_variant: str = ""
  training: bool = True


def cases(spec: str, overrides: Overrides) -> list[Case]:
  """Returns the run of a config; of a study, its first base and every method on it."""
  config = resolve.load(spec)
  verb = verb_of(config, overrides)
  if verb != "study":
    return [Case(spec, verb, spec, tuple(overrides))]
  from sftrl_jax.programs.study import config as study_config, runs
  section = resolve.resolve(config, overrides, study_config.SCHEMA).study
  study = resolve.build(study_config.StudyConfig, section, "config.study")
  result = []
  for run in runs.expand(dataclasses.replace(study, bases=1, seeds=1), Path("study")):
    verb, config_flag, _, *keys = run.words
    changes = dict(resolve.parse_overrides(keys))
    if run.needs:   # the base that it starts from is still to be trained
      changes["start"] = "scratch"
    result.append(Case(run.name, verb, config_flag.removeprefix("--config="), tuple(changes.items()), study.id,
                       training=bool(run.needs or not study.base)))
  return result


def threads(chosen: Sequence[Case]) -> int:
  """Returns the CPU threads of the first run, as its own command will set them."""
  return cpu_threads(resolve.load(chosen[0].spec).to_dict(), chosen[0].overrides)


def run(chosen: Sequence[Case], plan: str = "", within: str = "", scratch: Path | None = None) -> None:
  """Runs all checks and prints a line for each; of several processes the first one prints.

  plan: a plan.json; the steps are compared with it
  within: a step may take so many times its plan
  scratch: where the steps write meanwhile, see run_checks.check_run

  Raises ConfigError for wrong arguments, and AbortAllProcesses at the end if a check has failed.
  """
  if plan and len(chosen) > 1:
    raise ConfigError(f"--plan={plan} is of one run, but this is a study of {len(chosen)}: check them one by one.")
  if within and not plan:
    raise ConfigError(f"--within={within} says how far a step may be from its plan: give the --plan=FILE too.")
  planned = plan_check.read_plan(as_path(plan, "--plan"), within) if plan else None
  resolved = [(case, _resolved(case)) for case in chosen]
  from sftrl_jax.parallel import hosts
  say = (lambda line: print(line, flush=True)) if hosts.is_first_process() else (lambda line: None)
  failed = total = 0
  checked_tasks = set()
  for case, config in resolved:
    say(f"{case.name} ({case.verb})")
    for result in _results(case, config, checked_tasks, planned, scratch, say):
      total, failed = total + 1, failed + (not result.ok)
      say(f"  {'ok    ' if result.ok else 'FAILED'}  {result.name}: {result.message}")
      if not result.ok and result.way_out:
        say(f"          -> {result.way_out}")
  if failed:
    raise AbortAllProcesses(f"{failed} of {total} checks failed; each says above what to mend.")
  say(f"All {total} checks passed.")


def _resolved(case: Case) -> ConfigDict:
  config = resolve_for(case.verb, resolve.load(case.spec), case.overrides)
  with config.unlocked():
    config.start = checkpoint_ref.resolve_best(config.start)
  return config


def _results(case: Case, config: ConfigDict, checked_tasks: set[str], planned: plan_check.PlannedStep | None,
             scratch: Path | None, say: Callable[[str], None]) -> Iterator[CheckResult]:
  """Runs the checks of one run and yields each result as soon as it is there.

  checked_tasks: tasks of earlier runs as JSON, which are not checked again; gets this one's
  """
  plain = json.loads(json.dumps(nested.plain(config)))
  task = {key: plain[key] for key in ("env", "reward", "own_reward", "evals", "tokenizer", "data") if key in plain}
  task["rollout"] = {key: value for key, value in plain["rollout"].items() if key.endswith("tokens")}
  key = json.dumps([task, case.id_variant, case.training], sort_keys=True)
  fatal = False
  if key in checked_tasks:
    say("          the task is the same as above")
  else:
    checked_tasks.add(key)
    for result in check_task({**plain, **task}, case.id_variant, case.training):
      fatal |= result.fatal
      yield result
  if fatal:
    say("          the run's parts are tried when this is mended")
    return
  from sftrl_jax.programs.check import run_checks  # imports JAX
  yield from run_checks.check_run(config, case.verb, planned, scratch)
