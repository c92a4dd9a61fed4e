"""Log-probabilities of given tokens, chunked over tokens so that logits_BTV never exist whole."""

import functools

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
    return _score(hidden_BTD, unembed_DV, targets_BT, temperature, ids, True)
  pieces = -(-T // chunk)
  pad = lambda x: jnp.pad(x, ((0, 0), (0, pieces * chunk - T), *((0, 0),) * (x.ndim - 2)))
  split = lambda x: jnp.moveaxis(pad(x).reshape(x.shape[0], pieces, chunk, *x.shape[2:]), 1, 0)

  def one(_, piece):
    return None, _score(piece[0], unembed_DV, piece[1], temperature, ids, False)

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


def _is_first_best(logits_BTV, targets_BT):
  """argmax == target, as a sum over what is larger, or as large and before it: XLA's CPU backend takes a third of the
  logits' own product for an argmax."""
  chosen_BT1 = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)
  before_BTV = jax.lax.broadcasted_iota(targets_BT.dtype, logits_BTV.shape, 2) < targets_BT[..., None]
  better_BTV = (logits_BTV > chosen_BT1) | (before_BTV & (logits_BTV == chosen_BT1))
  return ~jnp.any(better_BTV, axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _score(hidden_BTD, unembed_DV, targets_BT, temperature: float, ids: int, keep: bool):
  """keep: the log-probabilities of all tokens, for the backward pass, which computes them again without."""
  return _score_forward(hidden_BTD, unembed_DV, targets_BT, temperature, ids, keep)[0]


def _score_forward(hidden_BTD, unembed_DV, targets_BT, temperature, ids, keep):
  logits_BTV = _logits(hidden_BTD, unembed_DV, ids) / temperature
  log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
  log_BTV = logits_BTV - log_z_BT[..., None]
  chosen_BT = jnp.take_along_axis(log_BTV, targets_BT[..., None], axis=-1)[..., 0]
  entropy_BT = -jnp.sum(jnp.exp(log_BTV) * log_BTV, axis=-1)
  told = chosen_BT, entropy_BT, _is_first_best(logits_BTV, targets_BT)
  return told, (hidden_BTD, unembed_DV, targets_BT, log_BTV if keep else log_z_BT)


def _score_backward(temperature, ids, keep, kept, cotangents):
  """d log p(y) / d logits = (1[v = y] - p(v)) / temperature. Where logits are computed again, their softmax is not
  summed again, and both products read them as they lie. Entropy is reported, never optimised through this path."""
  hidden_BTD, unembed_DV, targets_BT, told = kept
  p_BTV = jnp.exp(told if keep else _logits(hidden_BTD, unembed_DV, ids) / temperature - told[..., None])
  target_BTV = jax.lax.broadcasted_iota(targets_BT.dtype, p_BTV.shape, 2) == targets_BT[..., None]
  d_BTV = (cotangents[0] / temperature)[..., None] * (target_BTV.astype(jnp.float32) - p_BTV)
  d_BTV = d_BTV.astype(hidden_BTD.dtype)
  read = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  d_hidden_BTD = read("btv,dv->btd", d_BTV, unembed_DV.astype(hidden_BTD.dtype))
  d_unembed_DV = read("btd,btv->dv", hidden_BTD, d_BTV)
  return d_hidden_BTD.astype(hidden_BTD.dtype), d_unembed_DV.astype(unembed_DV.dtype), None


_score.defvjp(_score_forward, _score_backward)


def entropy_bonus(logprobs):
  """Of sampled tokens: -log p, with a gradient that is in expectation the entropy's, -E[log p grad log p]."""
  still = jax.lax.stop_gradient(logprobs)
  return -still * (1.0 + logprobs - still)


def kl(hidden_BTD, unembed_DV, ref_hidden_BTD, ref_unembed_DV, *, temperature: float = 1.0, ids: int = 0) -> jax.Array:
  """kl_BT = sum_v p(v) (log p(v) - log q(v)) in nats, exact over the vocabulary: p the policy, q the reference."""
  log_p = jax.nn.log_softmax(_logits(hidden_BTD, unembed_DV, ids) / temperature, axis=-1)
  log_q = jax.nn.log_softmax(_logits(ref_hidden_BTD, ref_unembed_DV, ids) / temperature, axis=-1)
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
