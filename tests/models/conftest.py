"""Tiny decoders of every kind, and ragged rows for them to read."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs, models, trees

TINY = models.DecoderConfig(vocab=24, width=32, layers=2, heads=4, kv_heads=2, mlp_dim=48, init_std=0.5)
KINDS = {
    "grouped": TINY,
    "plain": dataclasses.replace(TINY, kv_heads=4, mlp="plain", activation="relu", remat="none"),
    "tied": dataclasses.replace(TINY, kv_heads=1, head_dim=6, activation="gelu", tie_embeddings=True, unroll=2),
    "everything": dataclasses.replace(
        TINY, layers=3, tie_embeddings=True, window=3, pattern=("local", "global"), qkv_bias=True, qk_norm=True,
        post_norms=True, norm_plus_one=True, embed_scale=3.0, rope_local_theta=100.0, rope_scaling="llama3",
        rope_factor=8.0, rope_context=16, query_scale=0.5),
    "capped": dataclasses.replace(
        TINY, layers=3, window=3, pattern=("local", "unrotated", "global"), qkv_bias=True, o_bias=True, mlp_bias=True,
        qk_norm=True, qk_norm_whole=True, pre_norms=False, post_norms=True, rope_scaling="yarn", rope_factor=4.0,
        rope_high=8.0, rope_context=16, rope_gain=1.2, rope_part=0.75, attention_softcap=2.0, residual_scale=0.7,
        logits_divisor=1.5, logits_softcap=3.0),
    "half": dataclasses.replace(TINY, dtype="bfloat16"),
}
LENGTHS = (3, 7, 1, 5)


def leaf(path, shape, random):
  """Norms off 1, matrices loud enough that every part of the model shows in the logits."""
  noise = random.normal(size=shape).astype(np.float32)
  return 1 + 0.2 * noise if path.endswith("scale") else noise / (2 if "embed" in path else shape[1] ** 0.5)


@functools.cache
def born(config):
  """A model, parameters drawn by NumPy (nothing to compile), and its functions compiled once for all tests."""
  model, random = models.build(config), np.random.default_rng(1)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  params = trees.map_with_path(lambda path, x: jnp.asarray(leaf(path, x.shape, random)), shapes)
  decoding = jax.jit(model.decoding)(params)
  extend = jax.jit(functools.partial(model.extend, decoding))
  return types.SimpleNamespace(model=model, params=params, logits=jax.jit(model.logits), extend=extend)


@pytest.fixture(params=[name for name in KINDS if name != "half"])
def decoder(request):
  """A decoder in f32, of each kind in turn."""
  return born(KINDS[request.param])


@pytest.fixture(scope="session")
def grouped():
  return born(KINDS["grouped"])


@pytest.fixture(scope="session")
def half():
  return born(KINDS["half"])


@pytest.fixture
def born_of():
  """From a change of the grouped decoder to a decoder."""
  return lambda **change: born(dataclasses.replace(TINY, **change))


@pytest.fixture(scope="session")
def kinds():
  return KINDS


@pytest.fixture(scope="session")
def ragged():
  """Rows of different lengths, every token of one row different."""
  random = np.random.default_rng(0)
  return [random.permutation(TINY.vocab)[:length].tolist() for length in LENGTHS]


@pytest.fixture(scope="session")
def packed(ragged):
  """(Inputs with two rows of two sequences, the slots): rows 0 and 1 share a row, as do 2 and 3."""
  slots = [inputs.Slot(0, 0, 1), inputs.Slot(0, 3, 2), inputs.Slot(1, 0, 1), inputs.Slot(1, 1, 2)]
  return inputs.pack(ragged, slots, 2, 12), slots


@pytest.fixture(scope="session")
def same():
  """same(a, b, tolerance): no element differs by more than tolerance times the spread (max - min) of b."""

  def compare(left, right, tolerance=1e-5):
    left, right = np.asarray(left, np.float32), np.asarray(right, np.float32)
    assert left.shape == right.shape
    assert np.abs(left - right).max() <= tolerance * (right.max() - right.min())

  return compare
