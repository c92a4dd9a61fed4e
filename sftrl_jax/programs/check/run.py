"""`sftrl check`: tries the task and the parts of a run before hours are spent on them. It writes nothing.

First the expert plays the environment without a model (task_checks.py), then the parts run on the real mesh
(run_checks.py). Nothing here imports JAX until the configs are resolved: the first mistakes are printed in a second.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sftrl_jax.programs.config import nested, resolve
from sftrl_jax.programs.config.errors import AbortAllProcesses, ConfigError, as_path
from sftrl_jax.programs.experiment import run_config
from sftrl_jax.programs.experiment.run_config import verb_of


@dataclasses.dataclass(frozen=True)
class Case:
  """One run that is checked: its verb, its config FILE.py[:choice], and what is set on top of it.

  inside: the study's variant in distribution; "" for the first one.
  training: whether the training task may not hold what the shifted variants show; a study's base may.
  """

  name: str
  verb: str
  spec: str
  overrides: tuple[tuple[str, str], ...]
  inside: str = ""
  training: bool = True


def cases(spec: str, overrides: Sequence[tuple[str, str]]) -> list[Case]:
  """The run of a config, or of a study its first base and every method on it."""
  config = resolve.load(spec)
  verb = verb_of(config, overrides)
  if verb != "study":
    return [Case(spec, verb, spec, tuple(overrides))]
  from sftrl_jax.programs.study import config as study_config, runs
  section = resolve.resolve(config, overrides, study_config.SCHEMA).study
  study = resolve.build(study_config.StudyConfig, section, "config.study")
  chosen = []
  for run in runs.expand(dataclasses.replace(study, bases=1, seeds=1), Path("study")):
    verb, config_flag, _, *keys = run.words
    changed = dict(resolve.parse_overrides(keys))
    if run.needs:   # the base that it starts from is still to be trained
      changed["start"] = "scratch"
    chosen.append(Case(run.name, verb, config_flag.removeprefix("--config="), tuple(changed.items()), study.id,
                       training=bool(run.needs or not study.base)))
  return chosen


def threads(chosen: list[Case]) -> int:
  """CPU threads of the first run, as its command will set them; anything strange is an error when it is resolved."""
  case = chosen[0]
  mesh = resolve.load(case.spec).get("mesh", {})
  value = dict(case.overrides).get("mesh.cpu_threads", mesh.get("cpu_threads", 0) if hasattr(mesh, "get") else 0)
  return int(value) if str(value).isdecimal() else 0


def run(chosen: list[Case], plan: str = "", within: str = "", scratch: Path | None = None) -> None:
  """Prints a line a check; of several processes the first one does. Raises ConfigError at the end when one failed.

  plan: the file of a plan that the steps are compared with
  within: how many times the planned seconds and memory are accepted
  scratch: where the steps may write meanwhile
  """
  if plan and len(chosen) > 1:
    raise ConfigError(f"--plan={plan} is of one run, but this is a study of {len(chosen)}: check them one by one.")
  planned = None
  if within and not plan:
    raise ConfigError(f"--within={within} says how far a step may be from its plan: give the --plan=FILE too.")
  if plan:
    from sftrl_jax.programs.check import plan_check
    planned = plan_check.read(as_path(plan, "--plan"), within or str(plan_check.WITHIN))
  resolved = [(case, _resolved(case)) for case in chosen]
  from sftrl_jax.parallel import hosts
  say = (lambda line: print(line, flush=True)) if hosts.is_first_process() else (lambda line: None)
  failed = count = 0
  seen: set[str] = set()
  for case, config in resolved:
    say(f"{case.name} ({case.verb})")
    for result in _check(case, config, seen, planned, scratch, say):
      count, failed = count + 1, failed + (not result.ok)
      say(f"  {'ok    ' if result.ok else 'FAILED'}  {result.name}: {result.message}")
      if not result.ok and result.way_out:
        say(f"          -> {result.way_out}")
  if failed:
    raise AbortAllProcesses(f"{failed} of {count} checks failed; each says above what to mend.")
  say(f"All {count} checks passed.")


def _resolved(case: Case) -> ConfigDict:
  from sftrl_jax.programs.start import checkpoint_ref
  config = run_config.resolve_for(case.verb, resolve.load(case.spec), case.overrides)
  with config.unlocked():
    config.start = checkpoint_ref.resolve_best(config.start)
  return config


def _check(case: Case, config: ConfigDict, seen: set[str], planned, scratch: Path | None, say) -> Iterator:
  """Yields the results of one run as they come, because a check may take minutes.

  seen: configs of tasks that were checked before; such a task is not checked again
  """
  from sftrl_jax.programs.check import task_checks
  plain = json.loads(json.dumps(nested.plain(config)))
  task = {key: plain[key] for key in ("env", "reward", "evals", "tokenizer", "data") if key in plain}
  task["rollout"] = {key: value for key, value in plain["rollout"].items() if key.endswith("tokens")}
  key = json.dumps([task, case.inside, case.training], sort_keys=True)
  results = []
  if key in seen:
    say("          the task is the same as above")
  else:
    seen.add(key)
    for result in task_checks.examine({**plain, **task}, case.inside, case.training):
      results.append(result)
      yield result
  if any(result.fatal for result in results):
    say("          the run's parts are tried when this is mended")
    return
  from sftrl_jax.programs.check import run_checks
  yield from run_checks.attempt(config, case.verb, planned, scratch)
