"""Which tasks are asked and how: the flags of `sftrl evaluate FROM --tasks=...`, or keys of config.evals."""

import dataclasses
from collections.abc import Mapping, Set

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.config.values import LARGEST
from sftrl_jax.programs.experiment.sections import EvalsConfig

FLAGS = ("--limit", "--shots", "--task_path", "--dtype")   # besides --tasks
SWITCHES = ("--chat",)
EXCLUDED = ("--interpolate", "--weights")
# What options are called in a config, beside the flags of their names.
CONFIG_KEYS = {"tasks": "evals.tasks", "task_path": "evals.task_path", "limit": "evals.task_limit",
               "shots": "evals.task_shots", "chat": "evals.task_chat"}


@dataclasses.dataclass(frozen=True)
class TaskOptions:
  """What is asked of a model.

  tasks: names of tasks, groups and tags of lm-eval, or of the YAML files in task_path
  limit: documents of a task, the first ones (0: all)
  shots: examples before each question (-1: the task's own number)
  task_path: a directory of a user's own task files ("": none)
  chat: whether prompts are written by the model's chat template
  dtype: as of open_decoder.open_decoder
  of_config: whether a config names them, and not a command line
  """

  tasks: tuple[str, ...]
  limit: int = 0
  shots: int = -1
  task_path: str = ""
  chat: bool = False
  dtype: str = ""
  of_config: bool = False

  def name_of(self, option: str) -> str:
    """What errors call an option: a flag, or a key of the config."""
    return f"config.{CONFIG_KEYS[option]}" if self.of_config else f"--{option}"


def options_of(evals: EvalsConfig) -> TaskOptions | None:
  """The options that a run's config names; None where it asks no tasks."""
  if not evals.tasks:
    return None
  return TaskOptions(tuple(evals.tasks), evals.task_limit, evals.task_shots, evals.task_path, evals.task_chat,
                     of_config=True)


def read_options(flags: Mapping[str, str], switches: Set[str] = frozenset()) -> TaskOptions | None:
  """Reads the flags of a command line; None without --tasks. ConfigError for a wrong value, and for flags that do not
  go together."""
  if "--tasks" not in flags:
    for flag in (*FLAGS, *SWITCHES):
      if flag in flags or flag in switches:
        raise ConfigError(f"{flag} is of --tasks, which is not given: add --tasks=NAME,NAME.")
    return None
  for flag in EXCLUDED:
    if flag in flags or flag in switches:
      raise ConfigError(f"--tasks asks one model, and {flag} compares weights: give one of the two.")
  tasks = tuple(name for name in (name.strip() for name in flags["--tasks"].split(",")) if name)
  if not tasks:
    raise ConfigError(f"--tasks is {flags['--tasks']!r}; it must be names, with commas between.")
  repeated = next((name for name in tasks if tasks.count(name) > 1), "")
  if repeated:
    raise ConfigError(f"--tasks names {repeated} twice: name it once.")
  return TaskOptions(tasks, _number(flags, "--limit", 1, 0), _number(flags, "--shots", 0, -1),
                     flags.get("--task_path", ""), "--chat" in switches, flags.get("--dtype", ""))


def _number(flags: Mapping[str, str], flag: str, least: int, default: int) -> int:
  """The whole number of a flag."""
  text = flags.get(flag)
  if text is None:
    return default
  if not text.isdecimal() or not least <= int(text) <= LARGEST:
    raise ConfigError(f"{flag} is {text!r}; it must be a whole number from {least} to {LARGEST}.")
  return int(text)
