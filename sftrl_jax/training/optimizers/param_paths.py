"""The path of a parameter decides whether it decays, has a factor of the learning rate, or is frozen."""

import fnmatch
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import optax

from sftrl_jax import trees


def decays(path: str) -> bool:
  """Matrices of the model, of adapters and of a critic's trunk decay; norms, biases, gates of what reads pictures and
  the value head do not."""
  gates = ("attn_gate", "mlp_gate", "tile/gate", "positions/gate")
  return path.startswith(("model/", "lora/", "critic/model/")) and not path.endswith(("scale", "bias", *gates))


def decoupled_decay(weight_decay: float, schedule: Callable) -> optax.GradientTransformation:
  """updates - lr(n) * weight_decay * p on the parameters that decay (Loshchilov & Hutter 2019)."""

  def update(updates: optax.Updates, count: jax.Array, params: optax.Params | None = None) -> tuple:
    return jax.tree.map(jnp.add, updates, decay_step(params, schedule(count) * weight_decay)), count + 1

  return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def decay_step(params: optax.Params, rate: jax.Array | float, factors: dict[str, float] | None = None) -> optax.Updates:
  """-rate * p, times the factor of its path, on the parameters that decay; 0 elsewhere."""
  rate = jnp.asarray(rate)

  def step(path: str, p: jax.Array) -> jax.Array:
    return p * (-rate * factor_of(factors or {}, path)).astype(p.dtype) if decays(path) else jnp.zeros_like(p)

  return trees.map_with_path(step, params)


def factor_of(factors: dict[str, float], path: str) -> float:
  """The factor of the pattern that matches a path; 1 if none does."""
  return next((factor for pattern, factor in factors.items() if fnmatch.fnmatchcase(path, pattern)), 1.0)


def scale_by_path(factors: dict[str, float]) -> optax.GradientTransformation:
  """Updates times the factor of the pattern that matches their path."""

  def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
    return trees.map_with_path(lambda path, u: u * factor_of(factors, path), updates), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def freeze(optimizer: optax.GradientTransformation, patterns: Iterable[str]) -> optax.GradientTransformation:
  """The optimizer without the parameters that match a pattern: it neither reads them nor has slots for them."""
  patterns = tuple(patterns)
  frozen = lambda path: any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
  label = lambda tree: trees.map_with_path(lambda path, _: "frozen" if frozen(path) else "trained", tree)
  return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, label)


def check(params: optax.Params, factors: dict[str, float], frozen: Iterable[str]) -> None:
  """ValueError for a pattern that matches no parameter, two factors for one parameter, and nothing left to train."""
  paths = list(trees.leaves(params))
  matches = lambda path, patterns: [pattern for pattern in patterns if fnmatch.fnmatchcase(path, pattern)]
  for key, patterns in (("factors", factors), ("freeze", frozen)):
    for pattern in patterns:
      if not fnmatch.filter(paths, pattern):
        raise ValueError(f"config.optimizer.{key}: {pattern!r} matches no parameter; there are {', '.join(paths)}: "
                         f"change it, or leave it out (--config.optimizer.{key}={'{}' if key == 'factors' else '()'}).")
  for path in paths:
    patterns = matches(path, factors)
    if len(patterns) > 1:
      raise ValueError(f"config.optimizer.factors: {path} matches {patterns}; let one pattern match it.")
  if all(matches(path, frozen) for path in paths):
    raise ValueError(f"config.optimizer.freeze: {list(frozen)} leaves nothing to train; leave some parameter out.")
