"""Who may look at whom, and the looking."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.shapes import check

CONSTANT = 8192  # positions up to which rotary tables are constants of the program


def may_attend(q_positions_BT, k_positions_BS, q_segments_BT, k_segments_BS, window: int = 0) -> jax.Array:
  """allowed_BTS: the key stands no later than the query and in the same segment; segment 0 is padding, seen by none.

  window: how many tokens a query looks back over, itself included (0: all of them).
  Packed rows, left-padded prompts and the cache all come down to this one function.
  """
  check(q_positions_BT=q_positions_BT, q_segments_BT=q_segments_BT,
        k_positions_BS=k_positions_BS, k_segments_BS=k_segments_BS)
  behind_BTS = q_positions_BT[:, :, None] >= k_positions_BS[:, None, :]
  same_BTS = q_segments_BT[:, :, None] == k_segments_BS[:, None, :]
  allowed_BTS = behind_BTS & same_BTS & (k_segments_BS[:, None, :] > 0)
  return allowed_BTS & (q_positions_BT[:, :, None] - k_positions_BS[:, None, :] < window) if window else allowed_BTS


def rotary_tables(positions_BT, limit: int, head_dim: int, theta: float,
                  stretch: Callable | None = None) -> tuple[jax.Array, jax.Array]:
  """cos and sin, [B, 1, T, C/2] in f32, of the angles position * theta^(-2i/C) (Su et al. 2021).

  stretch: from these frequencies to the ones that are used, see `stretched`.
  limit: where positions are expected to stay below. Up to CONSTANT the tables are constants that rows look up, because
  XLA's CPU backend fuses computed ones into every layer's rotation and takes each cosine again, per head and layer.
  Positions beyond `limit` are right too, only slower.
  """
  frequencies = np.float32(theta) ** (-np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
  frequencies = stretch(frequencies) if stretch else frequencies

  def computed():
    angles = positions_BT[:, None, :, None].astype(jnp.float32) * frequencies[None, None, None, :]
    return jnp.cos(angles), jnp.sin(angles)

  def looked_up():
    angles = np.arange(limit, dtype=np.float32)[:, None] * frequencies[None, :]
    look_up = lambda table: jnp.take(jnp.asarray(table), positions_BT, axis=0)[:, None]
    return look_up(np.cos(angles)), look_up(np.sin(angles))

  if limit > CONSTANT:
    return computed()
  return jax.lax.cond(jnp.max(positions_BT) < limit, looked_up, computed)


def stretched(config: DecoderConfig, frequencies):
  """Frequencies by config.rope_scaling. linear divides all by rope_factor (Chen et al. 2023). llama3 divides those that
  turn at most rope_low times within rope_context, keeps those that turn rope_high times or more, and goes from one to
  the other in between, linearly in the number of turns (Dubey et al. 2024)."""
  slow = (frequencies / config.rope_factor).astype(np.float32)
  if config.rope_scaling != "llama3":
    return slow
  turns = config.rope_context * frequencies / (2 * np.pi)
  kept = np.clip((turns - config.rope_low) / (config.rope_high - config.rope_low), 0.0, 1.0)
  return ((1 - kept) * slow + kept * frequencies).astype(np.float32)


def rotate(x_BHTC, tables) -> jax.Array:
  """Rotates channel pairs (i, i + C/2), the half-split layout of Llama's released weights."""
  cos, sin = tables
  left, right = jnp.split(x_BHTC.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], -1).astype(x_BHTC.dtype)


def attend(q_BHTC, k_BKSC, v_BKSC, allowed_BTS, scale: float = 0.0) -> jax.Array:
  """softmax(q k / sqrt(C)) v in [B, H, T, C]; H / K query heads share a key head. Softmax in f32.

  scale: in place of 1 / sqrt(C) (0: that one).
  A query that may look at nothing (padding) gets the mean of the values: finite, and never read.
  """
  B, H, T, C = q_BHTC.shape
  K = k_BKSC.shape[1]
  bias_BTS = jnp.where(allowed_BTS, 0.0, -1e9).astype(jnp.float32)
  # Query heads of one key head stand side by side, so the group folds into the rows of one matmul per key head.
  folded = q_BHTC.reshape(B, K, (H // K) * T, C) * (scale or C**-0.5)
  return _mix(folded, k_BKSC, v_BKSC, bias_BTS).reshape(B, H, T, C)


@jax.custom_vjp
def _mix(q_BKXC, k_BKSC, v_BKSC, bias_BTS):
  return _mix_forward(q_BKXC, k_BKSC, v_BKSC, bias_BTS)[0]


def _mix_forward(q_BKXC, k_BKSC, v_BKSC, bias_BTS):
  B, K, X, _ = q_BKXC.shape
  T, S = bias_BTS.shape[1:]
  scores = jnp.einsum("bkxc,bksc->bkxs", q_BKXC, k_BKSC, preferred_element_type=jnp.float32)
  if X == T:
    scores = scores + bias_BTS[:, None]
  else:
    scores = (scores.reshape(B, K, X // T, T, S) + bias_BTS[:, None, None]).reshape(B, K, X, S)
  raised = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
  weights_BKXS = (raised / jnp.sum(raised, axis=-1, keepdims=True)).astype(v_BKSC.dtype)
  mixed_BKXC = jnp.einsum("bkxs,bksc->bkxc", weights_BKXS, v_BKSC)
  return mixed_BKXC, (q_BKXC, k_BKSC, v_BKSC, weights_BKXS, mixed_BKXC)


def _mix_backward(kept, d_BKXC):
  """With P the weights and O the output, dS = P (dP - sum_s P dP), and sum_s P dP = sum_c dO O: a sum over C channels
  instead of S keys (Dao et al. 2022, section B.2)."""
  q, k, v, weights, mixed = kept
  dv = jnp.einsum("bkxs,bkxc->bksc", weights, d_BKXC)
  dweights = jnp.einsum("bkxc,bksc->bkxs", d_BKXC, v, preferred_element_type=jnp.float32)
  drift = jnp.sum(d_BKXC.astype(jnp.float32) * mixed.astype(jnp.float32), axis=-1, keepdims=True)
  dscores = (weights * (dweights - drift)).astype(q.dtype)
  return jnp.einsum("bkxs,bksc->bkxc", dscores, k), jnp.einsum("bkxs,bkxc->bksc", dscores, q), dv, None


_mix.defvjp(_mix_forward, _mix_backward)
