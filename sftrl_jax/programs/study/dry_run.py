"""The dry run of a study: it builds every part of every run before the first one starts, and writes nothing.

It has a process of its own, because parts ask for devices: an accelerator serves one process at a time, and the
process of the study lives as long as its runs.
"""

import contextlib
import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sftrl_jax.envs.env import Env, labels_of
from sftrl_jax.programs.config import resolve, user_files
from sftrl_jax.programs.config.errors import ConfigError, nearest
from sftrl_jax.programs.experiment.run_config import resolve_run
from sftrl_jax.programs.study.process_pool import ChildRun

if TYPE_CHECKING:   # it imports JAX
  from sftrl_jax.programs.experiment.experiment import Experiment

COMMAND = (sys.executable, "-m", "sftrl_jax.programs.study.dry_run")
# Keys in which runs of one method differ. No other part depends on them, so that such runs share their parts.
RUN_KEYS = ("seed", "start", "mesh.cpu_threads", "log.report")
REWARD = "reward_model.start"   # its run has to be finished, so that this key is left out, and its cost with it
COST = ("reward_model.flops", "0")


@dataclasses.dataclass(frozen=True)
class RunCommand:
  """The words of a run, parsed.

  spec: FILE.py[:choice][:smoke]
  overrides: ((dotted key, text), ...)
  """

  verb: str
  spec: str
  workdir: Path
  overrides: tuple[tuple[str, str], ...]


def refuse(cases: Iterable[tuple[str, ChildRun]], claimed: Mapping[str, Sequence[str]]) -> None:
  """ConfigError that lists every run which could not begin, with the reason. RuntimeError if the dry run itself fails.

  cases: (method or "base", run), a base before the runs that need it
  claimed: {method: the parts of verdicts that claims about it have as their measure}
  """
  payload = json.dumps([[(method, run.name, run.words, run.needs) for method, run in cases], dict(claimed)])
  child = subprocess.run(COMMAND, input=payload, capture_output=True, text=True, check=False)
  if child.returncode:
    raise RuntimeError(f"The dry run of the study's configs failed:\n{child.stderr[-2000:].strip()}")
  mistakes = json.loads(child.stdout.splitlines()[-1])
  if mistakes:
    raise ConfigError("\n".join(f"{', '.join(methods)} of the study, {spec}: {message}"
                                for spec, message, methods in mistakes))


def main() -> None:
  """Reads cases from stdin and prints the mistakes as [(config file, message, [method, ...]), ...]."""
  with contextlib.redirect_stdout(io.StringIO()):   # of stdout, the parent reads the last line alone
    mistakes = find_mistakes(*json.load(sys.stdin))
  print(json.dumps([(*mistake, methods) for mistake, methods in mistakes.items()]))


def find_mistakes(cases: Iterable[tuple[str, str, Sequence[str], str]], claimed: Mapping[str, Sequence[str]]
                  ) -> dict[tuple[str, str], list[str]]:
  """{(config file, message): [method, ...]} of the runs that could not begin.

  cases: (method or "base", name, words, needs), as in `refuse`. A run whose base cannot begin adds no mistake.
  claimed: as in `refuse`
  """
  built, mistakes = {}, {}
  for method, name, words, needs in cases:
    verb, config, workdir, *overrides = words
    spec, home = (word.partition("=")[2] for word in (config, workdir))
    # What a run of `prepares` will have written is one place for all bases, whose runs share their parts.
    command = RunCommand(verb, spec, Path(home), tuple(
        COST if key == REWARD else (key, text.replace(f"/{needs}/", "/prepared/") if needs and key != "start" else text)
        for key, text in resolve.parse_overrides(overrides) if key != COST[0]))
    if needs and built.get(needs, "") is None:
      continue
    try:
      built[name] = _build_run(command, built, built.get(needs))
      _refuse_unknown_parts(claimed.get(method, ()), built[name].env)
    except (ValueError, OSError) as error:
      built[name] = None
      methods = mistakes.setdefault((spec, str(error)), [])
      methods += [method] if method not in methods else []
  return mistakes


def _build_run(command: RunCommand, built: dict, base: "Experiment | None") -> "Experiment":
  """The parts of a run, shared by all runs of its method. ValueError or OSError for a run that could not begin.

  built: {run name: its parts, or None for a mistake}, and {method's key: its parts, or the mistake}; this adds to it
  base: the parts of the base that the run starts from, if the study trains one
  """
  from sftrl_jax.programs.start import initial_params
  method = (command.verb, command.spec, tuple(pair for pair in command.overrides if pair[0] not in RUN_KEYS))
  if method not in built:
    built[method] = _build_method(command, base)
  experiment = built[method]
  if isinstance(experiment, Exception):
    raise experiment
  if base:
    _refuse_other_model(base, experiment)
  else:
    initial_params.check_start(dict(command.overrides).get("start", experiment.start), experiment.model)
  user_files.refuse_changed(experiment.config, command.workdir)
  return experiment


def _build_method(command: RunCommand, base: "Experiment | None") -> "Experiment | Exception":
  """The parts, or the mistake that keeps them from being built and holds for every run of the method.

  The base is not trained yet, so the run is built with the start of its base in the base's place.
  """
  from sftrl_jax.programs.experiment import build
  if base:
    overrides = (pair for pair in command.overrides if pair[0] != "start")
    command = dataclasses.replace(command, overrides=(*overrides, ("start", base.config["start"])))
  try:
    config, _ = resolve_run(command.spec, command.overrides, command.verb)
    return build.build_experiment(config, command.verb)
  except (ValueError, OSError) as error:
    return error


def _refuse_unknown_parts(claimed: Sequence[str], env: Env) -> None:
  """ConfigError for a claim about a part of verdicts that the task has no label for."""
  known = labels_of(env)["parts"]
  for part in claimed:
    if part not in known:
      raise ConfigError(f"a claim of config.study.claims has the measure {part!r}, which is none of this task"
                        f"{nearest(part, ('success', 'per_step', *known))}")


def _refuse_other_model(base: "Experiment", experiment: "Experiment") -> None:
  """ConfigError where the base's parameters do not fit the model of a run that starts from them."""
  import jax

  from sftrl_jax import trees
  shapes = []
  for part in (base, experiment):
    params = jax.eval_shape(part.model.init, jax.random.key(0))
    shapes.append({path: leaf.shape for path, leaf in trees.leaves(params).items()})
  if shapes[0] != shapes[1]:
    base_model, model = (dataclasses.asdict(part.model.config) for part in (base, experiment))
    key = next(key for key in model if model[key] != base_model.get(key))
    raise ConfigError(f"config.model.{key} is {model[key]!r}, but {base_model.get(key)!r} in the base: a run needs the "
                      "model that its base was trained with.")


if __name__ == "__main__":
  main()
