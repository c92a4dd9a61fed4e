"""From a config file and a command line to one resolved config, before anything runs.

`load` calls the file's get_config, `resolve` checks it against a schema (see schema.py) and applies
`--config.key=value`, `build` passes a section to its constructor. At module level this file imports no JAX, so that an
error about a key comes within a second.
"""

import dataclasses
import importlib.util
import inspect
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sftrl_jax.data.prompts import NAME as PROMPTS
from sftrl_jax.data.read import located
from sftrl_jax.programs.config import nested, user_files, values
from sftrl_jax.programs.config.errors import ConfigError, closest, nearest
from sftrl_jax.programs.config.schema import REQUIRED, Key, OneOf, chooser, keys_of, refuse_unchosen, switched
from sftrl_jax.programs.config.smoke import smoke, split

# A run that resumes may differ in these: how long it and its schedule last, what it writes, what may be left out and
# how devices and threads split it, never in what it computes.
MAY_DIFFER = ("steps", "flops", "schedule.updates", "log", "checkpoint.keep", "study.jobs", "mesh.data", "mesh.fsdp",
              "mesh.tensor", "max_dropped", "max_without_signal", "verdict_seconds", "verdict_workers", "own_reward")
# Room for texts: more of it changes nothing for those that did fit.
MAY_GROW = ("rollout.prompt_tokens", "rollout.feedback_tokens", "teacher.demonstration_tokens")


def load(spec: str) -> ConfigDict:
  """The config of `FILE.py[:choice][:smoke]`: what the file's get_config returns, given the choice ("" if absent).

  A last `:smoke` never reaches the file: it makes the config small (smoke.py). The folder that holds the file's
  `configs/` goes on sys.path, so that a config may import its neighbours. Raises ConfigError naming the file, and the
  line of an error inside it.
  """
  name, choice, small = split(spec)
  path = Path(name)
  if path.suffix != ".py":
    raise ConfigError(f"--config={spec} names no Python file: write --config=FILE.py, FILE.py:choice or FILE.py:smoke.")
  if not path.is_file():
    neighbours = sorted(map(str, path.parent.glob("[!_]*.py")))
    hint = nearest(name, neighbours) if neighbours else f"; paths are relative to {Path.cwd()}."
    raise ConfigError(f"--config={spec}: there is no file {name}{hint}")
  path = path.resolve()
  root = next((above.parent for above in path.parents if above.name == "configs"), path.parent)
  _search_first(root)
  module_spec = importlib.util.spec_from_file_location(f"_config_{abs(hash(str(path)))}", path)
  module = importlib.util.module_from_spec(module_spec)
  sys.modules[module_spec.name] = module   # a task's dataclasses may be defined in the same file
  _inside(name, root, lambda: module_spec.loader.exec_module(module))
  make = getattr(module, "get_config", None)
  if not callable(make):
    raise ConfigError(f"{name} defines no get_config(choice): add one that returns an ml_collections.ConfigDict.")
  takes_choice = bool(inspect.signature(make).parameters)
  if choice and not takes_choice:
    raise ConfigError(f"--config={spec}: get_config of {name} takes no choice, so leave out ':{choice}'.")
  config = _inside(name, root, lambda: make(choice) if takes_choice else make())
  if not isinstance(config, (dict, ConfigDict)):
    kind = type(config).__name__
    raise ConfigError(f"get_config of {name} returned {kind}, but should return an ml_collections.ConfigDict.")
  return smoke(config) if small else ConfigDict(nested.plain(config))


def parse_overrides(arguments: Iterable[str]) -> list[tuple[str, str]]:
  """["--config.a.b=v", ...] -> [("a.b", "v"), ...], in order; `resolve` converts the text."""
  overrides = []
  for argument in arguments:
    path, equals, text = argument.removeprefix("--config.").partition("=")
    if not argument.startswith("--config.") or not equals or not all(path.split(".")):
      raise ConfigError(f"{argument!r} is no override: write --config.section.key=value.")
    overrides.append((path, text))
  return overrides


def resolve(config: Mapping, overrides: Iterable[tuple[str, str]], schema: Mapping,
            on_override: Mapping[str, Callable] | None = None, note: Callable[[str], None] = print,
            free: Mapping[str, Callable] | None = None) -> ConfigDict:
  """The whole config of a run: the file's keys checked, missing ones filled in, overrides applied; locked.

  overrides: (dotted key, text) of each, in order
  on_override: {dotted path: function of (the section so far, text) -> (the section, message)}. Called before all other
    overrides, for a path that the command line sets to another value than the section has.
  note: called with the message of `on_override`, and with a sentence for every section that another choice drops
  free: {dotted path of a free-form section: function of (the section around it, key) -> the key's type}. It raises
    ValueError, with a message that begins with the key, for an unknown key.

  Raises ConfigError for an unknown key, a missing one, a value of another type, and None.
  """
  overrides = list(overrides)
  tree = _choose_sections(nested.plain(config), overrides, schema, note)
  keys = keys_of(tree, schema)
  refuse_unchosen(tree, overrides, schema)
  tree = _complete(tree, keys, "config", {path for path, _ in overrides})
  changes = {path: change for path, change in (on_override or {}).items() if path in nested.flat(tree)}
  for path, text in overrides:
    if path in changes and text != str(nested.at(tree, path)):
      section = path.rpartition(".")[0]
      replaced, message = _read(f"config.{path}={text}:", changes[path], nested.at(tree, section), text)
      nested.put(tree, section, replaced)
      note(message)
  free = {path: kind_of for path, kind_of in (free or {}).items() if path.partition(".")[0] in tree}
  for path, text in overrides:
    if path not in changes:
      _override(tree, keys, path, text, free)
  for above in free:
    for key, value in nested.at(tree, above).items():
      path = f"{above}.{key}"
      nested.at(tree, above)[key] = _read(f"config.{path}", values.fit, value, _free_kind(tree, free, path))
  for path in user_files.KEYS:   # absolute, since a resume may start in another directory
    if path in nested.flat(tree) and user_files.is_path(nested.at(tree, path)):
      nested.put(tree, path, user_files.absolute(nested.at(tree, path)))
  prompts = ["env.path"] if nested.flat(tree).get("env.name") == PROMPTS else []
  for path in ("data.path", "data.heldout", "evals.task_path", *prompts):
    if nested.flat(tree).get(path):
      nested.put(tree, path, located(nested.at(tree, path)))
  return ConfigDict(tree).lock()


def build(constructor: Callable, settings: Any, where: str) -> Any:
  """constructor(**settings); ConfigError for an unknown or missing key, and for a ValueError of the constructor.

  where: dotted name of the section. It goes before the message of a ValueError that begins with one of the keys:
    `gamma is 2` becomes `config.ppo.gamma is 2`, and `args.b2 is 2` config.optimizer.args.b2 is 2.
  """
  settings = nested.plain(settings)
  parameters = inspect.signature(constructor).parameters
  many = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
  free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
  keys = {key: parameter for key, parameter in parameters.items() if parameter.kind not in many}
  for key in settings:
    if key not in keys and not free:
      raise ConfigError(f"{where}.{key} is not a key of {where}{nearest(key, keys, where + '.')}")
  for key, parameter in keys.items():
    if parameter.default is parameter.empty and key not in settings:
      raise ConfigError(f"{where}.{key} is missing and has no default: add it to the config, or --{where}.{key}=VALUE.")
  try:
    return constructor(**settings)
  except (ValueError, TypeError) as error:
    message = str(error)
    word = re.match(r"\w*", message)[0]
    about_key = word in settings or word in parameters
    raise ConfigError(f"{where}.{message}" if about_key else f"{where}: {message}") from error


def differences(a: Mapping, b: Mapping) -> list[tuple[str, object, object]]:
  """(dotted key, value in a, value in b) wherever two configs differ; "(absent)" is the value of a missing key.

  Tuples and lists are equal when their items are, since one of the two configs usually comes from JSON.
  """
  a, b = nested.flat(nested.plain(a)), nested.flat(nested.plain(b))
  triples = [(key, a.get(key, "(absent)"), b.get(key, "(absent)")) for key in dict.fromkeys([*a, *b])]
  return [triple for triple in triples if nested.listed(triple[1]) != nested.listed(triple[2])]


def refuse_another(recorded: Mapping, config: Mapping, workdir: Path) -> None:
  """ConfigError listing the keys, MAY_DIFFER apart, in which `config` is not the config recorded in `workdir`."""
  changes = [(key, old, new) for key, old, new in differences(recorded, config)
             if not any(key == free or key.startswith(free + ".") for free in MAY_DIFFER)
             and not (key in MAY_GROW and isinstance(old, int) and new > old)]
  if changes:
    lines = "".join(f"\n  config.{key}: {old!r} there, {new!r} now" for key, old, new in changes)
    raise ConfigError(f"{workdir} holds a run of another config:{lines}\n  Only {', '.join(MAY_DIFFER)} may change, "
                      f"and {', '.join(MAY_GROW)} grow: give the same config to go on with it, or another "
                      "--workdir to start afresh.")


def _choose_sections(tree: dict, overrides: list, schema: Mapping, note: Callable) -> dict:
  """Applies the overrides that decide which keys the config has: `--config.env.name` and `--config.data.path`, which
  choose the class of their section, and `--config.algorithm`, which chooses a section. All others come after them."""
  for path, text in overrides:
    section, _, key = path.partition(".")
    if isinstance(schema.get(path), OneOf):
      tree = switched(tree, path, schema[path], text, note)
    choose = schema.get(section)
    if isinstance(choose, types.FunctionType) and key == chooser(choose)[0]:
      tree[section] = _rechosen(section, tree.get(section, {}), choose, text, note)
  return tree


def _rechosen(section: str, settings: dict, choose: Callable, name: str, note: Callable) -> dict:
  """A section after an override of its class: drops the file's values for the old class, but for those that both
  classes have where their keys mean the same. They do where one class is derived from the other, and where no `name`
  chooses another thing, so that what the section is about stays (data: the rows of training)."""
  choice_key, _ = chooser(choose)
  try:
    old, new = choose(settings), choose({**settings, choice_key: name})
  except ValueError:
    return {**settings, choice_key: name}   # `keys_of` raises the error
  if old is new:
    return {**settings, choice_key: name}
  is_alike = choice_key != "name" or issubclass(new, old) or issubclass(old, new)
  shared = {field.name for field in dataclasses.fields(new)} if is_alike else set()
  dropped = [key for key in settings if key != choice_key and key not in shared]
  kept = {key: value for key, value in settings.items() if key in shared and key != choice_key}
  words = [f"kept: {', '.join(f'{key}={value}' for key, value in kept.items())}"] if kept else []
  words += [f"dropped: {', '.join(dropped)}"] if dropped else []
  if words:
    before = settings.get(choice_key, old.__name__.removesuffix("Config"))
    note(f"{section}.{choice_key}: {before} -> {name}; {'; '.join(words)}")
  return {**kept, choice_key: name}


def _search_first(root: Path) -> None:
  """Makes `import configs` find the folder in root, whichever `configs` was imported before or is installed."""
  folder = str(root / "configs")
  if folder in getattr(sys.modules.get("configs"), "__path__", ()):
    return
  for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
    del sys.modules[name]
  if str(root) not in sys.path[:1]:
    sys.path.insert(0, str(root))
  if not (root / "configs" / "__init__.py").exists():   # Python prefers any package with one to a folder without
    sys.modules["configs"] = types.ModuleType("configs")
    sys.modules["configs"].__path__ = [folder]


def _inside(name: str, root: Path, run: Callable) -> Any:
  """run(), where any exception becomes a ConfigError that names the last line of the user's own files on its stack."""
  try:
    return run()
  except SyntaxError as error:
    raise ConfigError(f"{error.filename or name}, line {error.lineno}: {error.msg}.") from error
  except (Exception, SystemExit) as error:   # sys.exit() in a config file would look like a run that is complete
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[2])
    users = [frame for frame in frames if frame.filename.startswith(str(root))
             and not frame.filename.startswith(package) and "site-packages" not in frame.filename]
    line = f"{users[-1].filename}, line {users[-1].lineno}" if users else name
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    raise ConfigError(f"{line}: {kind}{error}") from error


def _complete(tree: Any, keys: Mapping, where: str, overridden: set[str]) -> dict:
  """The tree with every key checked and every missing one filled in, in the schema's order.

  overridden: dotted paths that the command line sets, so that the file may lack them
  """
  if not isinstance(tree, dict):
    raise ConfigError(f"{where} is {tree!r}, but should be a section with the keys {', '.join(keys)}.")
  for name in tree:
    if name not in keys:
      raise ConfigError(f"{where}.{name} is not a key of {_called(where)}{nearest(name, keys, where + '.')}")
  complete = {}
  for name, key in keys.items():
    path = f"{where}.{name}"
    if isinstance(key, dict):
      complete[name] = _complete(tree.get(name, {}), key, path, overridden)
    elif name not in tree and path.removeprefix("config.") in overridden:
      complete[name] = key.default
    elif name not in tree and key.default is REQUIRED:
      raise ConfigError(f"{path} is missing and has no default: add it to the config file, or --{path}=VALUE.")
    else:
      complete[name] = _read(path, values.fit, tree.get(name, key.default), key.kind)
  return complete


def _override(tree: dict, keys: Mapping | Key, path: str, text: str, free: Mapping) -> None:
  """Puts the text of `--config.path=text` into the tree, as the kind that the key declares."""
  names = path.split(".")
  for depth, name in enumerate(names):
    if isinstance(keys, Key):
      _override_free(tree, keys, names, depth, text, free)
      return
    if name not in keys:
      raise ConfigError(_unknown(path, names[:depth], name, keys, tree))
    keys = keys[name]
  if isinstance(keys, dict):
    raise ConfigError(f"config.{path} is a section: override one of its keys, for example --config.{path}."
                      f"{next(iter(keys), 'key')}=VALUE. Its keys: {', '.join(keys)}.")
  nested.put(tree, path, _read(f"config.{path}", values.parse, text, keys.kind))


def _override_free(tree: dict, key: Key, names: list[str], depth: int, text: str, free: Mapping) -> None:
  """Puts the text of an override inside a free-form dict into the tree. Its type is the one of `free`, or else that of
  the value which the override replaces; a new key takes a Python literal or text.

  names: of the dotted path; the first `depth` of them lead to the free-form dict, whose key is `key`
  """
  above, path = ".".join(names[:depth]), ".".join(names)
  if not isinstance(nested.at(tree, above), dict):
    kind = values.describe(key.kind)
    raise ConfigError(f"config.{path} cannot be set: config.{above} is a value ({kind}), no section.")
  section = nested.at(tree, above)
  for name in names[depth:-1]:
    section = section.setdefault(name, {})
    if not isinstance(section, dict):
      raise ConfigError(f"config.{path} cannot be set: {name} in config.{above} is {section!r}, no section.")
  old = section.get(names[-1])
  kind = object if old is None else float if type(old) is int and "." in text else type(old)
  if path.rpartition(".")[0] in free:
    kind = _free_kind(tree, free, path)
  section[names[-1]] = _read(f"config.{path}", values.parse, text, kind)


def _free_kind(tree: dict, free: Mapping, path: str) -> Any:
  """The type of a key of a free-form section; ConfigError for an unknown key."""
  above, _, key = path.rpartition(".")
  try:
    return free[above](nested.at(tree, above.rpartition(".")[0]), key)
  except ValueError as error:
    raise ConfigError(f"config.{above}.{error}") from error


def _unknown(path: str, above: list[str], name: str, keys: Mapping, tree: dict) -> str:
  """The error for an override of an unknown key: offers the nearest key of its section, or the same key elsewhere."""
  where = ".".join(["config", *above])
  last = {}
  for key in nested.flat(tree):
    last.setdefault(key.split(".")[-1], key)
  match = closest(path.split(".")[-1], last)
  if not closest(name, keys) and match:
    guess = f"did you mean config.{last[match]}?"
    return f"config.{path} is not a key of {_called(where)}: {guess} Valid: {', '.join(keys)}."
  return f"{where}.{name} is not a key of {_called(where)}{nearest(name, keys, where + '.')}"


def _called(where: str) -> str:
  return "this config" if where == "config" else where


def _read(path: str, reader: Callable, value: Any, kind: Any) -> Any:
  """reader(value, kind), where a ValueError becomes a ConfigError that begins with `path`."""
  try:
    result = nested.plain(reader(value, kind))   # {"a.b": 1} becomes nested wherever it is written
    _refuse_none(result)
    return result
  except ValueError as error:
    raise ConfigError(f"{path} {str(error).rstrip('.')}.") from error


def _refuse_none(value: Any) -> None:
  items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
  for item in items:
    if item is None:
      raise ValueError(f"is {value!r}, and a config holds no None: leave the key out to get its default")
    _refuse_none(item)
