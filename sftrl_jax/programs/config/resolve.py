"""From a config file and a command line to one resolved config; nothing runs before it is right.

`load` calls the file's get_config, `resolve` holds it against a schema (see schema.py) and applies
`--config.key=value`, `build` hands a section to its constructor. At module level this file imports no JAX:
a wrong word is refused in a second.
"""

import dataclasses
import difflib
import importlib.util
import inspect
import sys
import traceback
import types
from pathlib import Path

from ml_collections import ConfigDict

from sftrl_jax.data.read import located
from sftrl_jax.programs.config import nested, user_files as own, values
from sftrl_jax.programs.config.errors import ConfigError, nearest
from sftrl_jax.programs.config.schema import REQUIRED, Key, OneOf, chooser, keys_of, refuse_unchosen, switched
from sftrl_jax.programs.config.smoke import smoke, split

# What a run may change when it is continued: how long it lasts, how it is looked after and over which devices it is
# split, never what is computed.
MAY_DIFFER = ("steps", "flops", "log", "checkpoint.keep", "study.jobs", "mesh.data", "mesh.fsdp", "mesh.tensor")


def load(spec) -> ConfigDict:
  """The config of `FILE.py[:choice][:smoke]`: what the file's get_config returns, given the choice ("" if absent).

  A last `:smoke` never reaches the file, it makes the config small (smoke.py). The folder that holds the file's
  `configs/` is put on sys.path, so that a config may import its neighbours. Raises ConfigError naming the file, and the
  line for whatever goes wrong inside it.
  """
  name, choice, small = split(spec)
  path = Path(name)
  if path.suffix != ".py":
    raise ConfigError(f"--config={spec} names no Python file: write --config=FILE.py, FILE.py:choice or FILE.py:smoke.")
  if not path.is_file():
    there = sorted(str(other) for other in path.parent.glob("[!_]*.py")) if path.parent.is_dir() else []
    hint = nearest(name, there) if there else f"; paths are relative to {Path.cwd()}."
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


def parse_overrides(arguments) -> list[tuple[str, str]]:
  """["--config.a.b=v", ...] -> [("a.b", "v"), ...], in order; the text is converted by `resolve`."""
  overrides = []
  for argument in arguments:
    path, equals, text = argument.removeprefix("--config.").partition("=")
    if not argument.startswith("--config.") or not equals or not all(path.split(".")):
      raise ConfigError(f"{argument!r} is no override: write --config.section.key=value.")
    overrides.append((path, text))
  return overrides


def resolve(config, overrides, schema, on_override=None, note=print, free=None) -> ConfigDict:
  """The whole config of a run: the file's keys checked, missing ones filled in, overrides applied; locked.

  on_override: {dotted path: function of (the section so far, text) -> (the section, message)}; called for a path that
  is overridden with another value than the section has, before all other overrides; `note` is called with its message.
  free: {dotted path of a free-form section: function of (the section around it, key) -> the key's type}; ValueError, a
  message that begins with the key, for one that may not be there.
  Raises ConfigError for an unknown key, a missing one, a value of another type, and None.
  """
  overrides = [(path, text) for path, text in overrides]
  tree = _choose_sections(nested.plain(config), overrides, schema, note)
  keys = keys_of(tree, schema)
  refuse_unchosen(tree, overrides, schema)
  tree = _complete(tree, keys, "config", {path for path, _ in overrides})
  changes = {path: change for path, change in (on_override or {}).items() if path in nested.flat(tree)}
  for path, text in overrides:
    if path in changes and text != str(nested.at(tree, path)):
      section = path.rpartition(".")[0]
      replaced, message = _told(f"config.{path}={text}:", changes[path], nested.at(tree, section), text)
      nested.put(tree, section, replaced)
      note(message)
  free = {path: kind_of for path, kind_of in (free or {}).items() if path.partition(".")[0] in tree}
  for path, text in overrides:
    if path not in changes:
      _override(tree, keys, path, text, free)
  for above in free:
    for key, value in nested.at(tree, above).items():
      path = f"{above}.{key}"
      nested.at(tree, above)[key] = _told(f"config.{path}", values.fit, value, _free_kind(tree, free, path))
  for path in own.KEYS:   # a user's own file is found from any directory
    if path in nested.flat(tree) and own.is_path(nested.at(tree, path)):
      nested.put(tree, path, own.absolute(nested.at(tree, path)))
  if nested.flat(tree).get("data.path"):
    nested.put(tree, "data.path", located(nested.at(tree, "data.path")))
  return ConfigDict(tree).lock()


def build(constructor, settings, where):
  """constructor(**settings), where every mistake is a ConfigError that names its key: `config.ppo.gamma ...`.

  where: dotted name of the section. Unknown and missing keys are told with the nearest name; a ValueError of the
  constructor whose message begins with one of its keys is told with the whole dotted name.
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
    word = message.replace("=", " ").replace(":", " ").split(" ")[0]
    about_key = word in settings or word in parameters
    raise ConfigError(f"{where}.{message}" if about_key else f"{where}: {message}") from error


def differences(a, b) -> list[tuple[str, object, object]]:
  """(dotted key, value in a, value in b) wherever two configs differ; a key one of them lacks counts as "(absent)".

  Tuples and lists are equal when their items are, since one of the two has usually been JSON.
  """
  a, b = nested.flat(nested.plain(a)), nested.flat(nested.plain(b))
  pairs = [(key, a.get(key, "(absent)"), b.get(key, "(absent)")) for key in [*a, *(key for key in b if key not in a)]]
  return [(key, one, other) for key, one, other in pairs if nested.listed(one) != nested.listed(other)]


def refuse_another(recorded, config, workdir) -> None:
  """ConfigError listing the keys in which `config` is not the config recorded in `workdir`, but for MAY_DIFFER."""
  found = [(key, old, new) for key, old, new in differences(recorded, config)
           if not any(key == free or key.startswith(free + ".") for free in MAY_DIFFER)]
  if found:
    lines = "".join(f"\n  config.{key}: {old!r} there, {new!r} now" for key, old, new in found)
    raise ConfigError(f"{workdir} holds a run of another config:{lines}\n  Only {', '.join(MAY_DIFFER)} may change: "
                      "give the same config to go on with it, or another --workdir to start afresh.")


def _choose_sections(tree, overrides, schema, note):
  """`--config.env.name=...` comes before everything else in env, because the name says which keys there are; so does
  `--config.data.path=...` in data, and `--config.algorithm=...`, which says which section there is."""
  for path, text in overrides:
    section, _, key = path.partition(".")
    if isinstance(schema.get(path), OneOf):
      tree = switched(tree, path, schema[path], text, note)
    choose = schema.get(section)
    if isinstance(choose, types.FunctionType) and key == chooser(choose)[0]:
      tree[section] = _rechosen(section, tree.get(section, {}), choose, text, note)
  return tree


def _rechosen(section, settings, choose, name, note) -> dict:
  """A section whose class is another one now: what the file set for the old one goes, unless one is derived from the
  other; then what both have stays."""
  chosen, _ = chooser(choose)
  try:
    old, new = choose(settings), choose({**settings, chosen: name})
  except ValueError:
    return {**settings, chosen: name}   # `keys_of` tells what is wrong with it
  if old is new:
    return {**settings, chosen: name}
  shared = {field.name for field in dataclasses.fields(new)} if issubclass(new, old) or issubclass(old, new) else ()
  dropped = [key for key in settings if key != chosen and key not in shared]
  if dropped:
    before = settings.get(chosen, old.__name__.removesuffix("Config"))
    note(f"{section}.{chosen}: {before} -> {name}; dropped: {', '.join(dropped)}")
  return {**{key: value for key, value in settings.items() if key not in dropped}, chosen: name}


def _search_first(root) -> None:
  """Makes `configs` the one in root, whichever was imported before and whatever else is installed by that name."""
  folder = str(root / "configs")
  if folder in getattr(sys.modules.get("configs"), "__path__", ()):
    return
  for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
    del sys.modules[name]
  if str(root) not in sys.path[:1]:
    sys.path.insert(0, str(root))
  if not (root / "configs" / "__init__.py").exists():   # a folder without it would lose against any package with it
    sys.modules["configs"] = types.ModuleType("configs")
    sys.modules["configs"].__path__ = [folder]


def _inside(name, root, run):
  """run(), where any exception becomes a ConfigError with the last line of the user's own files that led to it."""
  try:
    return run()
  except SyntaxError as error:
    raise ConfigError(f"{error.filename or name}, line {error.lineno}: {error.msg}.") from error
  except (Exception, SystemExit) as error:   # a file that exits by itself would look like a run that is complete
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[2])
    own = [frame for frame in frames if frame.filename.startswith(str(root)) and not frame.filename.startswith(package)
           and "site-packages" not in frame.filename]
    line = f"{own[-1].filename}, line {own[-1].lineno}" if own else name
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    raise ConfigError(f"{line}: {kind}{error}") from error


def _complete(tree, keys, where, overridden):
  """The tree with every key checked and every missing one filled in, in the schema's order.

  overridden: dotted paths that the command line gives, which the file therefore may lack.
  """
  if not isinstance(tree, dict):
    raise ConfigError(f"{where} is {tree!r}, but should be a section with the keys {', '.join(keys)}.")
  for name in tree:
    if name not in keys:
      raise ConfigError(f"{where}.{name} is not a key of {_called(where)}{nearest(name, keys, where + '.')}")
  whole = {}
  for name, key in keys.items():
    path = f"{where}.{name}"
    if isinstance(key, dict):
      whole[name] = _complete(tree.get(name, {}), key, path, overridden)
    elif name not in tree and path.removeprefix("config.") in overridden:
      whole[name] = key.default
    elif name not in tree and key.default is REQUIRED:
      raise ConfigError(f"{path} is missing and has no default: add it to the config file, or --{path}=VALUE.")
    else:
      whole[name] = _told(path, values.fit, tree.get(name, key.default), key.kind)
  return whole


def _override(tree, keys, path, text, free) -> None:
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
  nested.put(tree, path, _told(f"config.{path}", values.parse, text, keys.kind))


def _override_free(tree, key, names, depth, text, free) -> None:
  """A key inside a free-form dict has the type that `free` tells, or else keeps the one it has there; a new one is read
  as a Python literal or as text."""
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
  section[names[-1]] = _told(f"config.{path}", values.parse, text, kind)


def _free_kind(tree, free, path):
  """The type of a key of a free-form section; ConfigError for a key that may not be there."""
  above, _, key = path.rpartition(".")
  try:
    return free[above](nested.at(tree, above.rpartition(".")[0]), key)
  except ValueError as error:
    raise ConfigError(f"config.{above}.{error}") from error


def _unknown(path, above, name, keys, tree) -> str:
  """The error for an override of no key: the nearest key beside it, or the same key in another section."""
  where = ".".join(["config", *above])
  elsewhere = [key for key in nested.flat(tree) if key.split(".")[-1] == path.split(".")[-1]]
  if not difflib.get_close_matches(name, keys) and elsewhere:
    guess = f"did you mean config.{elsewhere[0]}?"
    return f"config.{path} is not a key of {_called(where)}: {guess} Valid: {', '.join(keys)}."
  return f"{where}.{name} is not a key of {_called(where)}{nearest(name, keys, where + '.')}"


def _called(where) -> str:
  return "this config" if where == "config" else where


def _told(path, read, value, kind):
  try:
    read_value = nested.plain(read(value, kind))   # {"a.b": 1} is nested wherever it is written
    _no_none(read_value)
    return read_value
  except ValueError as error:
    raise ConfigError(f"{path} {str(error).rstrip('.')}.") from error


def _no_none(value) -> None:
  items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
  for item in items:
    if item is None:
      raise ValueError(f"is {value!r}, and a config holds no None: leave the key out to get its default")
    _no_none(item)
