"""The keys that a config may have, read from the dataclasses from which the run is built.

A schema is {key: default | type | section}. A bare type, such as int, is a key that a config must give. A section is

- a dataclass, whose fields are the keys
- a function from the section's values so far to a dataclass, where a key chooses the class. The key is `name`, or the
  function's second parameter, whose default is then that of the key. ValueError for an unknown name.
- `dict`: free-form, its constructor checks it (resolve.build)
- a OneOf: a key whose value chooses one of several sections
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sftrl_jax.programs.config.errors import ConfigError, nearest

REQUIRED = object()   # stands for the default of a key that has none


@dataclasses.dataclass(frozen=True)
class Key:
  """One key of a schema: its kind (see values.py) and its default (REQUIRED: every config must give the key)."""

  kind: object
  default: object = REQUIRED


@dataclasses.dataclass(frozen=True)
class OneOf:
  """A key that takes one of these names, {name: dataclass}; a config has the section of that name and no other.

  keys: {name: key of its section} where that is not the name itself
  """

  default: str
  sections: dict
  keys: dict = dataclasses.field(default_factory=dict)

  def section(self, name: Any) -> Any:
    """The key of the section of a name."""
    return self.keys.get(name, name) if isinstance(name, str) else name


def expanded(tree: Mapping, schema: Mapping) -> dict:
  """The schema of this config: in place of a OneOf its key and the section that the config chooses.

  ConfigError for an unknown name, and for a section in `tree` that the key does not choose.
  """
  result = {}
  for key, entry in schema.items():
    if not isinstance(entry, OneOf):
      result[key] = entry
      continue
    name = tree.get(key, entry.default)
    if not isinstance(name, str) or name not in entry.sections:
      raise ConfigError(f"config.{key} is {name!r}{nearest(str(name), entry.sections)}")
    for choice in entry.sections:
      if entry.section(choice) in tree and choice != name:
        raise ConfigError(f"config.{entry.section(choice)} is the section of {key} {choice}, but config.{key} is "
                          f"{name!r}: leave it out of the config, or use --config.{key}={choice}.")
    result |= {key: entry.default, entry.section(name): entry.sections[name]}
  return result


def switched(tree: dict, key: str, one_of: OneOf, name: str, note: Callable[[str], None]) -> dict:
  """The config with another choice of a OneOf; drops the file's values of the old section.

  note: called with a sentence if there are such values
  """
  if name not in one_of.sections:
    return {**tree, key: name}   # `expanded` raises the error
  dropped = [one_of.section(choice) for choice in one_of.sections
             if one_of.section(choice) in tree and choice != name]
  if dropped:
    begins = "has the file's values" if one_of.section(name) in tree else "begins with its defaults"
    note(f"{key}: {tree.get(key, one_of.default)} -> {name}; dropped: config.{', config.'.join(dropped)}; "
         f"config.{one_of.section(name)} {begins}")
  return {**{entry: value for entry, value in tree.items() if entry not in dropped}, key: name}


def refuse_unchosen(tree: Mapping, overrides: Iterable[tuple[str, str]], schema: Mapping) -> None:
  """ConfigError for an override in a section of a OneOf that this config does not choose."""
  for key, one_of in schema.items():
    if isinstance(one_of, OneOf):
      chosen = tree.get(key, one_of.default)
      for path, _ in overrides:
        names = {one_of.section(name): name for name in one_of.sections}
        name = names.get(path.partition(".")[0])
        if name is not None and name != chosen:
          raise ConfigError(f"config.{path} is of {key} {name}, but config.{key} is {chosen!r}: give a key of "
                            f"config.{one_of.section(chosen)}, or --config.{key}={name} too.")


def keys_of(tree: Mapping, schema: Mapping) -> dict[str, Key | dict]:
  """The schema of this config as {key: Key or {key: ...}}."""
  keys = {}
  for name, entry in expanded(tree, schema).items():
    if isinstance(entry, types.FunctionType) or (isinstance(entry, type) and dataclasses.is_dataclass(entry)):
      keys[name] = section_keys(entry, tree.get(name, {}), f"config.{name}")
    elif entry is dict:
      keys[name] = Key(dict, {})
    else:
      keys[name] = Key(entry) if isinstance(entry, type) else Key(type(entry), entry)
  return keys


def chooser(section: Callable) -> tuple[str, object]:
  """(key, default) of the key that chooses the class of a section that is a function."""
  more = list(inspect.signature(section).parameters.values())[1:]
  return (more[0].name, more[0].default) if more else ("name", REQUIRED)


def section_keys(section: type | Callable, settings: Any, where: str = "config") -> dict[str, Key | dict]:
  """{key: Key or {key: ...}} of a section of a schema.

  settings: the values that the file has in the section so far
  where: dotted name of the section, for errors
  """
  if isinstance(section, types.FunctionType):
    try:
      chosen = section(settings)
    except ConfigError:
      raise
    except ValueError as error:
      raise ConfigError(f"{where}.{error}" if str(error).startswith("name") else f"{where}: {error}") from error
    key, default = chooser(section)
    return {key: Key(str, default), **section_keys(chosen, settings, where)}
  kinds = typing.get_type_hints(section)
  settings = settings if isinstance(settings, dict) else {}
  keys = {}
  for field in dataclasses.fields(section):
    if not field.init:
      continue
    kind, default = kinds[field.name], field.default
    if default is dataclasses.MISSING:
      factory = field.default_factory
      default = REQUIRED if factory is dataclasses.MISSING else factory()
    inner = dataclasses.is_dataclass(kind)
    keys[field.name] = section_keys(kind, settings.get(field.name, {}), where) if inner else Key(kind, default)
  return keys
