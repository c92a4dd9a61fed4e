"""A user's own class or function, which a config names by path: `path/to/file.py:Name`."""

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from sftrl_jax import paths
from sftrl_jax.envs.referee import last_line, where
from sftrl_jax.programs.config import nested
from sftrl_jax.programs.config.errors import ConfigError, nearest

# The keys that take a path.
KEYS = ("env.name", "model.name", "optimizer.name", "reward")
# Every environment has these, see envs/env.py.
METHODS = ("reset", "step", "expert")
CONSTANTS = ("variants", "codes", "attempts", "words")
EXAMPLE = "see sftrl_jax/envs/README.md"
RECORD = "own.json"   # in a workdir: {path of a user's file: its digest when the run began}


def is_path(name: Any) -> bool:
  """Whether a value of a config is `file.py:Name` (or a file whose `:Name` was forgotten)."""
  return isinstance(name, str) and (name.endswith(".py") or ".py:" in name)


def absolute(name: str) -> str:
  """The name with an absolute path: a resume, an evaluation or a run of a study may start in another directory."""
  path, colon, wanted = name.rpartition(":") if ".py:" in name else (name, "", "")
  return f"{Path(path).expanduser().resolve()}{colon}{wanted}"


def load(name: str, key: str) -> Any:
  """The object `Name` of `path/to/file.py:Name`. ConfigError with the file, and the line for an error inside it.

  key: the dotted key that has this name
  """
  path, _, wanted = absolute(name).rpartition(":") if ".py:" in name else (absolute(name), "", "")
  file = Path(path)
  if not file.is_file():
    files = sorted(map(str, file.parent.glob("*.py"))) if file.parent.is_dir() else []
    hint = nearest(path, files) if files else f"; paths are relative to {Path.cwd()}."
    raise ConfigError(f"{key} is {name!r}, but there is no file {path}{hint}")
  try:
    module = _module(path, file.stat().st_mtime_ns)
  except SyntaxError as error:
    raise ConfigError(f"{error.filename or path}, line {error.lineno}: {error.msg}.") from error
  except Exception as error:
    line = last_line(error, path) or path
    raise ConfigError(f"{line}: {type(error).__name__}: {error}\n  {key} names this file.") from error
  names = [word for word, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
  if not wanted:
    raise ConfigError(f"{key} is {name!r}: add the name of its class or function, as {name}:NAME. It defines "
                      f"{', '.join(names) or 'none'}.")
  if not hasattr(module, wanted):
    raise ConfigError(f"{key} is {name!r}, but {path} has no {wanted}{nearest(wanted, names)}")
  return getattr(module, wanted)


@functools.cache
def _module(path: str, changed: int) -> ModuleType:
  """The file as a module. The cache keeps a class the same class; `changed`, a time in ns, is only a key of it."""
  del changed
  folder, stem = str(Path(path).parent), Path(path).stem
  name = f"_own_{stem}_{hashlib.sha256(path.encode()).hexdigest()[:8]}"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  if folder not in sys.path:
    sys.path.append(folder)   # last, so that the file's neighbours can be imported and hide no other module
  sys.modules[name] = module   # dataclasses look up the annotations of their fields there
  spec.loader.exec_module(module)
  return module


def environment(name: str, key: str = "config.env.name") -> type:
  """The class of an environment by path. ConfigError unless it has the fields and methods of envs/env.py."""
  kind = load(name, key)
  _refuse_unfrozen(kind, name, key, "an environment is a frozen dataclass, whose fields are the keys of config.env")
  missing = [f"{method}(...)" for method in METHODS if not callable(getattr(kind, method, None))]
  fields = {field.name for field in dataclasses.fields(kind)}
  missing += [word for word in CONSTANTS if word not in fields and not hasattr(kind, word)]
  if missing:
    raise ConfigError(f"{where(kind)}: {key} names this class, but it has no {', '.join(missing)}: {EXAMPLE}.")
  if "variant" not in fields:
    raise ConfigError(f"{where(kind)}: {key} names this class, but it has no field `variant`, which separates training "
                      f"from shifted tasks: add `variant: str = \"train\"`; {EXAMPLE}.")
  return kind


def family(name: str, parent: type, key: str = "config.model.name") -> type:
  """The class of a model family by path. ConfigError unless it is a frozen dataclass derived from `parent`."""
  kind = load(name, key)
  _refuse_unfrozen(kind, name, key, "a model family is a frozen dataclass, whose fields are the keys of config.model")
  if not issubclass(kind, parent):
    raise ConfigError(f"{where(kind)}: {key} names this class, but a model family is derived from "
                      f"{parent.__module__}.{parent.__name__}: FLOPs, cache and value head read its numbers.")
  return kind


def create(kind: type, constructor: Callable[[], Any]) -> Any:
  """constructor(), an instance of a user's class. An error inside the class becomes a ConfigError with its line."""
  try:
    return constructor()
  except ConfigError:
    raise
  except Exception as error:
    line = last_line(error, sys.modules[kind.__module__].__file__) or where(kind)
    raise ConfigError(f"{line}: {type(error).__name__}: {error}") from error


def reward(name: str, key: str = "config.reward") -> Callable:
  """A reward function by path. ConfigError for another value."""
  if not is_path(name):
    raise ConfigError(f"{key} is {name!r}, but should be path/to/file.py:function, called as "
                      "function(chat, response, verdict) -> float; leave it out for the environment's own rewards.")
  function = load(name, key)
  if not callable(function) or isinstance(function, type):
    raise ConfigError(f"{key} is {name!r}, of type {type(function).__name__}, but should be a function: "
                      "def reward(chat, response, verdict) -> float.")
  return function


def optimizer(name: str, key: str = "name") -> Callable:
  """A function by path that returns an optimizer; training/optimizers/catalogue.py checks its arguments."""
  function = load(name, key)
  if not callable(function) or isinstance(function, type):
    raise ConfigError(f"{key} is {name!r}, of type {type(function).__name__}, but should be a function: "
                      "def make(learning_rate, ...) -> optax.GradientTransformation.")
  return function


def _refuse_unfrozen(kind: Any, name: str, key: str, rule: str) -> None:
  if not isinstance(kind, type):
    raise ConfigError(f"{key} is {name!r}, of type {type(kind).__name__}, which is no class: {rule}.")
  parameters = vars(kind).get("__dataclass_params__")
  if parameters is None or not parameters.frozen:
    raise ConfigError(f"{where(kind)}: {rule}: write @dataclasses.dataclass(frozen=True) above the class.")


def record(config: dict, workdir: Path) -> None:
  """Writes, once, the digests of the files that a run's config names by path."""
  files = digests(config)
  if files and not (workdir / RECORD).exists():
    paths.write_whole(workdir / RECORD, json.dumps(files, indent=2) + "\n")


def digests(config: dict) -> dict[str, str]:
  """{path: digest} of the files that a resolved config names."""
  return {name: digest(name) for name in _files(config)}


def refuse_changed(config: dict, workdir: Path) -> None:
  """ConfigError when a file has changed since the run in this workdir began."""
  if not (workdir / RECORD).is_file():
    return
  try:
    recorded = json.loads((workdir / RECORD).read_text())
  except json.JSONDecodeError as error:
    raise ConfigError(f"{workdir / RECORD} is no JSON ({error}): delete it, or give another workdir.") from error
  changed = [name for name in _files(config) if recorded.get(name, digest(name)) != digest(name)]
  if changed:
    raise ConfigError(f"{', '.join(changed)} has changed since the run in {workdir} began, so a resume would mix "
                      "two tasks. Restore the file, or give another --workdir; to resume with the changed file, "
                      f"delete {workdir / RECORD}.")


def digest(name: str) -> str:
  """sha256 of a file's text without empty lines and without its get_config, whose result is in config.json anyway.

  It does not cover the files that this one imports.
  """
  lines = Path(name).read_text().splitlines()
  for node in ast.parse("\n".join(lines)).body:
    if isinstance(node, ast.FunctionDef) and node.name == "get_config":
      lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
  return hashlib.sha256("\n".join(line for line in lines if line.strip()).encode()).hexdigest()


def _files(config: dict) -> list[str]:
  """The files that a resolved config names by path, each once."""
  named = [nested.at(config, key) for key in KEYS if key in nested.flat(config)]
  return list(dict.fromkeys(absolute(name).rpartition(":")[0] for name in named if is_path(name)))
