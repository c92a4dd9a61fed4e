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
  """A key that takes the name of one of these sections, {name: dataclass}; a config has that section and no other."""

  default: str
  sections: dict


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
    for section in entry.sections:
      if section in tree and section != name:
        raise ConfigError(f"config.{section} is the section of {key} {section}, but config.{key} is {name!r}: leave it "
                          f"out of the config, or use --config.{key}={section}.")
    result |= {key: entry.default, name: entry.sections[name]}
  return result


def switched(tree: dict, key: str, one_of: OneOf, name: str, note: Callable[[str], None]) -> dict:
  """The config with another choice of a OneOf; drops the file's values of the old section.

  note: called with a sentence if there are such values
  """
  if name not in one_of.sections:
    return {**tree, key: name}   # `expanded` raises the error
  dropped = [section for section in one_of.sections if section in tree and section != name]
  if dropped:
    begins = "has the file's values" if name in tree else "begins with its defaults"
    note(f"{key}: {tree.get(key, one_of.default)} -> {name}; dropped: config.{', config.'.join(dropped)}; "
         f"config.{name} {begins}")
  return {**{entry: value for entry, value in tree.items() if entry not in dropped}, key: name}


def refuse_unchosen(tree: Mapping, overrides: Iterable[tuple[str, str]], schema: Mapping) -> None:
  """ConfigError for an override in a section of a OneOf that this config does not choose."""
  for key, one_of in schema.items():
    if isinstance(one_of, OneOf):
      chosen = tree.get(key, one_of.default)
      for path, _ in overrides:
        section = path.partition(".")[0]
        if section in one_of.sections and section != chosen:
          raise ConfigError(f"config.{path} is of {key} {section}, but config.{key} is {chosen!r}: give a key of "
                            f"config.{chosen}, or --config.{key}={section} too.")


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
