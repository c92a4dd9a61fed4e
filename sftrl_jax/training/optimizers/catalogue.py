"""Every optimizer by name: of optax and optax.contrib, or of a user's own file; its arguments, or why it is refused.

optax's names are read from its modules, so a newer optax brings its own. One that recommended.py lacks starts with
optax's defaults, provided that it makes a step from (gradient, state, parameters) alone, which is tried.
"""

import dataclasses
import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Container
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from sftrl_jax.envs.referee import where
from sftrl_jax.training.optimizers.recommended import GROUPS, REFUSED, STARTS, WRAPPERS, Start

MODULES = (optax, contrib)
USERS = "Of a user's own file"
UNLISTED = "Without a recommendation (optax's own defaults)"
RATE = 3e-4  # of an optimizer that neither we nor optax give one

# Arguments that decay parameters: off in every optimizer, because `optimizer.weight_decay` means the same in all.
DECAYS = ("weight_decay", "weight_decay_rate", "adam_weight_decay")
# Arguments that are this project's own under every name, and where they are; "" for what a config cannot write.
OURS = {
    "learning_rate": "optimizer.learning_rate", "adam_learning_rate": "optimizer.factors",
    "warmup_steps": "schedule.warmup", **dict.fromkeys(DECAYS, "optimizer.weight_decay"),
    **dict.fromkeys(("mask", "weight_decay_mask", "muon_weight_dimension_numbers", "weight_dimension_numbers",
                     "clip_value_fn", "linesearch", "hessian_diagonal_fn", "seed"), "")}
_PART = "is a part of optimizers, no optimizer by itself"


@dataclasses.dataclass(frozen=True)
class OptimizerEntry:
  """One optimizer.

  factory: (learning rate or schedule, **args) -> optax.GradientTransformation
  learning_rate: where a run that names only the optimizer starts
  args: every argument that a config may set, with the default it has here; None: off unless set
  kinds: their types, as far as defaults and annotations show
  note: a line for the page of optimizers
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
  """What optax offers: {name: OptimizerEntry}, {name: why not}, {name: what it wraps}, and the parts of these."""

  entries: dict[str, OptimizerEntry]
  refused: dict[str, str]
  wrappers: dict[str, str]
  parts: tuple[str, ...]


@functools.cache
def catalogue() -> Catalogue:
  """All gradient transformations of optax and optax.contrib, in the order of recommended.py."""
  factories = makers()
  refused = {name: REFUSED[name] for name in REFUSED if name in factories}
  entries = {name: _entry(name, factories[name], group) for group, starts in GROUPS.items() for name in starts
             if name in factories}
  wrappers, parts = {}, []
  for name, factory in factories.items():
    if name in entries or name in refused:
      continue
    if name in WRAPPERS or _wrapped(factory):
      wrappers[name] = WRAPPERS.get(name, f"around {', '.join(_wrapped(factory))}.")
    elif name.startswith("scale") or "learning_rate" not in inspect.signature(factory).parameters:
      parts.append(name)
    elif reason := _error_of_a_step(factory):
      refused[name] = reason
    else:
      entries[name] = _entry(name, factory, UNLISTED)
  return Catalogue(entries, refused, wrappers, tuple(parts))


def makers() -> dict[str, Callable]:
  """Name -> public function of optax or optax.contrib that, by its own words, makes a gradient transformation."""
  return {name: factory for module in MODULES for name, factory in sorted(vars(module).items())
          if not name.startswith("_") and isinstance(factory, (types.FunctionType, functools.partial))
          and _returns_optimizer(factory)}


def entry(name: str) -> OptimizerEntry:
  """The optimizer of this name, or of `path/to/file.py:function`; ValueError, with the reason or the nearest name, for
  any other text."""
  if is_user_file(name):
    return _user_entry(name)
  known = catalogue()
  if name in known.entries:
    return known.entries[name]
  if name in known.refused:
    raise ValueError(f"name is {name!r}, which is refused: {known.refused[name]} name=help lists what works.")
  if name in known.wrappers:
    raise ValueError(f"name is {name!r}, which is a wrapper and no optimizer: {known.wrappers[name]}")
  close = difflib.get_close_matches(name.removeprefix("scale_by_"), known.entries, n=1)
  guess = f"did you mean {close[0]!r}? " if close else ""
  reason = f"which {_PART}; " if name in known.parts else ""
  raise ValueError(f"name is {name!r}; {reason}{guess}Known: {', '.join(known.entries)}, or path/to/file.py:function "
                   "of your own.")


def kind(name: str, key: str) -> Any:
  """The type of an argument of an optimizer; ValueError for a key that is none, with its place or the nearest key."""
  optimizer = entry(name)
  if key in optimizer.kinds:
    return optimizer.kinds[key]
  if OURS.get(key):
    raise ValueError(f"is no argument of {name} here: it is config.{OURS[key]}, the same under every name.")
  close = difflib.get_close_matches(key, optimizer.kinds, n=1, cutoff=0.5)
  guess = f": did you mean {close[0]}?" if close else "."
  takes = f"It takes {', '.join(optimizer.kinds)}." if optimizer.kinds else "It takes none."
  raise ValueError(f"is no argument of {name}{guess} {takes}")


def is_user_file(name: str) -> bool:
  """Whether a name is `path/to/file.py:function`, or such a path without its function."""
  return name.endswith(".py") or ".py:" in name


def set_user_file_loader(load: Callable[[str], Callable]) -> None:
  """Sets what loads `path/to/file.py:function`: that is the task of programs/, which this room may not import.

  load: ValueError, with a message that begins with "name", for a text that names no function
  """
  global _load_user_file
  _load_user_file = load


def _load_user_file(name: str) -> Callable:
  raise ValueError(f"name is {name!r}, a path, but no loader of user files is set: import "
                   "sftrl_jax.programs.experiment.sections.")


def _user_entry(name: str) -> OptimizerEntry:
  """The optimizer of a user's function; ValueError where it cannot be called by its learning rate alone."""
  function = _load_user_file(name)
  arguments = inspect.signature(function).parameters
  if next(iter(arguments), None) != "learning_rate":
    raise ValueError(f"name is {name!r}, but the first argument of the function is not learning_rate: write "
                     f"def {function.__name__}(learning_rate, ...) in {where(function)}.")
  several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
  needed = [key for key, argument in list(arguments.items())[1:]
            if argument.default is argument.empty and argument.kind not in several]
  if needed:
    raise ValueError(f"name is {name!r}, whose {', '.join(needed)} has no default: write one in {where(function)}; "
                     "config.optimizer.args sets another value.")

  @functools.wraps(function)
  def factory(*args, **kwargs) -> optax.GradientTransformation:
    optimizer = function(*args, **kwargs)
    if not isinstance(optimizer, optax.GradientTransformation):
      raise ValueError(f"it returned {type(optimizer).__name__}, but must return an optax.GradientTransformation: "
                       f"{where(function)}")
    return optimizer

  return _entry(name, factory, USERS, ours=("learning_rate", *DECAYS))


def _returns_optimizer(function: Callable) -> bool:
  annotation = inspect.signature(function).return_annotation
  words = function.__doc__ or "" if annotation is inspect.Signature.empty else str(annotation)
  return "GradientTransformation" in words


def _wrapped(factory: Callable) -> list[str]:
  """The arguments that are optimizers themselves and have to be given."""
  return [name for name, parameter in inspect.signature(factory).parameters.items()
          if parameter.default is parameter.empty and (
              "GradientTransformation" in str(parameter.annotation) or name.endswith("optimizer"))]


def _error_of_a_step(factory: Callable) -> str:
  """Why a step on a small tree fails with this optimizer; "" if it does not."""
  params = {"w": jax.ShapeDtypeStruct((4, 4), jnp.float32)}
  try:
    optimizer = factory(learning_rate=RATE)
    jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), params)
  except Exception as error:  # of any kind, since nobody has looked at the function
    return f"tried with (gradient, state, parameters) alone, it raises {type(error).__name__}: {str(error)[:200]}"
  return ""


def _entry(name: str, factory: Callable, group: str, ours: Container[str] = frozenset(OURS)) -> OptimizerEntry:
  """The entry of a function by its signature. ours: arguments that `args` may not set."""
  parameters = inspect.signature(factory).parameters
  theirs = parameters["learning_rate"].default if "learning_rate" in parameters else None
  start = STARTS.get(name, Start(float(theirs) if isinstance(theirs, (int, float)) else RATE))
  args, kinds = {}, {}
  for key, parameter in parameters.items():
    default = start.args.get(key, _plain(parameter.default))
    if key not in ours and (key in start.args or _writable(key, parameter)):
      args[key], kinds[key] = default, _kind(key, default, parameter.annotation)
  return OptimizerEntry(name, factory, group, start.learning_rate, args, kinds, start.note)


def _writable(key: str, parameter: inspect.Parameter) -> bool:
  """Whether a config can write the argument: neither functions nor optimizers."""
  default = parameter.default
  optimizer = isinstance(default, optax.GradientTransformation) or "GradientTransformation" in str(parameter.annotation)
  return not optimizer and ("dtype" in key or not callable(default)) and default is not parameter.empty


def _plain(default: Any) -> Any:
  """A dtype by its name, any other default as it is."""
  is_dtype = isinstance(default, type) and default is not inspect.Parameter.empty
  return jnp.dtype(default).name if is_dtype else default


def _kind(key: str, default: Any, annotation: Any) -> Any:
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
