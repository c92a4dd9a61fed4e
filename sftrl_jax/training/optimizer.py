"""Optimizers and schedules by name. Weight decay means the same thing under every optimizer."""

import dataclasses
import fnmatch
import inspect
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from sftrl_jax import trees

FACTORIES: dict[str, Callable] = {
    "adamw": optax.adamw, "adam": optax.adam, "lion": optax.lion, "adafactor": optax.adafactor,
    "muon": contrib.muon, "sgd": optax.sgd}

# Learning rates for a start when the name is swapped: adamw's usual one and what others need relative to it.
LEARNING_RATES = {"adamw": 3e-4, "adam": 3e-4, "lion": 3e-5, "adafactor": 3e-4, "muon": 1e-3, "sgd": 1e-1}

# Ours wherever optax's own default is not what its paper recommends for transformers, or decays by another rule.
DEFAULTS: dict[str, dict[str, Any]] = {
    "adamw": {"b1": 0.9, "b2": 0.98, "eps": 1e-8}, "adam": {"b1": 0.9, "b2": 0.98, "eps": 1e-8},
    "lion": {"b1": 0.9, "b2": 0.99}, "adafactor": {"multiply_by_parameter_scale": False},
    "muon": {"beta": 0.95, "ns_steps": 5, "adam_b1": 0.9, "adam_b2": 0.98}, "sgd": {"momentum": 0.9}}

_OURS = ("learning_rate", "weight_decay", "weight_decay_rate", "adam_weight_decay", "mask", "weight_decay_mask",
         "muon_weight_dimension_numbers")


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """Which optimizer, and how.

  name: adamw, adam, lion, adafactor, muon or sgd
  learning_rate: the peak of the schedule
  weight_decay: decoupled for every optimizer: lr * weight_decay * p on matrices; norms, biases and heads are left alone
  clip: global norm of the gradient at most (0: not clipped)
  factors: {glob of parameter paths: factor of their learning rate}, at most one for each parameter
  args: further arguments of the optimizer's own constructor
  """

  name: str = "adamw"
  learning_rate: float = 3e-4
  weight_decay: float = 0.0
  clip: float = 1.0
  factors: dict[str, float] = dataclasses.field(default_factory=dict)
  args: dict = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    _known(self.name)
    if not self.learning_rate > 0:
      raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive.")
    for field in ("weight_decay", "clip"):
      if getattr(self, field) < 0:
        raise ValueError(f"{field} is {getattr(self, field)}; it must not be negative.")
    for pattern, factor in self.factors.items():
      if not factor >= 0:
        raise ValueError(f"factors[{pattern!r}] is {factor}; it must be 0 (frozen) or positive.")
    taken = [name for name in inspect.signature(FACTORIES[self.name]).parameters if name not in _OURS]
    for key in self.args:
      if key not in taken:
        raise ValueError(f"args.{key} is no argument of {self.name}: it takes {', '.join(taken)}.")


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The learning rate over optimizer updates.

  name: "constant", "linear" (to `end`), "cosine" (to `end`), or "inverse_sqrt" (after the warm-up)
  warmup: updates from 0 to the peak, linear
  updates: length of the whole schedule, for linear and cosine (0: all updates of the run)
  end: last learning rate as a share of the peak
  """

  name: Literal["constant", "linear", "cosine", "inverse_sqrt"] = "constant"
  warmup: int = 0
  updates: int = 0
  end: float = 0.0

  def __post_init__(self):
    if self.name not in ("constant", "linear", "cosine", "inverse_sqrt"):
      raise ValueError(f"name is {self.name!r}; it must be one of constant, linear, cosine, inverse_sqrt.")
    for field in ("warmup", "updates"):
      if getattr(self, field) < 0:
        raise ValueError(f"{field} is {getattr(self, field)}; it must not be negative.")
    if not 0 <= self.end <= 1:
      raise ValueError(f"end is {self.end}; it must lie in [0, 1].")


def _known(name: str) -> None:
  if name not in FACTORIES:
    import difflib
    close = difflib.get_close_matches(name, FACTORIES, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"name is {name!r}; {guess}Known: {', '.join(FACTORIES)}.")


def swap(optimizer: dict, name: str) -> tuple[dict, str]:
  """The section with another optimizer: the old one's args dropped, its documented defaults and our rate filled in."""
  _known(name)
  swapped = {**optimizer, "name": name, "learning_rate": LEARNING_RATES[name], "args": dict(DEFAULTS[name])}
  return swapped, (f"optimizer.name: {optimizer['name']} -> {name}; args now {DEFAULTS[name]}, "
                   f"learning_rate {optimizer['learning_rate']:g} -> {LEARNING_RATES[name]:g}")


def make_schedule(schedule: Schedule, peak: float, updates: int) -> Callable:
  """update number -> learning rate."""
  length = max(1, (schedule.updates or updates) - schedule.warmup)
  after = {
      "constant": lambda: optax.constant_schedule(peak),
      "linear": lambda: optax.linear_schedule(peak, peak * schedule.end, length),
      "cosine": lambda: optax.cosine_decay_schedule(peak, length, schedule.end),
      "inverse_sqrt": lambda: lambda n: peak * jnp.sqrt(max(1, schedule.warmup) / (n + max(1, schedule.warmup)))}
  main = after[schedule.name]()
  if not schedule.warmup:
    return main
  # The first update already learns: warm-up runs from 1/warmup to 1.
  rise = lambda n: peak * jnp.minimum(1.0, (n + 1) / schedule.warmup)
  return lambda n: jnp.where(n < schedule.warmup, rise(n), main(jnp.maximum(n - schedule.warmup, 0)))


def make_optimizer(optimizer: Optimizer, schedule: Callable) -> optax.GradientTransformation:
  """clip -> the optimizer -> decoupled decay of matrices by lr * weight_decay."""
  factory = FACTORIES[optimizer.name]
  parameters = inspect.signature(factory).parameters
  args = {**DEFAULTS[optimizer.name], **optimizer.args}
  for name, off in (("weight_decay", 0.0), ("weight_decay_rate", None), ("adam_weight_decay", 0.0)):
    if name in parameters:  # the library's own decay is off: under adafactor it would not follow the learning rate
      args[name] = off
  if optimizer.name == "muon":
    args["muon_weight_dimension_numbers"] = muon_dimensions
  links = [optax.clip_by_global_norm(optimizer.clip)] if optimizer.clip else []
  links.append(factory(learning_rate=schedule, **args))
  if optimizer.weight_decay:
    links.append(decoupled_decay(optimizer.weight_decay, schedule))
  if optimizer.factors:
    links.append(scale_by_path(optimizer.factors))
  return optax.chain(*links)


def scale_by_path(factors: dict[str, float]) -> optax.GradientTransformation:
  """Updates times the factor of the pattern that matches their path. ValueError when two match, or one matches none."""

  def factor_of(path: str) -> float:
    found = [pattern for pattern in factors if fnmatch.fnmatchcase(path, pattern)]
    if len(found) > 1:
      raise ValueError(f"config.optimizer.factors: {path} matches {found}; let one pattern match it.")
    return factors[found[0]] if found else 1.0

  def init(params):
    paths = trees.leaves(params)
    for pattern in factors:
      if not any(fnmatch.fnmatchcase(path, pattern) for path in paths):
        raise ValueError(f"config.optimizer.factors: {pattern!r} matches no parameter; there are {', '.join(paths)}.")
    return optax.EmptyState()

  def update(updates, state, params=None):
    return trees.map_with_path(lambda path, u: u * factor_of(path), updates), state

  return optax.GradientTransformation(init, update)


def decays(path: str) -> bool:
  """Matrices of the model decay; norms, biases and the value head do not."""
  return path.startswith("model/") and not path.endswith("scale")


def decoupled_decay(weight_decay: float, schedule: Callable) -> optax.GradientTransformation:
  """updates - lr(n) * weight_decay * p on the parameters that decay (Loshchilov & Hutter 2019)."""

  def update(updates, count, params=None):
    rate = jnp.asarray(schedule(count) * weight_decay)  # a constant schedule returns a float
    decayed = lambda path, p: p * rate.astype(p.dtype) if decays(path) else jnp.zeros_like(p)
    return jax.tree.map(jnp.subtract, updates, trees.map_with_path(decayed, params)), count + 1

  return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


# Reads and writes of the matrices inside blocks, by axis, layers first; everything else goes to Adam.
_MUON = {r".*/attn/[qkv]/kernel": ((1,), (2, 3)), r".*/attn/o/kernel": ((1, 2), (3,)),
         r".*/mlp/(gate|up|down)/kernel": ((1,), (2,))}


def muon_dimensions(params):
  """Which axes of a leaf Muon orthogonalises, None for Adam. Its default would take the embedding and miss the scanned
  blocks, whose layer axis is a batch of matrices."""

  def choose(path: str, leaf):
    inside = path.startswith("model/layers/")
    found = [axes for pattern, axes in _MUON.items() if inside and re.fullmatch(pattern, path)]
    return contrib.MuonDimensionNumbers(reduction_axis=found[0][0], output_axis=found[0][1]) if found else None

  return trees.map_with_path(choose, params)
