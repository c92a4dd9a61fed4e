"""What keys a config may have, read from the dataclasses that the run will be built from.

A schema is {key: default | type | section}. A bare type, such as int, is a key that has to be given. A section is a
dataclass (its fields are the keys), a function from the section's values so far to a dataclass (for a section whose
`name` chooses the class; ValueError for an unknown name; a default of its parameter `name` is the default of the key),
or `dict` (free-form: its constructor checks it, see settings.build).
"""

import dataclasses
import inspect
import types
import typing

from sftrl_jax.programs.mistakes import ConfigError

REQUIRED = object()   # the default of a key that has none


@dataclasses.dataclass(frozen=True)
class Key:
  """What a schema says of one key: its kind (see values.py) and its default (REQUIRED: it has to be given)."""

  kind: object
  default: object = REQUIRED


def keys_of(tree, schema) -> dict:
  """The schema as {key: Key or {key: ...}}; see the module's docstring for what a schema may hold."""
  keys = {}
  for name, entry in schema.items():
    if isinstance(entry, types.FunctionType) or (isinstance(entry, type) and dataclasses.is_dataclass(entry)):
      keys[name] = section_keys(entry, tree.get(name, {}), f"config.{name}")
    elif entry is dict:
      keys[name] = Key(dict, {})
    else:
      keys[name] = Key(entry) if isinstance(entry, type) else Key(type(entry), entry)
  return keys


def section_keys(section, settings, where="config") -> dict:
  """{key: Key or {key: ...}} of a section of a schema, given the values that the file has in it so far."""
  if isinstance(section, types.FunctionType):
    try:
      chosen = section(settings)
    except ConfigError:
      raise
    except ValueError as error:
      raise ConfigError(f"{where}.{error}" if str(error).startswith("name") else f"{where}: {error}") from error
    named = inspect.signature(section).parameters.get("name")
    return {"name": Key(str, named.default if named else REQUIRED), **section_keys(chosen, settings, where)}
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
