"""How an optimizer is put together with decay and factors, so that both mean the same under every name.

A plain optimizer's step is in proportion to its learning rate: decay and factors follow it. The others keep a record of
earlier parameters, a statistic of all parameters, or an average, which a change of their step afterwards would falsify.
So decay and factors go into the base that they wrap, or into a change of variables, or are kept from them.
"""

import dataclasses
import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from sftrl_jax import trees
from sftrl_jax.training.optimizers import catalogue, matrices
from sftrl_jax.training.optimizers.catalogue import OptimizerEntry
from sftrl_jax.training.optimizers.param_paths import decay_step, decoupled_decay, factor_of, scale_by_path

# These take norms and rows of whole arrays: layer by layer, because the blocks are stacked.
BY_LAYER = {"adafactor", "lamb", "lars", "fromage", "novograd"}
# Arguments for momentum, which is off under schedule-free averages: they take its place.
MOMENTUM = ("b1", "momentum", "beta", "adam_b1")


@dataclasses.dataclass(frozen=True)
class Recipe:
  """The parts of an optimizer: its entry and arguments, the schedule and its peak, decay and factors."""

  entry: OptimizerEntry
  args: dict[str, Any]
  schedule: Callable
  peak: float
  weight_decay: float
  factors: dict[str, float]

  def after(self, *links: optax.GradientTransformation) -> optax.GradientTransformation:
    """The links, then decoupled decay, then factors."""
    decay = [decoupled_decay(self.weight_decay, self.schedule)] if self.weight_decay else []
    return optax.chain(*links, *decay, *([scale_by_path(self.factors)] if self.factors else []))


def make(recipe: Recipe) -> optax.GradientTransformation:
  """The optimizer with its decay and factors."""
  return FAMILIES.get(recipe.entry.name, plain)(recipe)


def plain(recipe: Recipe) -> optax.GradientTransformation:
  """Decay and factors follow the step."""
  return recipe.after(_bare(recipe))


def schedule_free(recipe: Recipe) -> optax.GradientTransformation:
  """z takes the base's step, decay and factors included; x is z's average; gradients are of y between them."""
  own = {key: recipe.args[key] for key in ("b1", "weight_lr_power", "state_dtype") if key in recipe.args}
  # Its own count begins at 1, the base's at 0: both read the rate of this update.
  return contrib.schedule_free(_base(recipe), lambda n: recipe.schedule(n - 1), **own)


def mechanic(recipe: Recipe) -> optax.GradientTransformation:
  """The base's step, decay and factors included, times a learned scale."""
  args = {key: value for key, value in recipe.args.items() if key != "base_optimizer"}
  return recipe.entry.factory(_base(recipe), **args)


def self_tuned(recipe: Recipe) -> optax.GradientTransformation:
  """It estimates its rate from all parameters at once: decay follows that rate, and factors are a change of variables,
  p = f q, of which the estimate reads q. (Steps of dog and dowg are as long as the gradient: p = sqrt(f) q.)
  """
  power = 0.5 if recipe.entry.name in ("dog", "dowg") else 1.0
  inner = _unless_zero(_bare(recipe))
  inner = _changed(inner, recipe.factors, power, power) if recipe.factors else inner
  if not recipe.weight_decay:
    return inner
  eps = recipe.args.get("eps", 0.0)

  def update(updates: optax.Updates, state: tuple, params: optax.Params | None = None) -> tuple:
    before, count = state
    updates, after = inner.update(updates, before, params)
    rate = recipe.schedule(count) * _own_rate(before, after, eps)
    step = decay_step(params, rate * recipe.weight_decay, recipe.factors)
    return jax.tree.map(jnp.add, updates, step), (after, count + 1)

  return optax.GradientTransformation(lambda params: (inner.init(params), jnp.zeros((), jnp.int32)), update)


class Drift(NamedTuple):
  """How far decay has moved the parameters, beside the state of an optimizer that does not see decay."""

  drift: Any
  count: jax.Array
  inner: Any


def anchored(recipe: Recipe) -> optax.GradientTransformation:
  """It counts every step from the start of the run, and would undo decay: it reads parameters that do not decay, and
  factors are a change of variables that its gradients do not have."""
  inner = _changed(_bare(recipe), recipe.factors, 1.0, 0.0) if recipe.factors else _bare(recipe)
  if not recipe.weight_decay:
    return inner

  def init(params: optax.Params) -> Drift:
    return Drift(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32), inner.init(params))

  def update(updates: optax.Updates, state: Drift, params: optax.Params | None = None) -> tuple:
    updates, after = inner.update(updates, state.inner, jax.tree.map(jnp.subtract, params, state.drift))
    step = decay_step(params, recipe.schedule(state.count) * recipe.weight_decay, recipe.factors)
    drift = jax.tree.map(jnp.add, state.drift, step)
    return jax.tree.map(jnp.add, updates, step), Drift(drift, state.count + 1, after)

  return optax.GradientTransformation(init, update)


FAMILIES = {
    **dict.fromkeys(("schedule_free", "schedule_free_sgd", "schedule_free_adamw"), schedule_free),
    **dict.fromkeys(("prodigy", "dadapt_adamw", "dog", "dowg"), self_tuned),
    **dict.fromkeys(("madgrad", "cocob"), anchored),
    "mechanize": mechanic}


def refuse_base(name: str) -> None:
  """ValueError unless the optimizer can be the base of another."""
  if name in FAMILIES:
    raise ValueError(f"args.base_optimizer is {name!r}, which finds its own rate or average: give a plain one, such as "
                     "adamw, lion or muon.")
  if catalogue.is_user_file(name):
    raise ValueError(f"args.base_optimizer is {name!r}, but it must be a name of optax, such as adamw: a run records "
                     "only the file of config.optimizer.name.")
  try:
    catalogue.entry(name)
  except ValueError as error:
    raise ValueError(f"args.base_optimizer: {error}") from error


def _base(recipe: Recipe) -> optax.GradientTransformation:
  """The base of schedule-free optimizers, without momentum of its own, and of mechanize."""
  name, args = recipe.entry.name, recipe.args
  if name == "schedule_free_sgd":
    return recipe.after(optax.sgd(recipe.schedule))
  if name == "schedule_free_adamw":  # as optax has it: adam without the first moment is rms
    rms = optax.scale_by_rms(args["b2"], args["eps"], eps_in_sqrt=False, bias_correction=True)
    return recipe.after(rms, optax.scale_by_learning_rate(recipe.schedule))
  entry = catalogue.entry(args["base_optimizer"])
  given = dict(entry.given)
  if name == "schedule_free":
    defaults = inspect.signature(entry.factory).parameters
    off = {key: None if defaults[key].default is None else 0.0 for key in MOMENTUM if key in defaults}
    given = {**given, **off}
  return recipe.after(_bare(dataclasses.replace(recipe, entry=entry, args=given)))


def _bare(recipe: Recipe) -> optax.GradientTransformation:
  """The optimizer as optax has it, its own decay off, on the schedule even if optax takes only a number."""
  name, schedule, args = recipe.entry.name, recipe.schedule, dict(recipe.args)
  factory = recipe.entry.factory
  parameters = inspect.signature(factory).parameters
  for key, off in (("weight_decay", 0.0), ("weight_decay_rate", None), ("adam_weight_decay", 0.0)):
    if key in parameters:  # under adafactor it would not follow the learning rate
      args[key] = off
  if name == "muon":
    args["muon_weight_dimension_numbers"] = matrices.muon_dimensions
  if name == "galore":
    return matrices.galore(factory, schedule, **args)
  if name == "rprop":  # its rate is the first step; from there on the schedule scales its own
    return optax.chain(factory(recipe.peak, **args), optax.scale_by_schedule(lambda n: schedule(n) / recipe.peak))
  if name == "sm3":
    return optax.chain(_with_axis(factory(1.0, **args)), optax.scale_by_schedule(schedule))
  if not _takes_schedule(parameters["learning_rate"].annotation):
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", DeprecationWarning)  # optimistic_adam's; the catalogue says so
      return optax.chain(factory(1.0, **args), optax.scale_by_schedule(schedule))
  optimizer = factory(schedule, **args)
  return matrices.by_layer(optimizer) if name in BY_LAYER else optimizer


def _takes_schedule(annotation) -> bool:
  """Whether the annotation of a learning rate allows a function, as no annotation does."""
  return annotation is inspect.Parameter.empty or "Callable" in str(annotation) or "Schedule" in str(annotation)


def _with_axis(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """The optimizer with at least one axis on every array: sm3 takes no scalars."""
  add = lambda tree: jax.tree.map(jnp.atleast_1d, tree)

  def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
    steps, state = optimizer.update(add(updates), state, add(params))
    return jax.tree.map(lambda new, old: new.reshape(old.shape), steps, updates), state

  return optax.GradientTransformation(lambda params: optimizer.init(add(params)), update)


def _changed(inner, factors: dict[str, float], of_params: float, of_grads: float) -> optax.GradientTransformation:
  """The optimizer of q, where p = f^of_params q; it reads f^of_grads times the gradient of p."""

  def scale(tree: Any, power: float) -> Any:
    return trees.map_with_path(lambda path, x: x * factor_of(factors, path) ** power, tree)

  def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
    updates, state = inner.update(scale(updates, of_grads), state, scale(params, -of_params))
    return scale(updates, of_params), state

  return optax.GradientTransformation(lambda params: inner.init(scale(params, -of_params)), update)


def _unless_zero(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """The optimizer without updates by gradients that are all 0: prodigy and dadapt_adamw would keep 0 / 0 for good."""

  def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
    zero = optax.tree.norm(updates, squared=True) == 0
    steps, after = optimizer.update(updates, state, params)
    choose = lambda old, new: jax.tree.map(lambda o, n: jnp.where(zero, o, n), old, new)
    return choose(updates, steps), choose(state, after)

  return optax.GradientTransformation(optimizer.init, update)


def _own_rate(before: optax.OptState, after: optax.OptState, eps: float) -> jax.Array:
  """The rate that an optimizer estimated for the step between two states."""
  tuned = {type(state): state for state in jax.tree.leaves(after, is_leaf=_tuned) if _tuned(state)}
  if contrib.DoGState in tuned:
    state = tuned[contrib.DoGState]
    return state.max_dist / jnp.sqrt(state.sum_sq_norm_grads + eps)
  if contrib.DoWGState in tuned:
    state = tuned[contrib.DoWGState]
    return state.estim_sq_dist / (jnp.sqrt(state.weighted_sq_norm_grads) + eps)
  return next(state.estim_lr for state in jax.tree.leaves(before, is_leaf=_tuned) if _tuned(state))


def _tuned(state) -> bool:
  return isinstance(state, (contrib.DoGState, contrib.DoWGState, contrib.ProdigyState, contrib.DAdaptAdamWState))
