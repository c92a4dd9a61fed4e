"""The optimizer of a run, from its section of the config: any of optax and optax.contrib by name."""

import dataclasses
from collections.abc import Callable, Container

import optax

from sftrl_jax.training.optimizers import catalogue, families, param_paths
from sftrl_jax.training.state import storable


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Which optimizer, and how.

  name: any of optax and optax.contrib; --config.optimizer.name=help lists them with rates, arguments and memory
  learning_rate: the peak of the schedule
  weight_decay: decoupled for every optimizer: lr * weight_decay * p on matrices; norms, biases and heads are left alone
  clip: global norm of the gradient at most, frozen parameters apart (0: not clipped)
  freeze: globs of parameter paths that are not trained and have no optimizer state
  factors: {glob of parameter paths: factor of their learning rate}, at most one for each parameter; 0 freezes
  args: further arguments of the optimizer's own constructor
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
    try:
      make_optimizer(self, lambda number: self.learning_rate)
    except (TypeError, ValueError, AssertionError) as error:
      raise ValueError(f"args are {self.args}, which {self.name} refuses: {error}") from error


def kind_of(section: dict, key: str, above: str = ""):
  """The type of optimizer.args.KEY; ValueError for what is no argument. Of an unknown optimizer, any is right."""
  known = catalogue.catalogue().entries
  try:
    return catalogue.kind(section["name"], key) if section["name"] in known else object
  except ValueError as error:
    raise ValueError(f"{above}{key} {error}") from error


def swap(optimizer: dict, name: str, given: Container[str] = ()) -> tuple[dict, str]:
  """The section with another optimizer: the old one's args dropped, its documented defaults and our rate filled in.

  given: keys of the section ("learning_rate", "args.b1") that are set otherwise, and so are not told of.
  """
  entry = catalogue.entry(name)
  swapped = {**optimizer, "name": name, "learning_rate": entry.learning_rate, "args": dict(entry.given)}
  told = [] if "learning_rate" in given else [
      f"learning_rate {optimizer['learning_rate']:g} -> {entry.learning_rate:g}"]
  told += [f"{word} {', '.join(f'{key}={value}' for key, value in args.items())}" for word, args in (
      ("without", optimizer["args"]),
      ("with", {key: value for key, value in entry.given.items() if f"args.{key}" not in given})) if args]
  return swapped, f"optimizer.name {optimizer['name']} -> {name}: {'; '.join(told)}".rstrip(": ")


def make_optimizer(optimizer: OptimizerConfig, schedule: Callable) -> optax.GradientTransformation:
  """clip -> the optimizer -> decoupled decay by lr * weight_decay, all times factors; the frozen see none of it."""
  entry = catalogue.entry(optimizer.name)
  frozen = (*optimizer.freeze, *(pattern for pattern, factor in optimizer.factors.items() if not factor))
  factors = {pattern: factor for pattern, factor in optimizer.factors.items() if factor}
  recipe = families.Recipe(entry, {**entry.given, **_tuples(optimizer.args)}, schedule, optimizer.learning_rate,
                           optimizer.weight_decay, factors)
  clip = [optax.clip_by_global_norm(optimizer.clip)] if optimizer.clip else []
  trained = optax.chain(*clip, families.make(recipe))
  whole = storable(param_paths.freeze(trained, frozen) if frozen else trained)

  def init(params):
    param_paths.check(params, optimizer.factors, optimizer.freeze)
    return whole.init(params)

  return optax.GradientTransformation(init, whole.update)


def _tuples(value):
  """Lists as tuples: arguments may have come through JSON."""
  if isinstance(value, dict):
    return {key: _tuples(item) for key, item in value.items()}
  return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
