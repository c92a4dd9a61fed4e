"""Log-probabilities of given tokens, chunked over tokens so that logits_BTV never exist whole."""

import jax
import jax.numpy as jnp

from sftrl_jax.shapes import check


def logprobs(hidden_BTD, unembed_DV, targets_BT, *, temperature: float = 1.0, chunk: int = 0, ids: int = 0):
  """(logprobs_BT, entropy_BT, correct_BT), f32, of log_softmax(h W / temperature).

  chunk: tokens of a row whose logits exist at once (0: all of them); the backward pass recomputes them, so a
  vocabulary of 256k costs B * chunk * V floats and no more. ids: see `_logits`.
  """
  sizes = check(hidden_BTD=hidden_BTD, unembed_DV=unembed_DV, targets_BT=targets_BT)
  T = sizes["T"]
  if not chunk or chunk >= T:
    return _score(hidden_BTD, unembed_DV, targets_BT, temperature, ids)
  pieces = -(-T // chunk)
  pad = lambda x: jnp.pad(x, ((0, 0), (0, pieces * chunk - T), *((0, 0),) * (x.ndim - 2)))
  split = lambda x: jnp.moveaxis(pad(x).reshape(x.shape[0], pieces, chunk, *x.shape[2:]), 1, 0)

  @jax.checkpoint
  def one(_, piece):
    return None, _score(piece[0], unembed_DV, piece[1], temperature, ids)

  _, scored = jax.lax.scan(one, None, (split(hidden_BTD), split(targets_BT)))
  whole = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], pieces * chunk)[:, :T]
  return tuple(whole(x) for x in scored)


def _logits(hidden_BTD, unembed_DV, ids: int):
  """f32. Columns from `ids` on (0: none) only fill the table up: they have no probability, as in Model.unembed."""
  logits_BTV = jnp.einsum("btd,dv->btv", hidden_BTD, unembed_DV.astype(hidden_BTD.dtype),
                          preferred_element_type=jnp.float32)
  if not ids:
    return logits_BTV
  # Finite, so that 0 * log 0 is 0 in entropy and KL.
  return jnp.where(jax.lax.broadcasted_iota(jnp.int32, logits_BTV.shape, 2) < ids, logits_BTV, -1e9)


def _score(hidden_BTD, unembed_DV, targets_BT, temperature, ids):
  log_BTV = jax.nn.log_softmax(_logits(hidden_BTD, unembed_DV, ids) / temperature, axis=-1)
  chosen_BT = jnp.take_along_axis(log_BTV, targets_BT[..., None], axis=-1)[..., 0]
  still = jax.lax.stop_gradient(log_BTV)  # entropy is reported, never optimised through this path
  entropy_BT = -jnp.sum(jnp.exp(still) * still, axis=-1)
  return chosen_BT, entropy_BT, jnp.argmax(still, -1) == targets_BT


def entropy_bonus(logprobs):
  """Of sampled tokens: -log p, with a gradient that is in expectation the entropy's, -E[log p grad log p]."""
  still = jax.lax.stop_gradient(logprobs)
  return -still * (1.0 + logprobs - still)


def kl(hidden_BTD, unembed_DV, ref_hidden_BTD, ref_unembed_DV, *, temperature: float = 1.0, ids: int = 0) -> jax.Array:
  """kl_BT = sum_v p(v) (log p(v) - log q(v)) in nats, exact over the vocabulary: p the policy, q the reference."""
  log_p = jax.nn.log_softmax(_logits(hidden_BTD, unembed_DV, ids) / temperature, axis=-1)
  log_q = jax.nn.log_softmax(_logits(ref_hidden_BTD, ref_unembed_DV, ids) / temperature, axis=-1)
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
