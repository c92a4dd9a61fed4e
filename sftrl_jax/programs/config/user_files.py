"""A user's own class or function, named in a config by path: `path/to/file.py:Name`. No registry, no fork."""

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from sftrl_jax import paths
from sftrl_jax.data.prompts import NAME as PROMPTS
from sftrl_jax.envs import guard
from sftrl_jax.envs.referee import last_line, where
from sftrl_jax.programs.config import nested
from sftrl_jax.programs.config.errors import ConfigError, nearest, read_json

# The keys of a config whose value may be a path.
KEYS = ("env.name", "model.name", "optimizer.name", "reward")
TASK_FILES = {".yaml", ".yml", ".py"}   # of evals.task_path
METHODS = ("reset", "step", "expert")
CONSTANTS = ("variants", "codes", "attempts", "words")
EXAMPLE = "see sftrl_jax/envs/README.md"
RECORD = "own.json"   # of a workdir: {file: its digest when the run began}


def is_path(name: Any) -> bool:
  """Whether a name of a config is `file.py:Name` (or a file without its `:Name`)."""
  return isinstance(name, str) and (name.endswith(".py") or ".py:" in name)


def absolute(name: str) -> str:
  """The name with an absolute path: a resume, an evaluation and a study's children may start in other directories."""
  path, colon, attribute = name.rpartition(":") if ".py:" in name else (name, "", "")
  return f"{Path(path).expanduser().resolve()}{colon}{attribute}"


def load(name: str, key: str) -> Any:
  """The object `Name` of `path/to/file.py:Name`. ConfigError names the file and line. key: of the config."""
  path, _, attribute = absolute(name).rpartition(":") if ".py:" in name else (absolute(name), "", "")
  file = Path(path)
  if not file.is_file():
    neighbours = sorted(map(str, file.parent.glob("*.py")))
    hint = nearest(path, neighbours) if neighbours else f"; paths are relative to {Path.cwd()}."
    raise ConfigError(f"{key} is {name!r}, but there is no file {path}{hint}")
  try:
    module = _module(path, file.stat().st_mtime_ns)
  except SyntaxError as error:
    raise ConfigError(f"{error.filename or path}, line {error.lineno}: {error.msg}.") from error
  except BaseException as error:   # sys.exit() there would look like a run that is complete
    if guard.is_signal(error):
      raise
    line = last_line(error, path) or path
    raise ConfigError(f"{line}: {guard.describe(error)}\n  {key} names this file.") from error
  names = [word for word, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
  if not attribute:
    raise ConfigError(f"{key} is {name!r}: say which name of the file is meant, as {name}:NAME. It defines "
                      f"{', '.join(names) or 'none'}.")
  if not hasattr(module, attribute):
    raise ConfigError(f"{key} is {name!r}, but {path} has no {attribute}{nearest(attribute, names)}")
  return getattr(module, attribute)


@functools.cache
def _module(path: str, modified_ns: int) -> ModuleType:
  """The file as a module, imported once a process and version of the file, so that a class stays the same class."""
  del modified_ns   # part of the cache's key: a changed file is imported again
  folder, stem = str(Path(path).parent), Path(path).stem
  name = f"_own_{stem}_{hashlib.sha256(path.encode()).hexdigest()[:8]}"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  if folder not in sys.path:
    sys.path.append(folder)   # last, so that the file may import its neighbours and these hide no package
  sys.modules[name] = module   # dataclasses look up the annotations of their fields there
  spec.loader.exec_module(module)
  return module


def environment(name: str, key: str = "config.env.name") -> type:
  """The class of an environment by path; ConfigError unless it has the methods and constants of envs/env.py."""
  kind = load(name, key)
  _refuse_unfrozen(kind, name, key, "an environment is a frozen dataclass, whose fields are the keys of config.env")
  missing = [f"{method}(...)" for method in METHODS if not callable(getattr(kind, method, None))]
  fields = {field.name for field in dataclasses.fields(kind)}
  missing += [word for word in CONSTANTS if word not in fields and not hasattr(kind, word)]
  if missing:
    raise ConfigError(f"{where(kind)}: {key} names this class, but it has no {', '.join(missing)}: {EXAMPLE}.")
  if "variant" not in fields:
    raise ConfigError(f"{where(kind)}: {key} names this class, but it has no field `variant`, by which training and "
                      f"shifted tasks are told apart: add `variant: str = \"train\"`; {EXAMPLE}.")
  return kind


def family(name: str, parent: type, key: str = "config.model.name") -> type:
  """The class of a model family by path; ConfigError unless it is a frozen dataclass derived from `parent`."""
  kind = load(name, key)
  _refuse_unfrozen(kind, name, key, "a model family is a frozen dataclass, whose fields are the keys of config.model")
  if not issubclass(kind, parent):
    raise ConfigError(f"{where(kind)}: {key} names this class, but a model family is derived from "
                      f"{parent.__module__}.{parent.__name__}: FLOPs, cache and value head read its numbers.")
  return kind


def instance(kind: type, make: Callable[[], Any]) -> Any:
  """make(), an instance of the user's class `kind`; an exception of its code becomes a ConfigError with its line."""
  try:
    return make()
  except ConfigError:
    raise
  except BaseException as error:
    if guard.is_signal(error):
      raise
    line = last_line(error, sys.modules[kind.__module__].__file__) or where(kind)
    raise ConfigError(f"{line}: {guard.describe(error)}") from error


def reward(name: str, key: str = "config.reward") -> Callable:
  """A reward function by path; ConfigError for anything else."""
  if not is_path(name):
    raise ConfigError(f"{key} is {name!r}, but should be path/to/file.py:function, called as "
                      "function(chat, response, verdict) -> float; leave it out for the environment's own rewards.")
  return _function(name, key, "def reward(chat, response, verdict) -> float")


def optimizer(name: str, key: str = "name") -> Callable:
  """A function by path that makes an optimizer; its arguments are checked in training/optimizers/catalogue.py."""
  return _function(name, key, "def make(learning_rate, ...) -> optax.GradientTransformation")


def _function(name: str, key: str, signature: str) -> Callable:
  """A function by path; ConfigError, with the signature, for anything else."""
  function = load(name, key)
  if not callable(function) or isinstance(function, type):
    raise ConfigError(f"{key} is {name!r}, of type {type(function).__name__}, but should be a function: {signature}.")
  return function


def _refuse_unfrozen(kind: Any, name: str, key: str, rule: str) -> None:
  """ConfigError unless `kind` is a frozen dataclass."""
  if not isinstance(kind, type):
    raise ConfigError(f"{key} is {name!r}, of type {type(kind).__name__}, which is no class: {rule}.")
  parameters = vars(kind).get("__dataclass_params__")
  if parameters is None or not parameters.frozen:
    raise ConfigError(f"{where(kind)}: {rule}: write @dataclasses.dataclass(frozen=True) above the class.")


def record(config: Mapping, workdir: Path) -> None:
  """Writes RECORD, once: the digests of the files that a run's config names by path."""
  files = digests(config)
  if files and not (workdir / RECORD).exists():
    paths.write_whole(workdir / RECORD, json.dumps(files, indent=2) + "\n")


def digests(config: Mapping) -> dict[str, str]:
  """{file: its digest} of the files that a resolved config names by path."""
  return {name: digest(name) for name in _files(config)}


def refuse_changed(config: Mapping, workdir: Path) -> None:
  """ConfigError when a file that the config names by path has changed since the run in this workdir began."""
  if not (workdir / RECORD).is_file():
    return
  before = read_json(workdir / RECORD, "delete it, or give another workdir")
  changed = [name for name in _files(config) if before.get(name, digest(name)) != digest(name)]
  if changed:
    raise ConfigError(f"{', '.join(changed)} has changed since the run in {workdir} began, so going on would mix two "
                      "tasks. Put the file back as it was, or give another --workdir; to go on with the changed file "
                      f"all the same, delete {workdir / RECORD}.")


def digest(name: str) -> str:
  """sha256 of a Python file's text without its get_config, whose result is in config.json, and without empty lines; of
  another file, of its bytes.

  It covers no file that this one imports.
  """
  if not name.endswith(".py"):
    with open(name, "rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  lines = Path(name).read_text().splitlines()
  for node in ast.parse("\n".join(lines)).body:
    if isinstance(node, ast.FunctionDef) and node.name == "get_config":
      lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
  return hashlib.sha256("\n".join(line for line in lines if line.strip()).encode()).hexdigest()


def _files(config: Mapping) -> list[str]:
  """The files that a resolved config names by path, each once; among them the file of its prompts, if that is one, and
  the files of its tasks."""
  flat = nested.flat(config)
  named = [nested.at(config, key) for key in KEYS if key in flat]
  prompts = [flat["env.path"]] if flat.get("env.name") == PROMPTS and Path(flat["env.path"]).is_file() else []
  folder = Path(flat.get("evals.task_path") or "") if flat.get("evals.tasks") else Path()
  tasks = sorted(str(file) for file in folder.rglob("*") if file.suffix in TASK_FILES) if folder != Path() else []
  paths_of_names = [absolute(name).rpartition(":")[0] for name in named if is_path(name)]
  return list(dict.fromkeys([*paths_of_names, *prompts, *tasks]))
