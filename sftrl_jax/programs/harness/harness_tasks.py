"""Tasks of lm-eval, EleutherAI's harness: its own, and those of a user's YAML files. All are loaded, with their data,
before a model is.

A YAML file of the user's task_path may name Python functions (`!function`), which run here: it is the user's own code.
"""

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import getstate, seed as seed_python, setstate
from typing import Any

from numpy.random import get_state, seed as seed_numpy, set_state

from sftrl_jax.parallel import hosts
from sftrl_jax.programs.config.errors import AbortAllProcesses, ConfigError, first_line
from sftrl_jax.programs.harness.task_options import TaskOptions

PACKAGE = "lm_eval"
INSTALL = "pip install 'sftrl-jax[eval]'"
MOST_NEW_TOKENS = 256   # of a response, where a task does not say, as in lm-eval
PYTHON_SEED, SEED = 0, 1234   # the harness's own, of its global generators and of few-shot examples
# What a task may say of generation. Beams are another decoder's; others have no meaning here.
LENGTH_KEYS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
SAMPLING_KEYS = {"until", "do_sample", "temperature", "top_k", "top_p", *LENGTH_KEYS}
WITHOUT_EFFECT = {"num_beams": 1, "repetition_penalty": 1, "length_penalty": 1}   # at these values


def check_installed(options: TaskOptions) -> None:
  """ConfigError where lm-eval is not installed."""
  if importlib.util.find_spec(PACKAGE) is None:
    raise ConfigError(f"{options.name_of('tasks')} needs the package lm-eval, which is not installed: {INSTALL}.")


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedTasks:
  """Tasks of lm-eval with their data, and how they are asked.

  tasks, groups: by name, as lm-eval's evaluator takes them
  generators: states of Python's and NumPy's global generators after loading, from which some tasks draw on
  """

  options: TaskOptions
  tasks: dict[str, Any]
  groups: dict[str, Any]
  generators: tuple[Any, Any]

  def restart(self) -> None:
    """All draws begin as after loading: whoever asks again, at a later step or after a resume, asks the same."""
    for task in self.tasks.values():
      task.set_fewshot_seed(seed=SEED)
    setstate(self.generators[0])
    set_state(self.generators[1])


def load(options: TaskOptions) -> LoadedTasks:
  """The tasks, few-shot examples chosen. ConfigError for a name that is none, for data that is not there, and for a
  task that cannot be asked."""
  check_installed(options)
  # A pool that is forked beside JAX's threads may never return.
  os.environ.setdefault("DISABLE_MULTIPROC", "1")
  managers = _managers(options)
  tasks, groups = {}, {}
  seed_python(PYTHON_SEED)   # some tasks shuffle their choices while they are loaded
  seed_numpy(SEED)
  for name in options.tasks:
    try:
      loaded = managers[name].load([name])
    except Exception as error:   # of any type: of the network, of files, of a user's own function
      raise ConfigError(_not_loaded(name, error, options)) from error
    tasks |= loaded["tasks"]
    groups |= loaded["groups"]
  for name, task in tasks.items():
    _refuse(name, task, options)
    _set_shots(task, options.shots)
  return LoadedTasks(options, tasks, groups, (getstate(), get_state()))


def load_together(options: TaskOptions) -> LoadedTasks:
  """`load` in every process, sorted by name. AbortAllProcesses where one cannot load them, or loads other requests."""
  if not hosts.several():
    return load(options)
  loaded, message = None, ""
  try:
    loaded = load(options)
    # Python orders sets of names otherwise in every process.
    loaded = dataclasses.replace(loaded, tasks=dict(sorted(loaded.tasks.items())))
  except ConfigError as error:
    message = str(error)
  records = hosts.gathered([message, digest(loaded) if loaded else ""])
  for process, (theirs, _) in enumerate(records):
    if theirs:
      raise AbortAllProcesses(message or f"Process {process} cannot ask these tasks: {first_line(ValueError(theirs))}")
  apart = [process for process, (_, theirs) in enumerate(records) if theirs != records[0][1]]
  if apart:
    raise AbortAllProcesses(f"{options.name_of('tasks')}={','.join(options.tasks)}: process {apart[0]} would ask other "
                            "requests than process 0: give all of them the same lm-eval, the same data (HF_HOME) and "
                            f"the same files of {options.name_of('task_path')}.")
  return loaded


@contextlib.contextmanager
def bars_on_terminals() -> Iterator[None]:
  """lm-eval's bar of requests, one a task, is for a terminal of the first process, as ours are: every evaluation of a
  run would print it into a log."""
  from lm_eval.api import task
  bar = task.tqdm   # evaluate() has no flag for it
  task.tqdm = functools.partial(bar, disable=None if hosts.is_first_process() else True)
  try:
    yield
  finally:
    task.tqdm = bar


def digest(loaded: LoadedTasks) -> str:
  """sha256 of all requests, without chat templates."""
  sha256 = hashlib.sha256()
  loaded.restart()
  for name, task in loaded.tasks.items():
    with bars_on_terminals():
      task.build_all_requests(limit=loaded.options.limit or None)
    for instance in task.instances:
      sha256.update(json.dumps([name, instance.request_type, instance.args], default=str).encode())
  return sha256.hexdigest()


def requests(tasks: Iterable[Any], options: TaskOptions) -> Iterable[tuple[str, str]]:
  """(name of the task, a text) of all that will be read: contexts, and what stands behind them with its context."""
  for task in tasks:
    with bars_on_terminals():
      task.build_all_requests(limit=options.limit or None)
    for instance in task.instances:
      texts = [text for text in instance.args if isinstance(text, str)]
      yield from ((task.task_name, text) for text in dict.fromkeys((texts[0], "".join(texts))))
    task.set_fewshot_seed(seed=SEED)   # these requests are made once more


def most_new_tokens(task: Any) -> int:
  """Tokens of a response at most; 0 for a task that has none written."""
  if task.OUTPUT_TYPE != "generate_until":
    return 0
  asked = task.config.generation_kwargs or {}
  return int(next((asked[key] for key in LENGTH_KEYS if asked.get(key) is not None), MOST_NEW_TOKENS))


def _managers(options: TaskOptions) -> dict[str, Any]:
  """Of every name that is asked, the lm-eval TaskManager that loads it. ConfigError for a name that none has.

  A single task comes from the index of the user's files, or from lm-eval's own. A group or a tag may name tasks of
  both, and needs an index of both. lm-eval's own is read only where it is needed: its files are many.
  """
  from lm_eval.tasks import TaskManager
  from lm_eval.tasks._index import Kind
  folder, both = options.task_path, functools.cache(lambda: TaskManager(include_path=folder))
  if folder and not Path(folder).is_dir():
    raise ConfigError(f"{options.name_of('task_path')}={folder} is no directory: give one with YAML files of tasks.")
  own = TaskManager(include_path=folder, include_defaults=False) if folder else _shipped()
  single = lambda entry: entry.kind in (Kind.TASK, Kind.PY_TASK)

  def manager_of(name: str) -> Any:
    entry = own.task_index.get(name)
    if entry and (single(entry) or not folder):
      return own
    shipped = _shipped().task_index.get(name)
    if not entry and not shipped:
      raise ConfigError(_unknown(name, sorted({*own.all_tasks, *_shipped().all_tasks}), options))
    return both() if entry or not single(shipped) else _shipped()

  return {name: manager_of(name) for name in options.tasks}


@functools.cache
def _shipped() -> Any:
  """The index of lm-eval's own tasks, which takes many seconds to make."""
  from lm_eval.tasks import TaskManager
  return TaskManager()


def _unknown(name: str, names: list[str], options: TaskOptions) -> str:
  import lm_eval
  near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
  where = f"lm-eval {lm_eval.__version__}"
  if options.task_path:
    where += f" or of {options.name_of('task_path')}={options.task_path}"
  guess = f": did you mean {' or '.join(near)}?" if near else (
      f": see its list of tasks, or give {options.name_of('task_path')}=DIR.")
  return f"{options.name_of('tasks')} names {name!r}, which is no task of {where} ({len(names)} names){guess}"


def _not_loaded(name: str, error: Exception, options: TaskOptions) -> str:
  way_out = ("paths in its YAML file are relative to the directory of this command" if options.task_path else
             "data comes from the Hugging Face Hub, or from its cache (HF_HOME) once it has been there")
  return (f"{options.name_of('tasks')}={name}: this task, or its data, cannot be read: "
          f"{first_line(error).rstrip('.')}. Note that {way_out}.")


def _refuse(name: str, task: Any, options: TaskOptions) -> None:
  """ConfigError for a task that a decoder of texts cannot be asked, or that is not safe to ask."""
  where = f"{options.name_of('tasks')}={name}"
  if getattr(task, "UNSAFE_CODE", False):
    raise ConfigError(f"{where}: the task runs the code that a model writes, which is not done here: use "
                      "lm-eval itself, in a sandbox, on a model of `sftrl convert`.")
  if getattr(task, "MULTIMODAL", False):
    raise ConfigError(f"{where}: the task shows pictures or sounds, and is asked of texts only here: leave it "
                      "out.")
  asked = task.config.generation_kwargs or {} if task.OUTPUT_TYPE == "generate_until" else {}
  for key, value in asked.items():
    if key not in SAMPLING_KEYS and value != WITHOUT_EFFECT.get(key, ...):
      raise ConfigError(f"{where}: its generation_kwargs has {key}: {value!r}, which this sampler lacks; known "
                        f"are {', '.join(sorted(SAMPLING_KEYS))}. Copy the task's YAML file into a "
                        f"{options.name_of('task_path')} without it.")


def _set_shots(task: Any, shots: int) -> None:
  """Examples before each question, as lm-eval's own command sets them: 0 in a task's file stays 0."""
  own = task.get_config("num_fewshot")
  if own is None or (shots >= 0 and own != 0):
    task.set_config(key="num_fewshot", value=max(0, shots))
  task.set_fewshot_seed(seed=SEED)
