"""Every optimizer of optax and optax.contrib by name: what it takes, where it starts, or why it is refused.

The names are read off the modules, so a newer optax brings its own. One that recommended.py lacks starts with optax's
defaults, provided that it makes a step from (gradient, state, parameters) alone, which is tried.
"""

import dataclasses
import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from sftrl_jax.training.optimizers.recommended import GROUPS, REFUSED, STARTS, WRAPPERS, Start

MODULES = (optax, contrib)
UNLISTED = "Without a recommendation (optax's own defaults)"
RATE = 3e-4  # of an optimizer that neither we nor optax give one

# Arguments that are this project's own under every name, and where they are; "" for what a config cannot write.
OURS = {
    "learning_rate": "optimizer.learning_rate", "adam_learning_rate": "optimizer.factors", "warmup_steps":
    "schedule.warmup", **dict.fromkeys(("weight_decay", "weight_decay_rate", "adam_weight_decay"),
                                       "optimizer.weight_decay"),
    **dict.fromkeys(("mask", "weight_decay_mask", "muon_weight_dimension_numbers", "weight_dimension_numbers",
                     "clip_value_fn", "linesearch", "hessian_diagonal_fn", "seed"), "")}
_PART = "is a part of optimizers, no optimizer by itself"


@dataclasses.dataclass(frozen=True)
class Entry:
  """One optimizer.

  args: every argument that a config may set, with the default it has here; None: off unless set
  kinds: their types, as far as defaults and annotations tell
  """

  name: str
  factory: Callable
  group: str
  learning_rate: float
  args: dict[str, Any]
  kinds: dict[str, Any]
  note: str

  @property
  def given(self) -> dict[str, Any]:
    """The arguments that have a value."""
    return {key: value for key, value in self.args.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Catalogue:
  """What optax offers: {name: Entry}, {name: why not}, {name: what it wraps}, and the parts that these are made of."""

  entries: dict[str, Entry]
  refused: dict[str, str]
  wrappers: dict[str, str]
  parts: tuple[str, ...]


@functools.cache
def catalogue() -> Catalogue:
  """Everything of optax and optax.contrib that makes a gradient transformation, in the order of recommended.py."""
  made = makers()
  refused = {name: REFUSED[name] for name in REFUSED if name in made}
  entries = {name: _entry(name, made[name], group) for group, starts in GROUPS.items() for name in starts
             if name in made}
  wrappers, parts = {}, []
  for name, make in made.items():
    if name in entries or name in refused:
      continue
    if name in WRAPPERS or _wrapped(make):
      wrappers[name] = WRAPPERS.get(name, f"around {', '.join(_wrapped(make))}.")
    elif name.startswith("scale") or "learning_rate" not in inspect.signature(make).parameters:
      parts.append(name)
    elif reason := _tried(make):
      refused[name] = reason
    else:
      entries[name] = _entry(name, make, UNLISTED)
  return Catalogue(entries, refused, wrappers, tuple(parts))


def makers() -> dict[str, Callable]:
  """Name -> public function of optax or optax.contrib that, by its own words, makes a gradient transformation."""
  return {name: make for module in MODULES for name, make in sorted(vars(module).items())
          if not name.startswith("_") and isinstance(make, (types.FunctionType, functools.partial)) and _makes(make)}


def entry(name: str) -> Entry:
  """The optimizer of this name; ValueError, with the reason or the nearest name, for what is none."""
  known = catalogue()
  if name in known.entries:
    return known.entries[name]
  if name in known.refused:
    raise ValueError(f"name is {name!r}, which is refused: {known.refused[name]} name=help lists what works.")
  if name in known.wrappers:
    raise ValueError(f"name is {name!r}, which is a wrapper and no optimizer: {known.wrappers[name]}")
  close = difflib.get_close_matches(name.removeprefix("scale_by_"), known.entries, n=1)
  guess = f"did you mean {close[0]!r}? " if close else ""
  told = f"which {_PART}; " if name in known.parts else ""
  raise ValueError(f"name is {name!r}; {told}{guess}Known: {', '.join(known.entries)}.")


def kind(name: str, key: str):
  """The type of an argument of an optimizer; ValueError, saying where it is or what is nearest, for what is none."""
  there = entry(name)
  if key in there.kinds:
    return there.kinds[key]
  if OURS.get(key):
    raise ValueError(f"is no argument of {name} here: it is config.{OURS[key]}, the same under every name.")
  close = difflib.get_close_matches(key, there.kinds, n=1, cutoff=0.5)
  guess = f": did you mean {close[0]}?" if close else "."
  takes = f"It takes {', '.join(there.kinds)}." if there.kinds else "It takes none."
  raise ValueError(f"is no argument of {name}{guess} {takes}")


def _makes(function) -> bool:
  told = inspect.signature(function).return_annotation
  words = function.__doc__ or "" if told is inspect.Signature.empty else str(told)
  return "GradientTransformation" in words


def _wrapped(make) -> list[str]:
  """The arguments that are optimizers themselves and have to be given."""
  return [name for name, parameter in inspect.signature(make).parameters.items()
          if parameter.default is parameter.empty and (
              "GradientTransformation" in str(parameter.annotation) or name.endswith("optimizer"))]


def _tried(make) -> str:
  """Why this optimizer cannot be used, found out by a step on a small tree; "" if it can."""
  params = {"w": jax.ShapeDtypeStruct((4, 4), jnp.float32)}
  try:
    optimizer = make(learning_rate=RATE)
    jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), params)
  except Exception as error:  # whatever a function that nobody has looked at may raise
    return f"tried with (gradient, state, parameters) alone, it raises {type(error).__name__}: {str(error)[:200]}"
  return ""


def _entry(name, make, group) -> Entry:
  parameters = inspect.signature(make).parameters
  ours = parameters["learning_rate"].default if "learning_rate" in parameters else None
  start = STARTS.get(name, Start(float(ours) if isinstance(ours, (int, float)) else RATE))
  args, kinds = {}, {}
  for key, parameter in parameters.items():
    default = start.args.get(key, _plain(parameter.default))
    if key not in OURS and (key in start.args or _writable(key, parameter)):
      args[key], kinds[key] = default, _kind(key, default, parameter.annotation)
  return Entry(name, make, group, start.learning_rate, args, kinds, start.note)


def _writable(key, parameter) -> bool:
  """Whether a config can write the argument: neither functions nor optimizers."""
  default = parameter.default
  optimizer = isinstance(default, optax.GradientTransformation) or "GradientTransformation" in str(parameter.annotation)
  return not optimizer and ("dtype" in key or not callable(default)) and default is not parameter.empty


def _plain(default):
  """A dtype by its name, anything else as it is."""
  is_dtype = isinstance(default, type) and default is not inspect.Parameter.empty
  return jnp.dtype(default).name if is_dtype else default


def _kind(key, default, annotation):
  """The type of an argument, from its default, or from its annotation where that is None."""
  if typing.get_origin(annotation) is typing.Literal:
    return annotation
  if isinstance(default, tuple):
    presets = "str" in str(annotation) and not isinstance(default[0], str)  # muon's ns_coeffs: numbers, or a name
    return str | tuple if presets else tuple[tuple(type(item) for item in default)]
  if default is not None:
    return type(default)
  if "dtype" in key:
    return str
  words = str(annotation)
  return float if "float" in words or "ArrayLike" in words else int if "int" in words else object
