"""Attention of the patches of a picture, a head at a time.

XLA's CPU backend writes the scores of all heads to memory and reads them back for every step of the softmax, which
takes twice as long as the products. Those of a single head stay in the processor's caches. The backward pass computes
them again (Dao et al. 2022).
"""

import jax
import jax.numpy as jnp

from sftrl_jax.models import layout
from sftrl_jax.shapes import check


def attend_headwise(q_BHTC: jax.Array, k_BHTC: jax.Array, v_BHTC: jax.Array,
                    padding_BT: jax.Array | None = None) -> jax.Array:
  """softmax(q k / sqrt(C)) v in [B, H, T, C], with the softmax in f32: `attention.attend`, to rounding.

  padding_BT: bool; padding does not attend to padding, everything else attends to everything. None: there is none, and
    no mask, which takes a quarter of the time
  Under a mesh each device computes its own rows and heads.
  """
  rows = {} if padding_BT is None else {"padding_BT": padding_BT}
  check(q_BHTC=q_BHTC, k_BHTC=k_BHTC, v_BHTC=v_BHTC, **rows)
  return layout.by_device(_headwise, q_BHTC * q_BHTC.shape[-1]**-0.5, k_BHTC, v_BHTC, *rows.values())


@jax.custom_vjp
def _headwise(q_BHTC, k_BHTC, v_BHTC, padding_BT=None):
  return _forward(q_BHTC, k_BHTC, v_BHTC, padding_BT)[0]


def _heads(*arrays_BHTX: jax.Array) -> tuple[jax.Array, ...]:
  """Rows and heads as one axis, which is looped over."""
  return tuple(x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]) for x in arrays_BHTX)


def _scores(q_TC, k_TC, padding_T):
  scores_TT = jnp.einsum("tc,sc->ts", q_TC, k_TC, preferred_element_type=jnp.float32)
  return scores_TT if padding_T is None else scores_TT + jnp.where(padding_T[:, None] & padding_T[None], -1e9, 0.0)


def _forward(q_BHTC, k_BHTC, v_BHTC, padding_BT=None):
  def of_head(arrays):
    q_TC, k_TC, v_TC, padding_T = arrays
    scores_TT = _scores(q_TC, k_TC, padding_T)
    most_T1 = jnp.max(scores_TT, axis=-1, keepdims=True)
    exponentials_TT = jnp.exp(scores_TT - most_T1)
    total_T1 = jnp.sum(exponentials_TT, axis=-1, keepdims=True)
    mixed_TC = jnp.einsum("ts,sc->tc", exponentials_TT.astype(v_TC.dtype), v_TC, preferred_element_type=jnp.float32)
    return (mixed_TC / total_T1).astype(v_TC.dtype), most_T1, total_T1

  padding_NT = None if padding_BT is None else jnp.repeat(padding_BT, q_BHTC.shape[1], axis=0)
  mixed_NTC, *softmax_NT1 = jax.lax.map(of_head, (*_heads(q_BHTC, k_BHTC, v_BHTC), padding_NT))
  mixed_BHTC = mixed_NTC.reshape(q_BHTC.shape)
  return mixed_BHTC, (q_BHTC, k_BHTC, v_BHTC, padding_BT, mixed_BHTC, *softmax_NT1)


def _backward(residuals, d_BHTC):
  """As `attention._mix_backward`, with the weights computed again."""
  q_BHTC, k_BHTC, v_BHTC, padding_BT, mixed_BHTC, *softmax_NT1 = residuals

  def of_head(arrays):
    q_TC, k_TC, v_TC, d_TC, mixed_TC, padding_T, most_T1, total_T1 = arrays
    # Two numbers and not their sum in logs: of a query with scores of -1e9 alone that would lose the total.
    weights_TT = jnp.exp(_scores(q_TC, k_TC, padding_T) - most_T1) * (1 / total_T1)
    dweights_TT = jnp.einsum("tc,sc->ts", d_TC, v_TC, preferred_element_type=jnp.float32)
    row_sums_T1 = jnp.sum(d_TC.astype(jnp.float32) * mixed_TC.astype(jnp.float32), axis=-1, keepdims=True)
    dscores_TT = (weights_TT * (dweights_TT - row_sums_T1)).astype(q_TC.dtype)
    dv_TC = jnp.einsum("ts,tc->sc", weights_TT.astype(v_TC.dtype), d_TC)
    return jnp.einsum("ts,sc->tc", dscores_TT, k_TC), jnp.einsum("ts,tc->sc", dscores_TT, q_TC), dv_TC

  padding_NT = None if padding_BT is None else jnp.repeat(padding_BT, q_BHTC.shape[1], axis=0)
  gradients = jax.lax.map(of_head, (*_heads(q_BHTC, k_BHTC, v_BHTC, d_BHTC, mixed_BHTC), padding_NT, *softmax_NT1))
  return (*(x_NTC.reshape(q_BHTC.shape) for x_NTC in gradients), None)


_headwise.defvjp(_forward, _backward)
