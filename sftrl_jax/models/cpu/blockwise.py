"""Attention of whole rows in plain XLA that skips blocks of keys in which no query of a block may see any.

A block of queries reads one range of keys: from the first block of keys that one of them sees to the last. How long
that is, is known only at run time, so each length of a few is compiled, and a loop over the blocks of all rows takes
the shortest that holds the range. Packed rows then cost what their sequences cost, and not the square of their length;
a row of one sequence costs about half of its square. Scores of one block exist at once; the backward pass computes them
again (Dao et al. 2022).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sftrl_jax.models import layout
from sftrl_jax.shapes import check

BLOCK = 128   # queries, and keys
SHORT = 320   # tokens of a row up to which attention is not cut into pieces, where the choice is ours


class BlockMask(NamedTuple):
  """Which keys queries see, and the range of blocks of keys that a block of queries reads. I: blocks of a row."""

  allowed_BTT: jax.Array   # bool; rows are padded to whole blocks
  first_BI: jax.Array   # int32: the first block of keys that a query of the block sees
  last_BI: jax.Array   # int32: the last one


def block_mask(allowed_BTT: jax.Array, block: int = BLOCK) -> BlockMask:
  """The mask of `attention.may_attend`, or any other one, with what can be skipped. Made once for all layers."""
  fill = -allowed_BTT.shape[1] % block
  allowed_BTT = jnp.pad(allowed_BTT, ((0, 0), (0, fill), (0, fill)))
  B, T, _ = allowed_BTT.shape
  blocks = T // block
  # Keys in their order: the first and the last block that any query of a block sees.
  seen_BIT = jnp.any(allowed_BTT.reshape(B, blocks, block, T), axis=2)
  seen_BII = jnp.any(seen_BIT.reshape(B, blocks, blocks, block), axis=3)
  first_BI = jnp.argmax(seen_BII, axis=2).astype(jnp.int32)   # 0 where nothing is seen
  last_BI = jnp.where(jnp.any(seen_BII, axis=2), blocks - 1 - jnp.argmax(seen_BII[:, :, ::-1], axis=2), 0)
  return BlockMask(allowed_BTT, first_BI, last_BI.astype(jnp.int32))


def attend_blockwise(q_BHTC: jax.Array, k_BKTC: jax.Array, v_BKTC: jax.Array, mask: BlockMask, scale: float = 0.0,
                     softcap: float = 0.0) -> jax.Array:
  """`attention.attend` of rows over themselves, to rounding. Under a mesh each device computes its own rows and heads.

  A query with no allowed key gets a mean of some values, which is finite and never read.
  """
  check(q_BHTC=q_BHTC, k_BKTC=k_BKTC, v_BKTC=v_BKTC)
  T, C = q_BHTC.shape[2:]
  pad = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, mask.allowed_BTT.shape[1] - T), (0, 0)))
  kernel = lambda *arrays: _blockwise(*arrays, softcap)
  return layout.by_device(kernel, pad(q_BHTC * (scale or C**-0.5)), pad(k_BKTC), pad(v_BKTC), *mask)[:, :, :T]


def lengths(blocks: int) -> tuple[int, ...]:
  """The compiled lengths of a range of keys, in blocks: 1, 2, 3, 4, 6, 8, 12 and so on, and the whole row."""
  powers = [2**i for i in range(blocks.bit_length())]
  return (*sorted({size for power in powers for size in (power, power + power // 2) if size < blocks}), blocks)


class _Loop(NamedTuple):
  """What the loop over the blocks of all rows goes by. choice_N, start_N: of block n, the index in `lengths`, and the
  first key of its range."""

  size: int
  lengths: tuple[int, ...]
  choice_N: jax.Array
  start_N: jax.Array


def _loop(mask: BlockMask) -> _Loop:
  blocks = mask.first_BI.shape[1]
  size, sizes = mask.allowed_BTT.shape[1] // blocks, lengths(blocks)
  choice_BI = jnp.searchsorted(jnp.asarray(sizes), mask.last_BI - mask.first_BI + 1)
  start_BI = jnp.maximum(mask.last_BI + 1 - jnp.asarray(sizes)[choice_BI], 0) * size
  return _Loop(size, sizes, choice_BI.reshape(-1), start_BI.reshape(-1))


def _cut(x_BHTC: jax.Array, row: jax.Array, start: jax.Array, size: int, heads: int) -> jax.Array:
  """[heads, X, C]: so many tokens of a row, the query heads of a key head folded into X."""
  C = x_BHTC.shape[3]
  return jax.lax.dynamic_slice(x_BHTC, (row, 0, start, 0), (1, x_BHTC.shape[1], size, C)).reshape(heads, -1, C)


def _scores(q_KXC, k_KSC, allowed_BTT, row, first, start, size, softcap):
  """(scores_KXS of a block of queries, its share of the cap or None)."""
  K, X, _ = q_KXC.shape
  S = k_KSC.shape[1]
  allowed_TS = jax.lax.dynamic_slice(allowed_BTT, (row, first, start), (1, size, S))
  scores = jnp.einsum("kxc,ksc->kxs", q_KXC, k_KSC, preferred_element_type=jnp.float32)
  share_KXS = jnp.tanh(scores / softcap) if softcap else None
  scores = share_KXS * softcap if softcap else scores
  bias_1TS = jnp.where(allowed_TS, 0.0, -1e9).astype(jnp.float32)
  return (scores.reshape(K, X // size, size, S) + bias_1TS[:, None]).reshape(K, X, S), share_KXS


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _blockwise(q_BHTC, k_BKTC, v_BKTC, allowed_BTT, first_BI, last_BI, softcap):
  return _forward(q_BHTC, k_BKTC, v_BKTC, allowed_BTT, first_BI, last_BI, softcap)[0]


def _forward(q_BHTC, k_BKTC, v_BKTC, allowed_BTT, first_BI, last_BI, softcap):
  B, H, K, blocks = *q_BHTC.shape[:2], k_BKTC.shape[1], first_BI.shape[1]
  loop = _loop(BlockMask(allowed_BTT, first_BI, last_BI))

  def of_block(n):
    row, first, start = n // blocks, n % blocks * loop.size, loop.start_N[n]
    q_KXC = _cut(q_BHTC, row, first, loop.size, K)

    def over(length):
      k_KSC, v_KSC = (_cut(x, row, start, length * loop.size, K) for x in (k_BKTC, v_BKTC))
      scores, _ = _scores(q_KXC, k_KSC, allowed_BTT, row, first, start, loop.size, softcap)
      most = jnp.max(scores, axis=-1, keepdims=True)
      exponentials = jnp.exp(scores - most)
      total = jnp.sum(exponentials, axis=-1, keepdims=True)
      mixed_KXC = jnp.einsum("kxs,ksc->kxc", (exponentials / total).astype(v_KSC.dtype), v_KSC)
      return mixed_KXC, (most + jnp.log(total))[:, :, 0]

    return jax.lax.switch(loop.choice_N[n], [functools.partial(over, length) for length in loop.lengths])

  mixed_NKXC, logsum_NKX = jax.lax.map(of_block, jnp.arange(B * blocks))
  mixed_BHTC = _whole(mixed_NKXC, B, blocks, K, H // K)
  return mixed_BHTC, (q_BHTC, k_BKTC, v_BKTC, allowed_BTT, first_BI, last_BI, mixed_BHTC, logsum_NKX)


def _whole(x_NKXC, B, blocks, K, heads):
  """x_BHTC of what the loop gives for each block. heads: query heads of a key head"""
  size, C = x_NKXC.shape[2] // heads, x_NKXC.shape[3]
  x = x_NKXC.reshape(B, blocks, K, heads, size, C).transpose(0, 2, 3, 1, 4, 5)
  return x.reshape(B, K * heads, blocks * size, C)


def _backward(softcap, residuals, d_BHTC):
  """As `attention._mix_backward`, with the weights exp(score - logsum) computed again."""
  q_BHTC, k_BKTC, v_BKTC, allowed_BTT, first_BI, last_BI, mixed_BHTC, logsum_NKX = residuals
  B, H, K, blocks = *q_BHTC.shape[:2], k_BKTC.shape[1], first_BI.shape[1]
  loop = _loop(BlockMask(allowed_BTT, first_BI, last_BI))

  def of_block(sums, n):
    row, first, start = n // blocks, n % blocks * loop.size, loop.start_N[n]
    q_KXC, d_KXC, mixed_KXC = (_cut(x, row, first, loop.size, K) for x in (q_BHTC, d_BHTC, mixed_BHTC))
    row_sums = jnp.sum(d_KXC.astype(jnp.float32) * mixed_KXC.astype(jnp.float32), axis=-1, keepdims=True)

    def over(length, dk_BKTC, dv_BKTC):
      k_KSC, v_KSC = (_cut(x, row, start, length * loop.size, K) for x in (k_BKTC, v_BKTC))
      scores, share_KXS = _scores(q_KXC, k_KSC, allowed_BTT, row, first, start, loop.size, softcap)
      weights_KXS = jnp.exp(scores - logsum_NKX[n][:, :, None])
      dweights = jnp.einsum("kxc,ksc->kxs", d_KXC, v_KSC, preferred_element_type=jnp.float32)
      dscores = weights_KXS * (dweights - row_sums)
      dscores = (dscores * (1 - share_KXS * share_KXS) if softcap else dscores).astype(q_KXC.dtype)
      dk_KSC = jnp.einsum("kxs,kxc->ksc", dscores, q_KXC, preferred_element_type=jnp.float32)
      dv_KSC = jnp.einsum("kxs,kxc->ksc", weights_KXS.astype(v_KSC.dtype), d_KXC, preferred_element_type=jnp.float32)
      add = lambda sum_BKTC, x_KSC: jax.lax.dynamic_update_slice(
          sum_BKTC, (_cut(sum_BKTC, row, start, length * loop.size, K) + x_KSC)[None], (row, 0, start, 0))
      return add(dk_BKTC, dk_KSC), add(dv_BKTC, dv_KSC), jnp.einsum("kxs,ksc->kxc", dscores, k_KSC)

    *sums, dq_KXC = jax.lax.switch(loop.choice_N[n], [functools.partial(over, length) for length in loop.lengths],
                                   *sums)
    return tuple(sums), dq_KXC

  zeros = tuple(jnp.zeros(x.shape, jnp.float32) for x in (k_BKTC, v_BKTC))
  (dk_BKTC, dv_BKTC), dq_NKXC = jax.lax.scan(of_block, zeros, jnp.arange(B * blocks))
  return (_whole(dq_NKXC, B, blocks, K, H // K), dk_BKTC.astype(k_BKTC.dtype), dv_BKTC.astype(v_BKTC.dtype),
          None, None, None)


_blockwise.defvjp(_forward, _backward)
