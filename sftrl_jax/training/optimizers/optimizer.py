"""The optimizer of a run, from its section of the config: any of optax by name, or a user's own by path."""

import dataclasses
from collections.abc import Callable, Container
from typing import Any

import optax

from sftrl_jax.training.optimizers import catalogue, families, param_paths, ranges
from sftrl_jax.training.state import storable


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Which optimizer, and how.

  name: any of optax and optax.contrib, which --config.optimizer.name=help lists with rates, arguments and memory; or
    path/to/file.py:function of your own, called as function(learning_rate, **args), which returns an
    optax.GradientTransformation. Its learning_rate is the schedule, update number -> rate, unless it is annotated as a
    float: then it is 1 and the step is scaled by the schedule. An argument weight_decay of it stays 0
  learning_rate: the peak of the schedule
  weight_decay: decoupled for every optimizer: lr * weight_decay * p on matrices; norms, biases and heads are left alone
  clip: global norm of the gradient at most, frozen parameters apart (0: not clipped)
  freeze: globs of parameter paths that are not trained and have no optimizer state
  factors: {glob of parameter paths: factor of their learning rate}, at most one for each parameter; 0 freezes
  args: further arguments of the optimizer's own function, by its signature
  """

  name: str = "adamw"
  learning_rate: float = 3e-4
  weight_decay: float = 0.0
  clip: float = 1.0
  freeze: tuple[str, ...] = ()
  factors: dict[str, float] = dataclasses.field(default_factory=dict)
  args: dict = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    catalogue.entry(self.name)
    if not self.learning_rate > 0:
      raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive.")
    for field in ("weight_decay", "clip"):
      if getattr(self, field) < 0:
        raise ValueError(f"{field} is {getattr(self, field)}; it must not be negative.")
    if isinstance(self.freeze, str):
      raise ValueError(f"freeze is {self.freeze!r}; it must be a list of globs, such as ('model/embed',).")
    for pattern, factor in self.factors.items():
      if not factor >= 0:
        raise ValueError(f"factors[{pattern!r}] is {factor}; it must be 0 (frozen) or positive.")
    for key, value in self.args.items():
      kind_of({"name": self.name}, key, "args.")
      if key == "base_optimizer":
        families.refuse_base(value)
    if not catalogue.is_user_file(self.name):
      ranges.refuse(self.name, {**catalogue.entry(self.name).given, **self.args})
    raised = Exception if catalogue.is_user_file(self.name) else (TypeError, ValueError, AssertionError)
    try:
      make_optimizer(self, lambda number: self.learning_rate)
    except raised as error:
      raise ValueError(f"args are {self.args}, which {self.name} refuses: {_described(error)}") from error


def _described(error: Exception) -> str:
  """The message of an error, after its type where the message alone may say nothing, as that of a KeyError."""
  plain = isinstance(error, (TypeError, ValueError, AssertionError))
  return str(error) if plain else f"{type(error).__name__}: {error}"


def kind_of(section: dict, key: str, above: str = "") -> Any:
  """The type of optimizer.args.KEY; ValueError for a key that is no argument, but any key is right for an unknown name.

  section: the section `optimizer`; above: what stands before the key in the message
  """
  name = section["name"]
  known = name in catalogue.catalogue().entries or catalogue.is_user_file(name)
  try:
    return catalogue.kind(name, key) if known else object
  except ValueError as error:
    raise ValueError(f"{above}{key} {error}") from error


def swap(optimizer: dict, name: str, given: Container[str] = ()) -> tuple[dict, str]:
  """(section, message): the section with another optimizer, the old args dropped, its defaults and rate filled in.

  given: keys of the section ("learning_rate", "args.b1") that the command line sets too, which the message leaves out
  """
  entry = catalogue.entry(name)
  swapped = {**optimizer, "name": name, "learning_rate": entry.learning_rate, "args": dict(entry.given)}
  changes = [] if "learning_rate" in given else [
      f"learning_rate {optimizer['learning_rate']:g} -> {entry.learning_rate:g}"]
  changes += [f"{word} {', '.join(f'{key}={value}' for key, value in args.items())}" for word, args in (
      ("without", optimizer["args"]),
      ("with", {key: value for key, value in entry.given.items() if f"args.{key}" not in given})) if args]
  return swapped, f"optimizer.name {optimizer['name']} -> {name}: {'; '.join(changes)}".rstrip(": ")


def make_optimizer(optimizer: OptimizerConfig, schedule: Callable) -> optax.GradientTransformation:
  """clip -> the optimizer -> decoupled decay by lr * weight_decay, all times factors; frozen parameters see none of it.

  schedule: update number -> learning rate
  """
  entry = catalogue.entry(optimizer.name)
  frozen = (*optimizer.freeze, *(pattern for pattern, factor in optimizer.factors.items() if not factor))
  factors = {pattern: factor for pattern, factor in optimizer.factors.items() if factor}
  recipe = families.Recipe(entry, {**entry.given, **_tuples(optimizer.args)}, schedule, optimizer.learning_rate,
                           optimizer.weight_decay, factors)
  clip = [optax.clip_by_global_norm(optimizer.clip)] if optimizer.clip else []
  trained = optax.chain(*clip, families.make(recipe))
  storable_optimizer = storable(param_paths.freeze(trained, frozen) if frozen else trained)

  def init(params: optax.Params) -> optax.OptState:
    param_paths.check(params, optimizer.factors, optimizer.freeze)
    return storable_optimizer.init(params)

  return optax.GradientTransformation(init, storable_optimizer.update)


def _tuples(value: Any) -> Any:
  """Lists as tuples, because arguments may have come through JSON."""
  if isinstance(value, dict):
    return {key: _tuples(item) for key, item in value.items()}
  return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
