"""From FILE.py and overrides to the resolved config of one run, with the process prepared for JAX on the way.

At module level this file imports no JAX: XLA reads the number of CPU threads when JAX is imported, and the config says
how many there are.
"""

import os
from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from sftrl_jax.programs.config import resolve, smoke
from sftrl_jax.programs.runtime.process import cpu_threads, prepare_environment

Overrides = Sequence[tuple[str, str]]   # ((dotted key, text), ...), in the order of the command line
# The key that only configs of this verb have; a config with none of them is for the default.
VERB_OF_KEY = {"study": "study", "algorithm": "rl", "objective": "preference"}
DEFAULT_VERB = "sft"


def verb_of(config: Mapping, overrides: Overrides = ()) -> str:
  """The verb that a config is for, by the keys of the file and of the command line.

  config: of a file, not yet resolved
  overrides: ((dotted key, text), ...)
  """
  given = {*config, *(path for path, _ in overrides if path != "study")}
  return next((verb for key, verb in VERB_OF_KEY.items() if key in given), DEFAULT_VERB)


def resolve_run(spec: str, overrides: Overrides, verb: str = "") -> tuple[ConfigDict, dict]:
  """(resolved config, schema) of a run; sets the environment that JAX reads before JAX is imported.

  spec: FILE.py[:choice][:smoke]
  overrides: ((dotted key, text), ...)
  verb: a key of kinds.KINDS; "" for the one that the config is for

  Raises ConfigError naming key, value and rule.
  """
  config = resolve.load(spec)
  if smoke.split(spec)[2]:
    for name, value in smoke.ENVIRONMENT.items():
      os.environ.setdefault(name, value)
  verb = verb or verb_of(config, overrides)
  prepare_environment(cpu_threads(config.to_dict(), overrides))
  resolved = resolve_for(verb, config, overrides)
  from sftrl_jax.programs.experiment.kinds import KINDS
  return resolved, KINDS[verb].schema


def resolve_for(verb: str, config: Mapping, overrides: Overrides,
                note: Callable[[str], None] = print) -> ConfigDict:
  """`resolve` with the schema of a kind of training. Imports JAX, so CPU threads have to be decided before.

  note: called with a sentence for every override that replaces more than it names (another optimizer, say)
  """
  from sftrl_jax.programs.experiment.kinds import KINDS
  from sftrl_jax.training.optimizers.optimizer import kind_of, swap
  given = {path.removeprefix("optimizer.") for path, _ in overrides if path.startswith("optimizer.")}
  changes = {"optimizer.name": lambda section, name: swap(section, name, given)} if "name" in given else {}
  return resolve.resolve(config, overrides, KINDS[verb].schema, changes, note, {"optimizer.args": kind_of})
