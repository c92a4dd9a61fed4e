"""The keys that a config may have, read from the dataclasses of the run's parts.

A schema is {key: default | type | section}. A bare type, such as int, is a key without a default. A section is one of

- a dataclass, whose fields are the keys;
- a function from the section's values so far to a dataclass, where one key chooses the class. That key is `name`, or
  has the name and default of the function's second parameter. The function raises ValueError for an unknown name;
- `dict`: free-form, checked by its constructor (resolve.build).

A key whose value selects one of several sections is a OneOf.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sftrl_jax.programs.config.errors import ConfigError, nearest

REQUIRED = object()   # the default of a key without one
Schema = Mapping[str, Any]
Section = type | Callable[..., type]   # a dataclass, or a function that chooses one


@dataclasses.dataclass(frozen=True)
class Key:
  """One key: its kind (see values.py) and its default (REQUIRED: a config must give it)."""

  kind: object
  default: object = REQUIRED


@dataclasses.dataclass(frozen=True)
class OneOf:
  """A key whose value is the name of one of these sections; a config has that section and none of the others."""

  default: str
  sections: Mapping[str, Section]


def expanded(tree: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
  """The schema of this config: every OneOf is replaced by its key and the section that the config selects.

  ConfigError for an unknown name, and for a section that the config has and does not select.
  """
  whole = {}
  for key, entry in schema.items():
    if not isinstance(entry, OneOf):
      whole[key] = entry
      continue
    name = tree.get(key, entry.default)
    if not isinstance(name, str) or name not in entry.sections:
      raise ConfigError(f"config.{key} is {name!r}{nearest(str(name), entry.sections)}")
    for section in entry.sections:
      if section in tree and section != name:
        raise ConfigError(f"config.{section} is the section of {key} {section}, but config.{key} is {name!r}: leave it "
                          f"out of the config, or use --config.{key}={section}.")
    whole |= {key: entry.default, name: entry.sections[name]}
  return whole


def switched(tree: Mapping[str, Any], key: str, one_of: OneOf, name: str,
             note: Callable[[str], None]) -> dict[str, Any]:
  """The config with `key` set to `name`, without the sections that this deselects; `note` gets a line about them."""
  dropped = []
  if name in one_of.sections:
    dropped = [section for section in one_of.sections if section in tree and section != name]
  if dropped:
    begins = "has the file's values" if name in tree else "begins with its defaults"
    note(f"{key}: {tree.get(key, one_of.default)} -> {name}; dropped: config.{', config.'.join(dropped)}; "
         f"config.{name} {begins}")
  return {**{path: value for path, value in tree.items() if path not in dropped}, key: name}


def refuse_unchosen(tree: Mapping[str, Any], overrides: Sequence[tuple[str, str]], schema: Schema) -> None:
  """ConfigError for an override in a section of a OneOf that the config does not select."""
  for key, one_of in schema.items():
    if isinstance(one_of, OneOf):
      chosen = tree.get(key, one_of.default)
      for path, _ in overrides:
        section = path.partition(".")[0]
        if section in one_of.sections and section != chosen:
          raise ConfigError(f"config.{path} is of {key} {section}, but config.{key} is {chosen!r}: give a key of "
                            f"config.{chosen}, or --config.{key}={section} too.")


def keys_of(tree: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
  """The schema as {key: Key or {key: ...}}, for the sections that this config selects."""
  keys = {}
  for name, entry in expanded(tree, schema).items():
    if isinstance(entry, types.FunctionType) or (isinstance(entry, type) and dataclasses.is_dataclass(entry)):
      keys[name] = section_keys(entry, tree.get(name, {}), f"config.{name}")
    elif entry is dict:
      keys[name] = Key(dict, {})
    else:
      keys[name] = Key(entry) if isinstance(entry, type) else Key(type(entry), entry)
  return keys


def chooser(section: Callable[..., type]) -> tuple[str, Any]:
  """(key, default) of the key that chooses the class of a section that is a function."""
  parameters = list(inspect.signature(section).parameters.values())
  return (parameters[1].name, parameters[1].default) if len(parameters) > 1 else ("name", REQUIRED)


def section_keys(section: Section, settings: Any, where: str = "config") -> dict[str, Any]:
  """{key: Key or {key: ...}} of a section of a schema.

  settings: the values that the file has in the section; they may choose its class
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
    nested = dataclasses.is_dataclass(kind)
    keys[field.name] = section_keys(kind, settings.get(field.name, {}), where) if nested else Key(kind, default)
  return keys
