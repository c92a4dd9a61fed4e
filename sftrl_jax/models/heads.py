"""A scalar per hidden state: the value of a state, or a reward."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

STREAM = 2**31 - 1   # of the seed's random numbers, apart from those of the trunk


def init(width: int, layers: Sequence[int] = (), seed: int = 0) -> dict:
  """{"kernel", "bias"} of the last layer; and {"hidden": {"0": {"kernel", "bias"}, ...}} where there are others.

  The last layer is zeros: the first values are 0 and the first advantages are the returns. Kernels of hidden layers are
  normal with variance 2 / inputs (He et al. 2015), which relu keeps; biases are 0.
  width: of the trunk. layers: widths of the hidden layers, from the trunk on
  """
  last = {"kernel": jnp.zeros(((width, *layers)[-1],)), "bias": jnp.zeros(())}
  if not layers:
    return last
  key = jax.random.fold_in(jax.random.key(seed), STREAM)
  normal = lambda number, shape: jax.random.normal(jax.random.fold_in(key, number), shape)
  hidden = {str(number): {"kernel": math.sqrt(2 / read) * normal(number, (read, written)),
                          "bias": jnp.zeros((written,))}
            for number, (read, written) in enumerate(itertools.pairwise((width, *layers)))}
  return {**last, "hidden": hidden}


def matmul_parameters(width: int, layers: Sequence[int]) -> int:
  """Parameters that multiply every token; 0 for a linear head, whose single dot product is not counted."""
  widths = (width, *layers, 1)
  return sum(read * written for read, written in itertools.pairwise(widths)) if layers else 0


def scalar(params: dict, hidden_BTD: jax.Array, stop_gradient: bool = True) -> jax.Array:
  """values_BT in f32. stop_gradient: the loss of values does not change the trunk, and so not the policy.

  h = relu(h W + b) for every hidden layer of `params`, then h w + b.
  """
  h_BTD = (jax.lax.stop_gradient(hidden_BTD) if stop_gradient else hidden_BTD).astype(jnp.float32)
  hidden = params.get("hidden", {})
  for number in range(len(hidden)):
    layer = jax.tree.map(lambda x: x.astype(jnp.float32), hidden[str(number)])
    h_BTD = jax.nn.relu(jnp.einsum("btd,de->bte", h_BTD, layer["kernel"]) + layer["bias"][None, None])
  return jnp.einsum("btd,d->bt", h_BTD, params["kernel"].astype(jnp.float32)) + params["bias"]
