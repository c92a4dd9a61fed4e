"""The runs of a study tried before the first of them begins: every part is built, nothing is written.

In a process of its own: parts ask for devices, an accelerator has room for one process, and a study outlives its runs.
"""

import contextlib
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.run_config import resolve_run

COMMAND = (sys.executable, "-m", "sftrl_jax.programs.study.dry_run")
# Keys in which runs of one method differ, and which no other part depends on.
OF_A_RUN = ("seed", "start", "mesh.cpu_threads", "log.report")


@dataclasses.dataclass(frozen=True)
class Command:
  """The words of a run, taken apart."""

  verb: str
  flags: dict
  overrides: tuple[tuple[str, str], ...]


def refuse(cases) -> None:
  """ConfigError that tells of every run that could not begin.

  cases: [(who, run), ...], the runs as pool.Run, a base before the runs that need it.
  """
  asked = json.dumps([(who, run.name, run.words, run.needs) for who, run in cases])
  done = subprocess.run(COMMAND, input=asked, capture_output=True, text=True, check=False)
  if done.returncode:
    raise RuntimeError(f"The configs of the study could not be tried:\n{done.stderr[-2000:].strip()}")
  wrong = json.loads(done.stdout.splitlines()[-1])
  if wrong:
    raise ConfigError("\n".join(f"{', '.join(whose)} of the study, {spec}: {message}"
                                for spec, message, whose in wrong))


def main() -> None:
  """Reads cases from stdin and prints what is wrong as [(config file, message, [who, ...]), ...]."""
  with contextlib.redirect_stdout(io.StringIO()):
    found = mistakes_of(json.load(sys.stdin))
  print(json.dumps([(*told, whose) for told, whose in found.items()]))


def mistakes_of(cases) -> dict:
  """{(config file, message): [who, ...]} of the runs that could not begin; a method is told of once."""
  built, found = {}, {}
  for who, name, words, needs in cases:
    verb, config, workdir, *overrides = words
    flags = dict(word.split("=", 1) for word in (config, workdir))
    command = Command(verb, flags, tuple(resolve.parse_overrides(overrides)))
    if needs and built.get(needs, "") is None:
      continue   # its base has been told of
    try:
      built[name] = _tried(command, built, built.get(needs))
    except (ValueError, OSError) as error:
      built[name] = None
      whose = found.setdefault((command.flags["--config"], str(error)), [])
      whose += [who] if who not in whose else []
  return found


def _tried(command, built, base):
  """The parts of a run, those of another of the same method if there are any; ValueError for a run that cannot be."""
  from sftrl_jax.programs.config import user_files
  from sftrl_jax.programs.start import initial_params
  method = (command.verb, command.flags["--config"],
            tuple(pair for pair in command.overrides if pair[0] not in OF_A_RUN))
  if method not in built:
    built[method] = _parts(command, base)
  experiment = built[method]
  if isinstance(experiment, Exception):
    raise experiment
  if base:
    _same_model(base, experiment)
  else:
    initial_params.check_start(dict(command.overrides).get("start", experiment.start), experiment.model)
  user_files.refuse_changed(experiment.config, Path(command.flags["--workdir"]))
  return experiment


def _parts(command, base):
  """The parts, or the mistake that keeps them from being built, which holds for every run of the method.

  A base that is yet to be trained is stood in for by what it starts from.
  """
  from sftrl_jax.programs.experiment import build
  if base:
    given = (pair for pair in command.overrides if pair[0] != "start")
    command = dataclasses.replace(command, overrides=(*given, ("start", base.config["start"])))
  try:
    config, _ = resolve_run(command.flags["--config"], command.overrides, command.verb)
    return build.build_experiment(config, command.verb)
  except (ValueError, OSError) as error:
    return error


def _same_model(base, experiment) -> None:
  """ConfigError where the base's parameters would not fit the model that begins with them."""
  import jax

  from sftrl_jax import trees
  shapes = [{path: leaf.shape for path, leaf in trees.leaves(jax.eval_shape(
      each.model.init, jax.random.key(0))).items()} for each in (base, experiment)]
  if shapes[0] != shapes[1]:
    there, here = (dataclasses.asdict(each.model.config) for each in (base, experiment))
    key = next(key for key in here if here[key] != there.get(key))
    raise ConfigError(f"config.model.{key} is {here[key]!r}, but {there.get(key)!r} in the base: a run needs the model "
                      "that its base was trained with.")


if __name__ == "__main__":
  main()
