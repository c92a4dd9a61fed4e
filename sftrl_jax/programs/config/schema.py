"""What keys a config may have, read from the dataclasses that the run will be built from.

A schema is {key: default | type | section}. A bare type, such as int, is a key that has to be given. A section is a
dataclass (its fields are the keys), a function from the section's values so far to a dataclass (for a section where a
key chooses the class: `name`, or what the function's second parameter is called, whose default is the default of the
key; ValueError for an unknown name), or `dict` (free-form: its constructor checks it, see settings.build). A key whose
value says which of several sections there is, is a OneOf.
"""

import dataclasses
import inspect
import types
import typing

from sftrl_jax.programs.config.errors import ConfigError, nearest

REQUIRED = object()   # the default of a key that has none


@dataclasses.dataclass(frozen=True)
class Key:
  """What a schema says of one key: its kind (see values.py) and its default (REQUIRED: it has to be given)."""

  kind: object
  default: object = REQUIRED


@dataclasses.dataclass(frozen=True)
class OneOf:
  """A key that takes the name of one of these sections, {name: dataclass}; a config has that section and no other."""

  default: str
  sections: dict


def expanded(tree, schema) -> dict:
  """The schema of this config: of every OneOf its key, and the section that it names. ConfigError for an unknown name,
  and for a section that is not named."""
  whole = {}
  for key, entry in schema.items():
    if not isinstance(entry, OneOf):
      whole[key] = entry
      continue
    name = tree.get(key, entry.default)
    if not isinstance(name, str) or name not in entry.sections:
      raise ConfigError(f"config.{key} is {name!r}{nearest(str(name), entry.sections)}")
    for other in entry.sections:
      if other in tree and other != name:
        raise ConfigError(f"config.{other} is the section of {key} {other}, but config.{key} is {name!r}: leave it out "
                          f"of the config, or use --config.{key}={other}.")
    whole |= {key: entry.default, name: entry.sections[name]}
  return whole


def switched(tree, key, one_of: OneOf, name, note) -> dict:
  """The config with another of several sections: what the file has for the old one goes, and `note` is told."""
  dropped = [other for other in one_of.sections if other in tree and other != name] if name in one_of.sections else []
  if dropped:
    begins = "has the file's values" if name in tree else "begins with its defaults"
    note(f"{key}: {tree.get(key, one_of.default)} -> {name}; dropped: config.{', config.'.join(dropped)}; "
         f"config.{name} {begins}")
  return {**{other: value for other, value in tree.items() if other not in dropped}, key: name}


def refuse_unchosen(tree, overrides, schema) -> None:
  """ConfigError for an override in a section that another name of its OneOf would bring."""
  for key, one_of in schema.items():
    if isinstance(one_of, OneOf):
      chosen = tree.get(key, one_of.default)
      for path, _ in overrides:
        other = path.partition(".")[0]
        if other in one_of.sections and other != chosen:
          raise ConfigError(f"config.{path} is of {key} {other}, but config.{key} is {chosen!r}: give a key of "
                            f"config.{chosen}, or --config.{key}={other} too.")


def keys_of(tree, schema) -> dict:
  """The schema as {key: Key or {key: ...}}; see the module's docstring for what a schema may hold."""
  keys = {}
  for name, entry in expanded(tree, schema).items():
    if isinstance(entry, types.FunctionType) or (isinstance(entry, type) and dataclasses.is_dataclass(entry)):
      keys[name] = section_keys(entry, tree.get(name, {}), f"config.{name}")
    elif entry is dict:
      keys[name] = Key(dict, {})
    else:
      keys[name] = Key(entry) if isinstance(entry, type) else Key(type(entry), entry)
  return keys


def chooser(section) -> tuple[str, object]:
  """(key, default) of what chooses the class of a section that is a function."""
  more = list(inspect.signature(section).parameters.values())[1:]
  return (more[0].name, more[0].default) if more else ("name", REQUIRED)


def section_keys(section, settings, where="config") -> dict:
  """{key: Key or {key: ...}} of a section of a schema, given the values that the file has in it so far."""
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
