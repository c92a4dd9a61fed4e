"""A scalar per hidden state: the value of a state, or a reward."""

import jax
import jax.numpy as jnp


def init(width: int) -> dict:
  """Zeros: the first values are 0 and the first advantages are the returns."""
  return {"kernel": jnp.zeros((width,)), "bias": jnp.zeros(())}


def scalar(params: dict, hidden_BTD: jax.Array, stop_gradient: bool = True) -> jax.Array:
  """values_BT in f32. stop_gradient: the loss of values does not change the trunk, and so not the policy."""
  hidden_BTD = jax.lax.stop_gradient(hidden_BTD) if stop_gradient else hidden_BTD
  return jnp.einsum("btd,d->bt", hidden_BTD.astype(jnp.float32), params["kernel"].astype(jnp.float32)) + params["bias"]
