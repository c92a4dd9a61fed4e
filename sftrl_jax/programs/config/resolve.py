"""From a config file and a command line to one resolved config.

`load` calls the file's get_config, `resolve` checks the result against a schema (schema.py) and applies
`--config.key=value`, `build` passes a section to its constructor. At module level this file imports no JAX, so that a
wrong key is an error within a second.
"""

import dataclasses
import importlib.util
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from ml_collections import ConfigDict

from sftrl_jax.data.read import located
from sftrl_jax.programs.config import nested, user_files, values
from sftrl_jax.programs.config.errors import ConfigError, closest, nearest
from sftrl_jax.programs.config.schema import REQUIRED, Key, OneOf, Schema, chooser, keys_of, refuse_unchosen, switched
from sftrl_jax.programs.config.smoke import smoke, split

# The keys that may change when a run is resumed: its length, its logs and its split over devices. None of them changes
# a computed value but for rounding.
MAY_DIFFER = ("steps", "flops", "log", "checkpoint.keep", "study.jobs", "mesh.data", "mesh.fsdp", "mesh.tensor")


def load(spec: str) -> ConfigDict:
  """The config of `FILE.py[:choice][:smoke]`: the file's get_config, called with the choice ("" if absent).

  A last `:smoke` is not passed to the file; it makes the config small (smoke.py). The folder that holds the file's
  `configs/` is put on sys.path, so that a config may import its neighbours. Raises ConfigError with the file, and with
  the line for an error inside it.
  """
  name, choice, small = split(spec)
  path = Path(name)
  if path.suffix != ".py":
    raise ConfigError(f"--config={spec} names no Python file: write --config=FILE.py, FILE.py:choice or FILE.py:smoke.")
  if not path.is_file():
    files = sorted(map(str, path.parent.glob("[!_]*.py"))) if path.parent.is_dir() else []
    hint = nearest(name, files) if files else f"; paths are relative to {Path.cwd()}."
    raise ConfigError(f"--config={spec}: there is no file {name}{hint}")
  path = path.resolve()
  root = next((above.parent for above in path.parents if above.name == "configs"), path.parent)
  _search_first(root)
  module_spec = importlib.util.spec_from_file_location(f"_config_{abs(hash(str(path)))}", path)
  module = importlib.util.module_from_spec(module_spec)
  sys.modules[module_spec.name] = module   # a task's dataclasses may be defined in the same file
  _call_user_code(name, root, lambda: module_spec.loader.exec_module(module))
  get_config = getattr(module, "get_config", None)
  if not callable(get_config):
    raise ConfigError(f"{name} defines no get_config(choice): add one that returns an ml_collections.ConfigDict.")
  takes_choice = bool(inspect.signature(get_config).parameters)
  if choice and not takes_choice:
    raise ConfigError(f"--config={spec}: get_config of {name} takes no choice, so leave out ':{choice}'.")
  config = _call_user_code(name, root, lambda: get_config(choice) if takes_choice else get_config())
  if not isinstance(config, (dict, ConfigDict)):
    kind = type(config).__name__
    raise ConfigError(f"get_config of {name} returned {kind}, but should return an ml_collections.ConfigDict.")
  return smoke(config) if small else ConfigDict(nested.plain(config))


def parse_overrides(arguments: Sequence[str]) -> list[tuple[str, str]]:
  """["--config.a.b=v", ...] -> [("a.b", "v"), ...], in order; `resolve` converts the texts."""
  overrides = []
  for argument in arguments:
    path, equals, text = argument.removeprefix("--config.").partition("=")
    if not argument.startswith("--config.") or not equals or not all(path.split(".")):
      raise ConfigError(f"{argument!r} is no override: write --config.section.key=value.")
    overrides.append((path, text))
  return overrides


def resolve(config: Mapping[str, Any] | ConfigDict, overrides: Sequence[tuple[str, str]], schema: Schema,
            on_override: Mapping[str, Callable[[dict, str], tuple[dict, str]]] | None = None,
            note: Callable[[str], None] = print,
            free: Mapping[str, Callable[[dict, str], Any]] | None = None) -> ConfigDict:
  """The whole config of a run, locked: the file's keys checked, missing keys filled in, overrides applied.

  config: as `load` returns it
  overrides: ((dotted path, text), ...), in order
  on_override: {dotted path: function of (its section so far, text) -> (the section, message)}, called before all other
    overrides where the text differs from the value in the section
  note: called with a message for every override that changes more than its own key
  free: {dotted path of a free-form section: function of (the section around it, key) -> the key's type}. The function
    raises ValueError, with a message that begins with the key, for a key that the section may not have

  Raises ConfigError for an unknown key, a missing one, a value of another type, and None.
  """
  tree = _choose_sections(nested.plain(config), overrides, schema, note)
  keys = keys_of(tree, schema)
  refuse_unchosen(tree, overrides, schema)
  tree = _complete(tree, keys, "config", {path for path, _ in overrides})
  changes = {path: change for path, change in (on_override or {}).items() if path in nested.flat(tree)}
  for path, text in overrides:
    if path in changes and text != str(nested.at(tree, path)):
      section = path.rpartition(".")[0]
      replaced, message = _converted(f"config.{path}={text}:", changes[path], nested.at(tree, section), text)
      nested.put(tree, section, replaced)
      note(message)
  free = {path: kind_of for path, kind_of in (free or {}).items() if path.partition(".")[0] in tree}
  for path, text in overrides:
    if path not in changes:
      _override(tree, keys, path, text, free)
  for above in free:
    for key, value in nested.at(tree, above).items():
      path = f"{above}.{key}"
      nested.at(tree, above)[key] = _converted(f"config.{path}", values.fit, value, _free_kind(tree, free, path))
  for path in user_files.KEYS:   # absolute: a resume may start in another directory
    if path in nested.flat(tree) and user_files.is_path(nested.at(tree, path)):
      nested.put(tree, path, user_files.absolute(nested.at(tree, path)))
  if nested.flat(tree).get("data.path"):
    nested.put(tree, "data.path", located(nested.at(tree, "data.path")))
  return ConfigDict(tree).lock()


def build(constructor: Callable[..., Any], settings: Mapping[str, Any] | ConfigDict, where: str) -> Any:
  """constructor(**settings), where every mistake is a ConfigError that names its key: `config.ppo.gamma ...`.

  where: dotted name of the section. The message of a constructor's ValueError that begins with a key gets it as a
    prefix
  """
  settings = nested.plain(settings)
  parameters = inspect.signature(constructor).parameters
  variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
  free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
  keys = {key: parameter for key, parameter in parameters.items() if parameter.kind not in variadic}
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


def differences(a: Mapping | ConfigDict, b: Mapping | ConfigDict) -> list[tuple[str, Any, Any]]:
  """(dotted key, value in a, value in b) wherever two configs differ; "(absent)" for a key that one of them lacks.

  Tuples and lists are equal when their items are, since one of the configs usually comes from JSON.
  """
  a, b = nested.flat(nested.plain(a)), nested.flat(nested.plain(b))
  pairs = [(key, a.get(key, "(absent)"), b.get(key, "(absent)")) for key in [*a, *(key for key in b if key not in a)]]
  return [(key, old, new) for key, old, new in pairs if nested.listed(old) != nested.listed(new)]


def refuse_another(recorded: Mapping | ConfigDict, config: Mapping | ConfigDict, workdir: PurePath) -> None:
  """ConfigError with the keys, MAY_DIFFER left out, in which a config differs from the one recorded in the workdir."""
  changed = [(key, old, new) for key, old, new in differences(recorded, config)
             if not any(key == free or key.startswith(free + ".") for free in MAY_DIFFER)]
  if changed:
    lines = "".join(f"\n  config.{key}: {old!r} there, {new!r} now" for key, old, new in changed)
    raise ConfigError(f"{workdir} holds a run of another config:{lines}\n  Only {', '.join(MAY_DIFFER)} may change: "
                      "give the same config to resume it, or another --workdir to start a new run.")


def _choose_sections(tree: dict, overrides: Sequence[tuple[str, str]], schema: Schema,
                     note: Callable[[str], None]) -> dict:
  """Applies the overrides that decide which keys or sections a config has, before all others: `--config.env.name=...`,
  `--config.data.path=...`, `--config.algorithm=...`."""
  for path, text in overrides:
    section, _, key = path.partition(".")
    if isinstance(schema.get(path), OneOf):
      tree = switched(tree, path, schema[path], text, note)
    choose = schema.get(section)
    if isinstance(choose, types.FunctionType) and key == chooser(choose)[0]:
      tree[section] = _rechosen(section, tree.get(section, {}), choose, text, note)
  return tree


def _rechosen(section: str, settings: dict, choose: Callable[..., type], name: str,
              note: Callable[[str], None]) -> dict:
  """A section whose class changes to `name`. It drops the file's values, but where one class is derived from the other
  it keeps the fields that both have."""
  chosen, _ = chooser(choose)
  try:
    old, new = choose(settings), choose({**settings, chosen: name})
  except ValueError:
    return {**settings, chosen: name}   # `keys_of` raises the error
  if old is new:
    return {**settings, chosen: name}
  shared = {field.name for field in dataclasses.fields(new)} if issubclass(new, old) or issubclass(old, new) else ()
  dropped = [key for key in settings if key != chosen and key not in shared]
  if dropped:
    before = settings.get(chosen, old.__name__.removesuffix("Config"))
    note(f"{section}.{chosen}: {before} -> {name}; dropped: {', '.join(dropped)}")
  return {**{key: value for key, value in settings.items() if key not in dropped}, chosen: name}


def _search_first(root: Path) -> None:
  """Makes `import configs` find the folder in root, whatever was imported before or is installed under that name."""
  folder = str(root / "configs")
  if folder in getattr(sys.modules.get("configs"), "__path__", ()):
    return
  for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
    del sys.modules[name]
  if str(root) not in sys.path[:1]:
    sys.path.insert(0, str(root))
  if not (root / "configs" / "__init__.py").exists():   # without it, any package of that name would win
    sys.modules["configs"] = types.ModuleType("configs")
    sys.modules["configs"].__path__ = [folder]


def _call_user_code(name: str, root: Path, function: Callable[[], Any]) -> Any:
  """function(), where any exception becomes a ConfigError with the last line in the user's files that led to it."""
  try:
    return function()
  except SyntaxError as error:
    raise ConfigError(f"{error.filename or name}, line {error.lineno}: {error.msg}.") from error
  except (Exception, SystemExit) as error:   # an exit in the file would look like a complete run
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[2])
    frames = [frame for frame in frames if frame.filename.startswith(str(root))
              and not frame.filename.startswith(package) and "site-packages" not in frame.filename]
    line = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else name
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    raise ConfigError(f"{line}: {kind}{error}") from error


def _complete(tree: Any, keys: Mapping[str, Any], where: str, overridden: set[str]) -> dict:
  """The tree with every key checked and every missing one filled in, in the schema's order.

  where: dotted name of the tree
  overridden: dotted paths that the command line sets, so that the file may lack them
  """
  if not isinstance(tree, dict):
    raise ConfigError(f"{where} is {tree!r}, but should be a section with the keys {', '.join(keys)}.")
  for name in tree:
    if name not in keys:
      raise ConfigError(f"{where}.{name} is not a key of {_title(where)}{nearest(name, keys, where + '.')}")
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
      whole[name] = _converted(path, values.fit, tree.get(name, key.default), key.kind)
  return whole


def _override(tree: dict, keys: Any, path: str, text: str, free: Mapping) -> None:
  """Puts the text of `--config.path=text` into the tree, converted to the key's kind."""
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
  nested.put(tree, path, _converted(f"config.{path}", values.parse, text, keys.kind))


def _override_free(tree: dict, key: Key, names: Sequence[str], depth: int, text: str, free: Mapping) -> None:
  """Puts a text into a free-form section. Its type is that of `free`, else that of the value it replaces; a new key
  takes a Python literal or text.

  names: of the path. depth: how many of them are above the free-form section's keys
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
  section[names[-1]] = _converted(f"config.{path}", values.parse, text, kind)


def _free_kind(tree: dict, free: Mapping, path: str) -> Any:
  """The type of a key of a free-form section; ConfigError for a key that the section may not have."""
  above, _, key = path.rpartition(".")
  try:
    return free[above](nested.at(tree, above.rpartition(".")[0]), key)
  except ValueError as error:
    raise ConfigError(f"config.{above}.{error}") from error


def _unknown(path: str, above: Sequence[str], name: str, keys: Mapping[str, Any], tree: dict) -> str:
  """The message about an override of an unknown key, with the nearest key beside it or the same key elsewhere."""
  where = ".".join(["config", *above])
  elsewhere = [key for key in nested.flat(tree) if key.split(".")[-1] == path.split(".")[-1]]
  if not closest(name, keys) and elsewhere:
    guess = f"did you mean config.{elsewhere[0]}?"
    return f"config.{path} is not a key of {_title(where)}: {guess} Valid: {', '.join(keys)}."
  return f"{where}.{name} is not a key of {_title(where)}{nearest(name, keys, where + '.')}"


def _title(where: str) -> str:
  return "this config" if where == "config" else where


def _converted(path: str, read: Callable[[Any, Any], Any], value: Any, kind: Any) -> Any:
  """read(value, kind), whose ValueError becomes a ConfigError that begins with the path."""
  try:
    converted = nested.plain(read(value, kind))   # {"a.b": 1} is nested wherever it is written
    _refuse_none(converted)
    return converted
  except ValueError as error:
    raise ConfigError(f"{path} {str(error).rstrip('.')}.") from error


def _refuse_none(value: Any) -> None:
  items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
  for item in items:
    if item is None:
      raise ValueError(f"is {value!r}, and a config holds no None: leave the key out to get its default")
    _refuse_none(item)
