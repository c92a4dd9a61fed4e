"""The clipped surrogate of the policy losses, and the bounds of a single update."""

from typing import Any

import jax
import jax.numpy as jnp


def clipped_surrogate(ratio: jax.Array, advantages: jax.Array, low: float, high: float, dual_clip: float = 0.0,
                      ratio_cap: float = 0.0) -> jax.Array:
  """The loss of each action, -min(rho A, clip(rho, low, high) A) (Schulman et al. 2017, eq. 7).

  The minimum leaves an action with A < 0 unbounded: -rho A grows with rho, and so does its gradient. Two bounds:

    dual_clip c   A < 0: -max(min(rho A, clip(rho) A), c A), so that the loss is at most -c A (Ye et al. 2020, eq. 4)
    ratio_cap k   rho > k: -clip(rho, low, high) A alone (the code of Chu et al. 2025, k = 10, a response at a time)

  Above its bound each of them has gradient 0, so with c = k they train alike and differ in the loss that is reported.
  advantages: of the shape of the ratio, or broadcast to it. 0 turns a bound off.
  """
  clipped = jnp.clip(ratio, low, high) * advantages
  loss = -jnp.minimum(ratio * advantages, clipped)
  if dual_clip:
    loss = jnp.where(advantages < 0, jnp.minimum(loss, -dual_clip * advantages), loss)
  return jnp.where(ratio > ratio_cap, -clipped, loss) if ratio_cap else loss


def refuse_bounds(config: Any) -> None:
  """ValueError, beginning with the key, for a bound out of its range; config: a section with target_kl, dual_clip."""
  if not config.target_kl >= 0:  # so that nan is refused too
    raise ValueError(f"target_kl is {config.target_kl}; it must be positive, for example 0.02, or 0 (no limit).")
  for name, example in (("dual_clip", "3"), ("ratio_cap", "10")):
    value = getattr(config, name, 0.0)
    if value != 0 and not value > 1:
      raise ValueError(f"{name} is {value}; it must be above 1, for example {example}, or 0 (off): a ratio of 1 is a "
                       "policy that has not moved.")
