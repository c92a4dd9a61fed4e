"""One value of a config: from the text of a command line, or from a config file, to the type its key declares.

A kind is a type annotation: bool, int, float, str, Literal, a union, tuple, list, dict, with or without element types.
Every error is a ValueError with the value and the rule; the caller adds the key.
"""

import ast
import math
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

UNIONS = (typing.Union, types.UnionType)
CONTAINERS = (tuple, list, dict)
SMALLEST_FLOAT, LARGEST_FLOAT = 1.2e-38, 3.4e38   # devices compute with float32
LARGEST = 2**31 - 1   # counts, sizes and seeds are 32-bit integers on a device


def describe(kind: Any) -> str:
  """A kind as help and errors write it: `int`, `'adam' | 'muon'`, `tuple of int`."""
  if get_origin(kind) is Literal:
    return " | ".join(repr(choice) for choice in get_args(kind))
  if get_origin(kind) in UNIONS:
    return " or ".join(describe(member) for member in get_args(kind))
  if get_origin(kind) is dict:
    return f"dict of {describe(get_args(kind)[1])}"
  if get_origin(kind) in CONTAINERS:
    members = [member for member in get_args(kind) if member is not Ellipsis]
    repeated = get_origin(kind) is list or Ellipsis in get_args(kind)
    words = describe(members[0]) if repeated else ", ".join(describe(member) for member in members)
    return f"{get_origin(kind).__name__} of {words}"
  names = {Any: "any", object: "any", type(None): "none"}
  return names.get(kind) or getattr(kind, "__name__", str(kind))


def fit(value: Any, kind: Any) -> Any:
  """The value of a config file as its declared kind: ints become floats, lists become tuples, nothing else changes.

  Raises ValueError for None, and for a value of another kind.
  """
  if value is None:
    raise ValueError("is None, and a config holds no None: leave the key out to get its default")
  origin = get_origin(kind)
  if kind in (Any, object):
    _refuse_unstorable(value)
    return value
  if origin is Literal:
    return _choice(value, get_args(kind), lambda choice: choice == value and type(choice) is type(value))
  if origin in UNIONS:
    return _first_that_fits(value, kind, fit)
  if (origin or kind) in CONTAINERS:
    return _fit_container(value, kind)
  if kind is float and type(value) is int:
    return _in_float32(value)
  if kind in (bool, int) and type(value) is not kind or not isinstance(value, kind):
    raise ValueError(f"is {value!r}, but should be {describe(kind)}")
  _refuse_unstorable(value)
  return RANGES.get(kind, lambda value: value)(value)


def parse(text: str, kind: Any) -> Any:
  """The text of one `--config.key=text` as the declared kind; ValueError with the texts that the kind accepts."""
  origin = get_origin(kind)
  if origin is Literal:
    return _choice(text, get_args(kind), lambda choice: str(choice) == text)
  if origin in UNIONS:
    return _first_that_fits(text, kind, parse)
  if (origin or kind) in CONTAINERS:
    return _parse_container(text, kind)
  if kind in SCALARS:
    return SCALARS[kind](text)
  return fit(literal(text), object)


def text_of(value: Any) -> str:
  """The text that `parse` reads as this value."""
  return str(value).lower() if isinstance(value, bool) else str(value)


def literal(text: str) -> Any:
  """The Python literal that the text spells, or the text itself, for a key without a declared kind."""
  if text in ("true", "false"):
    return text == "true"
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return text


def _parse_bool(text: str) -> bool:
  if text.lower() not in ("true", "false"):
    raise ValueError(f"is {text!r}, but should be bool: write true or false")
  return text.lower() == "true"


def _parse_int(text: str) -> int:
  try:
    return _in_range(int(text))
  except ValueError:
    number = _number(text)
    if number is None or number != int(number):
      raise ValueError(f"is {text!r}, but should be int: write a whole number such as 8 or 1e6") from None
    return _in_range(int(number))


def _parse_float(text: str) -> float:
  number = _number(text)
  if number is None:
    raise ValueError(f"is {text!r}, but should be float: write a finite number such as 0.1 or 3e-4")
  return _in_float32(number)


def _number(text: str) -> float | None:
  """The finite float that the text spells, else None."""
  try:
    number = float(text)
  except ValueError:
    return None
  return number if math.isfinite(number) else None


SCALARS = {bool: _parse_bool, int: _parse_int, float: _parse_float, str: str}


def _in_range(value: int) -> int:
  if abs(value) > LARGEST:
    raise ValueError(f"is {str(value)[:40]}, but should be int from {-LARGEST} to {LARGEST}")
  return value


def _in_float32(value: float) -> float:
  """The float; ValueError where it is infinite, or 0 though it is written otherwise, for a device."""
  if value and not SMALLEST_FLOAT <= abs(value) <= LARGEST_FLOAT:
    raise ValueError(f"is {str(value)[:40]}, but should be 0 or of a size from {SMALLEST_FLOAT} to {LARGEST_FLOAT}, as "
                     "float32 holds it")
  return float(value)


RANGES = {int: _in_range, float: _in_float32}


def _refuse_unstorable(value: Any) -> None:
  """ValueError for a value that config.json cannot hold."""
  if isinstance(value, float) and not math.isfinite(value):
    raise ValueError(f"is {value}, but should be a finite number")
  if isinstance(value, CONTAINERS):
    for item in value.values() if isinstance(value, dict) else value:
      _refuse_unstorable(item)
  elif value is not None and not isinstance(value, (bool, int, float, str)):   # None has an error of its own
    raise ValueError(f"is {str(value)[:60]} ({type(value).__name__}), but a config holds only numbers, text, true, "
                     "false, tuples, lists and dicts")


def _choice(value: Any, choices: tuple, accepts: Callable[[Any], bool]) -> Any:
  for choice in choices:
    if accepts(choice):
      return choice
  raise ValueError(f"is {value!r}, but should be one of {', '.join(repr(choice) for choice in choices)}")


def _first_that_fits(value: Any, kind: Any, read: Callable) -> Any:
  """The value as the first member of a union that accepts it: int before float; str, which accepts any text, last."""
  order = {bool: 0, int: 1, float: 2, str: 4}
  for member in sorted(get_args(kind), key=lambda member: order.get(member, 3)):
    try:
      return read(value, member)
    except ValueError:
      continue
  raise ValueError(f"is {value!r}, but should be {describe(kind)}")


def _parse_container(text: str, kind: Any) -> Any:
  container = get_origin(kind) or kind
  value = literal(text)
  words = isinstance(value, str) and container is not dict and str in get_args(kind)
  if words:
    value = tuple(word.strip() for word in text.split(",") if word.strip())
  if not isinstance(value, dict if container is dict else (tuple, list)):
    example = {dict: "\"{'a': 1}\"", tuple: '"(1, 2)"', list: '"[1, 2]"'}[container]
    raise ValueError(f"is {text!r}, but should be {describe(kind)}: write it as in Python, for example {example}")
  return fit(value, kind)


def _fit_container(value: Any, kind: Any) -> Any:
  container = get_origin(kind) or kind
  members = get_args(kind)
  if not isinstance(value, dict if container is dict else (tuple, list)):
    raise ValueError(f"is {value!r}, but should be {describe(kind)}")
  if container is dict:
    return {str(key): fit(item, members[1] if members else object) for key, item in value.items()}
  if container is tuple and members and Ellipsis not in members:
    if len(value) != len(members):
      raise ValueError(f"is {value!r}, but should be {len(members)} values: {describe(kind)}")
    return tuple(fit(item, member) for item, member in zip(value, members, strict=True))
  return container(fit(item, members[0] if members else object) for item in value)
