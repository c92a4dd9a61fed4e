"""Attention in blocks is attention, and keys that no query of a block sees are never read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs
from sftrl_jax.models import attention
from sftrl_jax.models.cpu import blockwise

LENGTH, BLOCK = 43, 8   # not a multiple of a block


def rows():
  """Packed, one sequence, padded on either side, and all padding."""
  packed = inputs.pack([[1] * size for size in (3, 17, 9, 12)], [
      inputs.Slot(0, start, number) for number, start in enumerate((0, 3, 20, 29), 1)], 1, LENGTH)
  return jax.tree.map(lambda *parts: np.concatenate(parts), packed, inputs.left_pad([[1] * LENGTH, [1] * 21], LENGTH),
                      inputs.right_pad([[1] * 30, []], LENGTH))


def outputs_and_gradients(look, batch, dtype, allowed):
  random, real_BT = np.random.default_rng(0), batch.segments_BT > 0
  arrays = [jnp.asarray(random.normal(size=(len(real_BT), heads, LENGTH, 4)), dtype) for heads in (6, 2, 2)]
  weights = jnp.asarray(random.normal(size=arrays[0].shape) * real_BT[:, None, :, None], jnp.float32)

  def worth(arrays, allowed):
    mixed = look(*arrays, allowed).astype(jnp.float32)
    return jnp.sum(mixed * weights), mixed

  (_, mixed), gradients = jax.jit(jax.value_and_grad(worth, has_aux=True))(arrays, allowed)
  return [np.asarray(x, np.float32).swapaxes(1, 2)[real_BT] for x in (mixed, *gradients)]


@pytest.mark.parametrize("dtype, window, softcap", [("float32", 0, 0.0), ("float32", 5, 0.7), ("bfloat16", 0, 0.0)])
def test_blocks_say_what_all_keys_at_once_say(dtype, window, softcap):
  batch = rows()
  fields = batch.positions_BT, batch.positions_BT, batch.segments_BT, batch.segments_BT
  allowed = attention.may_attend(*map(jnp.asarray, fields), window)
  whole = outputs_and_gradients(lambda *qkv: attention.attend(*qkv, 0.3, softcap), batch, dtype, allowed)
  blocks = outputs_and_gradients(lambda q, k, v, allowed: blockwise.attend_blockwise(
      q, k, v, blockwise.block_mask(allowed, BLOCK), 0.3, softcap), batch, dtype, allowed)
  for left, right in zip(blocks, whole, strict=True):   # bfloat16 rounds at 2^-9, and in other places
    assert np.linalg.norm(left - right) <= (1e-6 if dtype == "float32" else 2e-2) * np.linalg.norm(right)


def test_any_mask_has_its_range_of_blocks():
  allowed = np.random.default_rng(1).random((3, 20, 20)) < 0.05
  allowed[1, 4:8] = False
  mask = blockwise.block_mask(jnp.asarray(allowed), 4)
  for b, i in np.ndindex(3, 5):
    seen = np.flatnonzero(allowed[b, 4 * i : 4 * i + 4].any(axis=0)) // 4
    assert (mask.first_BI[b, i], mask.last_BI[b, i]) == ((seen.min(), seen.max()) if seen.size else (0, 0))


def test_keys_that_no_query_of_a_block_sees_are_never_read():
  """They are NaN here, which a weight of 0 would not hide."""
  segments = np.repeat([[1, 2, 3]], 2 * BLOCK, axis=1)
  positions = np.tile(np.arange(2 * BLOCK), 3)[None]
  allowed = attention.may_attend(*map(jnp.asarray, (positions, positions, segments, segments)))
  x = jnp.ones((1, 1, 6 * BLOCK, 4))
  spoiled = x.at[:, :, 2 * BLOCK : 4 * BLOCK].set(jnp.nan)
  look = jax.jit(lambda k: blockwise.attend_blockwise(x, k, k, blockwise.block_mask(allowed, BLOCK))[0, 0, :, 0])
  assert (np.isnan(look(spoiled)) == (segments[0] == 2)).all()
  np.testing.assert_allclose(look(x), 1.0, rtol=1e-6)   # weights add up to 1 but for rounding


def test_every_range_has_a_compiled_length_that_holds_it():
  assert blockwise.lengths(1) == (1,) and blockwise.lengths(5) == (1, 2, 3, 4, 5)
  for blocks in (7, 8, 16, 33):
    lengths = blockwise.lengths(blocks)
    assert lengths[-1] == blocks and len(lengths) <= 2 * blocks.bit_length()
    assert all(min(length for length in lengths if length >= size) <= 1.5 * size for size in range(1, blocks + 1))
