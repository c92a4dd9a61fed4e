"""Log-probabilities of target tokens, computed in chunks so that logits_BTV never exist whole."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sftrl_jax.readout import PLAIN, Readout
from sftrl_jax.shapes import check

Kl = Callable[[jax.Array, jax.Array], jax.Array]   # (log p of the policy, log q of a teacher) -> over the last axis


def logprobs(hidden_BTD: jax.Array, unembed_DV: jax.Array, targets_BT: jax.Array, *, temperature: float = 1.0,
             chunk: int = 0, readout: Readout = PLAIN) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(logprobs_BT, entropy_BT, correct_BT) of log_softmax(logits(h W) / temperature): f32, f32 nats,
  bool.

  chunk: most tokens of a row whose logits exist at once (0: all of them); the backward pass recomputes them, so a
  vocabulary of 256k costs B * chunk * V floats and no more. readout: the model's.
  """
  sizes = check(hidden_BTD=hidden_BTD, unembed_DV=unembed_DV, targets_BT=targets_BT)
  T = sizes["T"]
  if not chunk or chunk >= T:
    return _score(hidden_BTD, unembed_DV, targets_BT, temperature, readout, True)
  score = lambda hidden, targets: _score(hidden, unembed_DV, targets, temperature, readout, False)
  return _in_chunks(score, chunk, hidden_BTD, targets_BT)


def _in_chunks(score: Callable[..., tuple[jax.Array, ...]], chunk: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
  """score(*arrays), whose results are [B, T], on at most `chunk` of the T columns of all arrays at a time, about
  as many in every piece: 136 columns in chunks of 128 are two pieces of 68, and not 256 columns."""
  T = arrays[0].shape[1]
  pieces = -(-T // chunk)
  chunk = -(-T // pieces)
  pad = lambda x: jnp.pad(x, ((0, 0), (0, pieces * chunk - T), *((0, 0),) * (x.ndim - 2)))
  split = lambda x: jnp.moveaxis(pad(x).reshape(x.shape[0], pieces, chunk, *x.shape[2:]), 1, 0)
  _, scored = jax.lax.scan(lambda _, piece: (None, score(*piece)), None, tuple(map(split, arrays)))
  whole = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], pieces * chunk)[:, :T]
  return tuple(whole(x) for x in scored)


def _logits(hidden_BTD, unembed_DV, readout: Readout):
  """logits_BTV in f32."""
  return readout.logits(_product("btd,dv->btv", hidden_BTD, unembed_DV.astype(hidden_BTD.dtype)))


def _product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
  """The einsum of two arrays, added up and given in f32.

  XLA's CPU backend lacks some products of bfloat16 with a result in f32 (the gradient of an embedding that unembeds
  too), and computes the others in f32 anyhow: there the arrays are cast.
  """
  product = functools.partial(jnp.einsum, equation, preferred_element_type=jnp.float32)
  if a.dtype == jnp.float32:
    return product(a, b)
  cast = lambda a, b: product(a.astype(jnp.float32), b.astype(jnp.float32))
  return jax.lax.platform_dependent(a, b, cpu=cast, default=product)


def _is_first_best(logits_BTV, targets_BT):
  """argmax == target, as a search for a larger logit, or an equal one before it: on XLA's CPU backend an argmax takes a
  third of the time of the logits' own product."""
  chosen_BT1 = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)
  before_BTV = jax.lax.broadcasted_iota(targets_BT.dtype, logits_BTV.shape, 2) < targets_BT[..., None]
  better_BTV = (logits_BTV > chosen_BT1) | (before_BTV & (logits_BTV == chosen_BT1))
  return ~jnp.any(better_BTV, axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _score(hidden_BTD, unembed_DV, targets_BT, temperature: float, readout: Readout, keep: bool):
  """keep: hold the log-probabilities of all tokens for the backward pass, which otherwise computes them again."""
  return _score_forward(hidden_BTD, unembed_DV, targets_BT, temperature, readout, keep)[0]


def _score_forward(hidden_BTD, unembed_DV, targets_BT, temperature, readout, keep):
  if readout.in_tiles:
    logits_BTV = readout.exact_logits(hidden_BTD, unembed_DV)
    log_BTV = readout.exact_log_softmax(logits_BTV, temperature)
    log_z_BT = logits_BTV[..., 0] / temperature - log_BTV[..., 0]
  else:
    logits_BTV = _logits(hidden_BTD, unembed_DV, readout) / temperature
    log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    log_BTV = logits_BTV - log_z_BT[..., None]
  chosen_BT = jnp.take_along_axis(log_BTV, targets_BT[..., None], axis=-1)[..., 0]
  entropy_BT = -jnp.sum(jnp.exp(log_BTV) * log_BTV, axis=-1)
  scored = chosen_BT, entropy_BT, _is_first_best(logits_BTV, targets_BT)
  return scored, (hidden_BTD, unembed_DV, targets_BT, log_BTV if keep else None, log_z_BT)


def _score_backward(temperature, readout, keep, kept, cotangents):
  """d log p(y) / d logits = (1[v = y] - p(v)) / temperature. Where logits are computed again, the sum of their softmax
  is kept, and both products read d_BTV in its layout. Entropy is reported, never optimised through this path."""
  hidden_BTD, unembed_DV, targets_BT, log_BTV, log_z_BT = kept
  if not keep:
    log_BTV = _logits(hidden_BTD, unembed_DV, readout) / temperature - log_z_BT[..., None]
  p_BTV = jnp.exp(log_BTV)
  target_BTV = jax.lax.broadcasted_iota(targets_BT.dtype, p_BTV.shape, 2) == targets_BT[..., None]
  d_BTV = (cotangents[0] / temperature)[..., None] * (target_BTV.astype(jnp.float32) - p_BTV)
  d_BTV = readout.backward(d_BTV, (log_BTV + log_z_BT[..., None]) * temperature).astype(hidden_BTD.dtype)
  d_hidden_BTD = _product("btv,dv->btd", d_BTV, unembed_DV.astype(hidden_BTD.dtype))
  d_unembed_DV = _product("btd,btv->dv", hidden_BTD, d_BTV)
  return d_hidden_BTD.astype(hidden_BTD.dtype), d_unembed_DV.astype(unembed_DV.dtype), None


_score.defvjp(_score_forward, _score_backward)


def entropy_bonus(logprobs: jax.Array) -> jax.Array:
  """-log p of sampled tokens, with a gradient that is in expectation the entropy's, -E[log p grad log p]."""
  constant = jax.lax.stop_gradient(logprobs)
  return -constant * (1.0 + logprobs - constant)


def kl_and_entropy(hidden_BTD: jax.Array, unembed_DV: jax.Array, ref_hidden_BTD: jax.Array, ref_unembed_DV: jax.Array,
                   *, temperature: float = 1.0, chunk: int = 0,
                   readout: Readout = PLAIN) -> tuple[jax.Array, jax.Array]:
  """(kl_BT, entropy_BT) in nats, exact over the vocabulary: sum_v p(v) (log p(v) - log q(v)), p the policy and q the
  reference; and -sum_v p(v) log p(v). chunk: as in `logprobs`."""

  def measure(hidden_BTD: jax.Array, ref_hidden_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
    log_p = jax.nn.log_softmax(_logits(hidden_BTD, unembed_DV, readout) / temperature, axis=-1)
    log_q = jax.nn.log_softmax(_logits(ref_hidden_BTD, ref_unembed_DV, readout) / temperature, axis=-1)
    return reverse_kl(log_p, log_q), -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

  if not chunk or chunk >= hidden_BTD.shape[1]:
    return measure(hidden_BTD, ref_hidden_BTD)
  return _in_chunks(measure, chunk, hidden_BTD, ref_hidden_BTD)


def with_teacher(hidden_BTD: jax.Array, unembed_DV: jax.Array, teacher: tuple[jax.Array, jax.Array],
                 targets_BT: jax.Array, *, temperature: float = 1.0, chunk: int = 0,
                 readouts: tuple[Readout, Readout] = (PLAIN, PLAIN), kl: Kl | None = None
                 ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """(kl_BT, logprobs_BT, entropy_BT, correct_BT): `kl` to a teacher, the only one that has a gradient, and what
  `logprobs` gives.

  teacher: hidden states [B, T, E] and unembedding [E, W] of the teacher, whose width E may be another. Its table may
  have more rows (W) than V, or fewer: ids beyond the smaller one are no ids of the tokenizer. chunk: as of `logprobs`;
  the backward pass computes a chunk's logits again. readouts: of the policy and of the teacher. kl: `reverse_kl` if
  left out, or `forward_kl`
  """
  teacher_BTE, teacher_EW = teacher
  ids, kl = min(unembed_DV.shape[1], teacher_EW.shape[1]), kl or reverse_kl

  def measure(hidden_BTD: jax.Array, teacher_BTE: jax.Array, targets_BT: jax.Array) -> tuple[jax.Array, ...]:
    of = lambda hidden, unembed, read: _logits(hidden, unembed[:, :ids], read) / temperature
    logits_BTV = of(hidden_BTD, unembed_DV, readouts[0])
    log_p = jax.nn.log_softmax(logits_BTV, axis=-1)
    kl_BT = kl(log_p, jax.nn.log_softmax(of(teacher_BTE, teacher_EW, readouts[1]), axis=-1))
    log_p = jax.lax.stop_gradient(log_p)
    chosen_BT = jnp.take_along_axis(log_p, targets_BT[..., None], axis=-1)[..., 0]
    return kl_BT, chosen_BT, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1), _is_first_best(log_p, targets_BT)

  if not chunk or chunk >= hidden_BTD.shape[1]:
    return measure(hidden_BTD, teacher_BTE, targets_BT)
  return _in_chunks(jax.checkpoint(measure), chunk, hidden_BTD, teacher_BTE, targets_BT)


def forward_kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
  """sum_v q(v) (log q(v) - log p(v)) over the last axis, in nats: cross-entropy to q's whole distribution, less q's
  entropy, which has no gradient in p."""
  return reverse_kl(log_q, log_p)


def reverse_kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
  """sum_v p(v) (log p(v) - log q(v)) over the last axis, in nats."""
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
