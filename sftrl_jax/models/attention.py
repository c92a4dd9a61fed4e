"""The attention mask, rotary positions, and attention in plain XLA."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.inputs import Inputs
from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.shapes import check

QUERIES = 128  # a row's queries whose scores exist at once while a prompt is read without a kernel
CONSTANT = 8192  # positions up to which the program holds rotary tables as constants


def may_attend(q_positions_BT: jax.Array, k_positions_BS: jax.Array, q_segments_BT: jax.Array,
               k_segments_BS: jax.Array, window: int = 0) -> jax.Array:
  """allowed_BTS: a query attends to a key of the same segment at no later position, and never to padding (segment 0).

  window: how many tokens a query attends to at most, itself included (0: all of them).
  This function alone defines the mask of packed rows, padded rows and the cache.
  """
  check(q_positions_BT=q_positions_BT, q_segments_BT=q_segments_BT,
        k_positions_BS=k_positions_BS, k_segments_BS=k_segments_BS)
  behind_BTS = q_positions_BT[:, :, None] >= k_positions_BS[:, None, :]
  same_BTS = q_segments_BT[:, :, None] == k_segments_BS[:, None, :]
  allowed_BTS = behind_BTS & same_BTS & (k_segments_BS[:, None, :] > 0)
  return allowed_BTS & (q_positions_BT[:, :, None] - k_positions_BS[:, None, :] < window) if window else allowed_BTS


def rotary_tables(positions_BT: jax.Array, limit: int, channels: int, theta: float, stretch: Callable | None = None,
                  gain: float = 1.0) -> tuple[jax.Array, jax.Array]:
  """cos and sin, [B, 1, T, C/2] in f32, of the angles position * theta^(-2i/C) (Su et al. 2021).

  channels: C, those of a head that are rotated
  stretch: a function of these frequencies to the ones that are used, see `stretched`.
  gain: factor of cos and sin
  limit: positions are expected below it; beyond it results are right but slower. Up to CONSTANT, tables are constants
  that rows index, because XLA's CPU backend fuses computed ones into every rotation, and evaluates each cosine again
  for every head and layer.
  """
  frequencies = np.float32(theta) ** (-np.arange(0, channels, 2, dtype=np.float32) / channels)
  frequencies = stretch(frequencies) if stretch else frequencies

  def computed():
    angles = positions_BT[:, None, :, None].astype(jnp.float32) * frequencies[None, None, None, :]
    return jnp.cos(angles) * gain, jnp.sin(angles) * gain

  def from_table():
    angles = np.arange(limit, dtype=np.float32)[:, None] * frequencies[None, :]
    rows_of = lambda table: jnp.take(jnp.asarray(table), positions_BT, axis=0)[:, None]
    return rows_of(np.cos(angles) * np.float32(gain)), rows_of(np.sin(angles) * np.float32(gain))

  if limit > CONSTANT:
    return computed()
  return jax.lax.cond(jnp.max(positions_BT) < limit, from_table, computed)


def stretched(config: DecoderConfig, frequencies: np.ndarray) -> np.ndarray:
  """Rotary frequencies under config.rope_scaling, f32.

  linear divides all by rope_factor (Chen et al. 2023). llama3 divides those with at most rope_low turns within
  rope_context, keeps those with at least rope_high turns, and interpolates linearly in the number of turns between
  them (Dubey et al. 2024). yarn is the same, but linear in the index of the frequency, and begins and ends at a whole
  index (Peng et al. 2023).
  """
  slow = (frequencies / config.rope_factor).astype(np.float32)
  if config.rope_scaling == "linear":
    return slow
  if config.rope_scaling == "llama3":
    turns = config.rope_context * frequencies / (2 * np.pi)
    kept = np.clip((turns - config.rope_low) / (config.rope_high - config.rope_low), 0.0, 1.0)
  else:
    size = len(frequencies)
    index = lambda turns: size * math.log(config.rope_context / (turns * 2 * math.pi)) / math.log(config.rope_theta)
    first, last = max(math.floor(index(config.rope_high)), 0), min(math.ceil(index(config.rope_low)), 2 * size - 1)
    slowed = (np.arange(size, dtype=np.float32) - first) / (last - first or 0.001)
    kept = 1 - np.clip(slowed, 0.0, 1.0)
  return ((1 - kept) * slow + kept * frequencies).astype(np.float32)


def rotate(x_BHTC: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Rotates channel pairs (i, i + C/2), the half-split layout of Llama's released weights. Channels beyond the C of the
  tables stay."""
  cos, sin = tables
  turned, rest = jnp.split(x_BHTC, [2 * cos.shape[-1]], axis=-1)
  left, right = jnp.split(turned.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], -1).astype(x_BHTC.dtype)
  return jnp.concatenate([turned, rest], -1) if rest.shape[-1] else turned


def by_kind(config: DecoderConfig, positions_BT: jax.Array, segments_BT: jax.Array, k_positions_BS: jax.Array,
            k_segments_BS: jax.Array) -> tuple[dict, dict]:
  """({kind: rotary tables}, {kind: allowed_BTS}) for each kind of layer of the model, computed once for all layers."""
  c, limit = config, k_positions_BS.shape[1]
  stretch = functools.partial(stretched, c) if c.rope_scaling != "none" else None
  cos, sin = rotary_tables(positions_BT, limit, c.rotated, c.rope_theta, stretch, c.rope_gain)
  tables = dict.fromkeys(c.kinds, (cos, sin))
  if c.rope_local_theta and "local" in tables:
    tables["local"] = rotary_tables(positions_BT, limit, c.rotated, c.rope_local_theta)
  if "unrotated" in tables:   # the angle 0
    tables["unrotated"] = jnp.ones_like(cos), jnp.zeros_like(sin)
  allowed = {kind: may_attend(positions_BT, k_positions_BS, segments_BT, k_segments_BS,
                              c.window if kind == "local" else 0) for kind in tables}
  return tables, allowed


def attend(q_BHTC: jax.Array, k_BKSC: jax.Array, v_BKSC: jax.Array, allowed_BTS: jax.Array,
           scale: float = 0.0, softcap: float = 0.0) -> jax.Array:
  """softmax(q k / sqrt(C)) v in [B, H, T, C]; H / K query heads share a key head. Softmax in f32.

  scale: in place of 1 / sqrt(C) (0: that). softcap: scores become softcap * tanh(score / softcap) (0: they stay).
  A query with no allowed key (padding) gets the mean of the values, which is finite and never read.
  """
  B, H, T, C = q_BHTC.shape
  K = k_BKSC.shape[1]
  bias_BTS = jnp.where(allowed_BTS, 0.0, -1e9).astype(jnp.float32)
  # Query heads of one key head are adjacent, so the group folds into the rows of one matmul per key head.
  folded = q_BHTC.reshape(B, K, (H // K) * T, C) * (scale or C**-0.5)
  return _mix(folded, k_BKSC, v_BKSC, bias_BTS, softcap).reshape(B, H, T, C)


@dataclasses.dataclass(frozen=True)
class GroupLayout:
  """Groups of rows that share a prompt: rows of `prompt` + `group` * T tokens, one a group, as inputs.group_rows lays
  them, and the rows of `prompt` + T tokens, one an episode, that attend. Both are axes B and T below."""

  prompt: int
  group: int

  def rows(self, x_BHTC: jax.Array) -> jax.Array:
    """From groups to whole rows, each with a copy of its prompt."""
    return jnp.concatenate([jnp.repeat(x_BHTC[:, :, : self.prompt], self.group, axis=0), self._after(x_BHTC)], axis=2)

  def by_rows(self, attend_rows: Callable) -> Callable:
    """attend_fn of groups, from that of whole rows, which attends from a prompt once a row: for what takes no other."""

    def attend_groups(q_BHTC, k_BKTC, v_BKTC):
      mixed_BHTC = attend_rows(*map(self.rows, (q_BHTC, k_BKTC, v_BKTC)))
      prompt_BHPC = mixed_BHTC.reshape(-1, self.group, *mixed_BHTC.shape[1:])[:, 0, :, : self.prompt]
      return self._groups(prompt_BHPC, mixed_BHTC[:, :, self.prompt :])

    return attend_groups

  def by_parts(self, attend_masked: Callable, allowed_BTT: jax.Array) -> Callable:
    """attend_fn of groups, from attend_masked(q_BHTC, k_BKSC, v_BKSC, allowed_BTS): a prompt attends to itself once,
    and the rest of a row to the whole row. allowed_BTT: of whole rows"""
    P = self.prompt
    of_prompt_BPP = allowed_BTT.reshape(-1, self.group, *allowed_BTT.shape[1:])[:, 0, :P, :P]

    def attend_groups(q_BHTC, k_BKTC, v_BKTC):
      prompt_BHPC = attend_masked(*(x[:, :, :P] for x in (q_BHTC, k_BKTC, v_BKTC)), of_prompt_BPP)
      rest_BHTC = attend_masked(self._after(q_BHTC), self.rows(k_BKTC), self.rows(v_BKTC), allowed_BTT[:, P:])
      return self._groups(prompt_BHPC, rest_BHTC)

    return attend_groups

  def after(self, x_BTD: jax.Array) -> jax.Array:
    """Of what is laid by groups the rows without their prompts, [B, T, D]."""
    return self._after(x_BTD[:, None])[:, 0]

  def _after(self, x_BHTC: jax.Array) -> jax.Array:
    """`after` of heads."""
    Q, H, S, C = x_BHTC.shape
    x = x_BHTC[:, :, self.prompt :].reshape(Q, H, self.group, (S - self.prompt) // self.group, C)
    return jnp.moveaxis(x, 2, 1).reshape(Q * self.group, H, -1, C)

  def _groups(self, prompt_BHPC: jax.Array, rest_BHTC: jax.Array) -> jax.Array:
    """Prompts, and rows without them, laid by groups."""
    Q, H, _, C = prompt_BHPC.shape
    rest = jnp.moveaxis(rest_BHTC.reshape(Q, self.group, H, -1, C), 1, 2).reshape(Q, H, -1, C)
    return jnp.concatenate([prompt_BHPC, rest], axis=2)


def layout_of(inputs: Inputs) -> GroupLayout | None:
  """None where rows share no prompt."""
  return None if inputs.prompts is None else GroupLayout(inputs.prompts.columns, inputs.prompts.group)


def attend_in_chunks(q_BHTC: jax.Array, k_BKTC: jax.Array, v_BKTC: jax.Array, inputs: Inputs, window: int = 0,
                     scale: float = 0.0, softcap: float = 0.0, queries: int = QUERIES) -> jax.Array:
  """`attend` of rows over themselves under `may_attend`, with the scores of `queries` queries a row at once.

  inputs: whose positions and segments decide what attends to what
  """
  B, H, T, C = q_BHTC.shape
  positions_BT, segments_BT = inputs.positions_BT, inputs.segments_BT

  def chunk(arrays: tuple) -> jax.Array:
    q, q_positions, q_segments = arrays
    allowed = may_attend(q_positions, positions_BT, q_segments, segments_BT, window)
    return attend(q, k_BKTC, v_BKTC, allowed, scale, softcap)

  if queries >= T:
    return chunk((q_BHTC, positions_BT, segments_BT))
  fill, pieces = (0, -T % queries), -(-T // queries)   # queries of padding are never read
  cut = lambda x, axis: jnp.moveaxis(x.reshape(*x.shape[:axis], pieces, queries, *x.shape[axis + 1 :]), axis, 0)
  ints = lambda x_BT: cut(jnp.pad(x_BT, ((0, 0), fill)), 1)
  chunks = cut(jnp.pad(q_BHTC, ((0, 0), (0, 0), fill, (0, 0))), 2), ints(positions_BT), ints(segments_BT)
  mixed = jnp.moveaxis(jax.lax.map(chunk, chunks), 0, 2)
  return mixed.reshape(B, H, pieces * queries, C)[:, :, :T]


def attend_by_chunks(q_BHTC: jax.Array, k_BKSC: jax.Array, v_BKSC: jax.Array, allowed_BTS: jax.Array, queries: int
                     ) -> jax.Array:
  """`attend` under any mask, with the scores of at most `queries` queries a row at once, also in the backward pass,
  which computes those of each chunk again."""
  B, H, T, C = q_BHTC.shape
  if queries >= T:
    return attend(q_BHTC, k_BKSC, v_BKSC, allowed_BTS)
  size = min(queries, -(-T // (8 * -(-T // queries))) * 8)   # even pieces, of whole rows of an accelerator's tiles
  pieces = -(-T // size)
  fill = (0, pieces * size - T)   # queries of padding are never read
  q = jnp.pad(q_BHTC, ((0, 0), (0, 0), fill, (0, 0))).reshape(B, H, pieces, size, C)
  allowed = jnp.pad(allowed_BTS, ((0, 0), fill, (0, 0))).reshape(B, pieces, size, -1)
  chunk = jax.checkpoint(lambda arrays: attend(arrays[0], k_BKSC, v_BKSC, arrays[1]), prevent_cse=False)
  mixed = jax.lax.map(chunk, (jnp.moveaxis(q, 2, 0), jnp.moveaxis(allowed, 1, 0)))
  return jnp.moveaxis(mixed, 0, 2).reshape(B, H, pieces * size, C)[:, :, :T]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _mix(q_BKXC, k_BKSC, v_BKSC, bias_BTS, softcap):
  return _mix_forward(q_BKXC, k_BKSC, v_BKSC, bias_BTS, softcap)[0]


def _mix_forward(q_BKXC, k_BKSC, v_BKSC, bias_BTS, softcap):   # X: tokens of all query heads of a key head
  B, K, X, _ = q_BKXC.shape
  T, S = bias_BTS.shape[1:]
  scores = jnp.einsum("bkxc,bksc->bkxs", q_BKXC, k_BKSC, preferred_element_type=jnp.float32)
  share_BKXS = jnp.tanh(scores / softcap) if softcap else None   # of the cap
  scores = share_BKXS * softcap if softcap else scores
  if X == T:
    scores = scores + bias_BTS[:, None]
  else:
    scores = (scores.reshape(B, K, X // T, T, S) + bias_BTS[:, None, None]).reshape(B, K, X, S)
  exponentials = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
  weights_BKXS = (exponentials / jnp.sum(exponentials, axis=-1, keepdims=True)).astype(v_BKSC.dtype)
  mixed_BKXC = jnp.einsum("bkxs,bksc->bkxc", weights_BKXS, v_BKSC)
  slope_BKXS = (1 - share_BKXS * share_BKXS).astype(v_BKSC.dtype) if softcap else None
  return mixed_BKXC, (q_BKXC, k_BKSC, v_BKSC, weights_BKXS, mixed_BKXC, slope_BKXS)


def _mix_backward(softcap, residuals, d_BKXC):
  """With P the weights and O the output, dS = P (dP - sum_s P dP), and sum_s P dP = sum_c dO O: a sum over C channels
  instead of over S keys (Dao et al. 2022, section B.2)."""
  q, k, v, weights, mixed, slope = residuals
  dv = jnp.einsum("bkxs,bkxc->bksc", weights, d_BKXC)
  dweights = jnp.einsum("bkxc,bksc->bkxs", d_BKXC, v, preferred_element_type=jnp.float32)
  row_sums = jnp.sum(d_BKXC.astype(jnp.float32) * mixed.astype(jnp.float32), axis=-1, keepdims=True)
  dscores = weights * (dweights - row_sums)
  dscores = (dscores * slope if softcap else dscores).astype(q.dtype)
  return jnp.einsum("bkxs,bksc->bkxc", dscores, k), jnp.einsum("bkxs,bkxc->bksc", dscores, q), dv, None


_mix.defvjp(_mix_forward, _mix_backward)
