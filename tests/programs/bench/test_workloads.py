"""The work that is timed is the work of a run."""

import dataclasses

import jax
import numpy as np
import pytest

from sftrl_jax.models import DecoderConfig, build, flops
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.pictures.processors.idefics3 import Idefics3Processor
from sftrl_jax.pictures.processors.mllama import MllamaProcessor
from sftrl_jax.programs.bench import workloads
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.text.images import ImageReader, TiledReader


@pytest.fixture(scope="module")
def model():
  return build(DecoderConfig(vocab=40, width=16, layers=1, heads=2, kv_heads=1, remat="none", tie_embeddings=True))


@pytest.fixture(scope="module")
def decoding(model):
  return jax.jit(lambda key: model.decoding(model.init(key)))(jax.random.key(0))


@pytest.fixture(scope="module")
def mesh():
  return meshes.make(meshes.MeshConfig(), jax.devices()[:1])


def test_ragged_rows_hold_every_example_once_with_its_labels():
  batch, examples = workloads.ragged(4, 64, 40)
  sizes = [len(ids) - 1 for ids, _ in examples]
  assert (batch.inputs.segments_BT > 0).sum() == sum(sizes) > 0.5 * 4 * 64 and 16 <= min(sizes) < max(sizes) <= 64
  assert batch.weights_BT.sum() == sum(sum(weights[1:]) for _, weights in examples)
  assert sorted(batch.targets_BT[batch.weights_BT > 0]) == sorted(
      token for ids, weights in examples for token, weight in zip(ids, weights, strict=True) if weight)
  again, _ = workloads.ragged(4, 64, 40)
  assert (again.inputs.tokens_BT == batch.inputs.tokens_BT).all()
  short = [len(ids) - 1 for ids, _ in workloads.ragged(4, 64, 40, longest=20)[1]]
  assert 16 <= min(short) <= max(short) <= 20


def test_rows_without_padding_are_all_labels_and_the_peer_reads_the_same():
  batch, examples = workloads.unpadded(3, 8, 40)
  assert batch.weights_BT.all() and batch.inputs.segments_BT.all() and batch.inputs.tokens_BT.min() >= 4
  assert (np.asarray([ids for ids, _ in examples]) == batch.inputs.tokens_BT).all()
  assert (batch.targets_BT[:, :-1] == batch.inputs.tokens_BT[:, 1:]).all()


@pytest.mark.parametrize("reader", [
    ImageReader(7, 3, 4, 6, 2), TiledReader(7, 4, 16, 16, 5, Idefics3Processor(16, 32, True, "lanczos", 4)),
    TiledReader(7, 1, 33, 8, 1, MllamaProcessor(8, 4, "bilinear"))])
def test_rows_with_pictures_are_text_behind_as_many_as_fit_and_the_peer_reads_the_same(reader):
  batch, examples = workloads.with_pictures(2, 30, 40, reader)
  placeholders = reader.tokens * reader.images
  tokens_BT = batch.inputs.tokens_BT
  assert tokens_BT.shape == (2, 30) and batch.inputs.segments_BT.all()
  assert (tokens_BT == reader.image_id).sum(axis=1).tolist() == [placeholders] * 2
  assert (tokens_BT[:, :placeholders] == reader.image_id).all()
  assert batch.inputs.images_BIYXC.any(axis=(2, 3, 4)).all()   # none is blank
  assert batch.weights_BT.sum(axis=1).tolist() == [30 - placeholders + 1] * 2
  assert (batch.targets_BT[:, :-1] == tokens_BT[:, 1:]).all()
  for (ids, weights), row, target in zip(examples, tokens_BT, batch.targets_BT, strict=True):
    assert ids == [*row, target[-1]] and weights == [0.0] * placeholders + [1.0] * (31 - placeholders)
  with pytest.raises(ConfigError, match=f"config.data.length={placeholders + 2} or more"):
    workloads.with_pictures(2, placeholders, 40, reader)


def test_decoding_can_be_repeated_and_its_prompts_stay(model, decoding, mesh):
  timed = workloads.decode(model, decoding, mesh, workloads.prompts(2, 8, 40), 4)
  for _ in range(3):
    timed.run()
  assert timed.tokens == 8 and timed.flops > 0
  prefill = workloads.prefill(model, decoding, mesh, workloads.prompts(2, 8, 40))
  prefill.run()
  assert prefill.tokens == 16 and timed.bytes > 0 == prefill.bytes


def test_a_step_reads_each_weight_that_multiplies_and_the_cache(model, decoding):
  weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(decoding))
  cell = 4 * 2 * 1 * 8   # bytes, keys and values, one head of 8 channels, one layer
  assert flops.decode_bytes(model.config, decoding, 3, 10) == weights + 30 * cell
  apart = build(dataclasses.replace(model.config, tie_embeddings=False))
  # A table of its own, of which a row is looked up.
  params = jax.eval_shape(lambda key: apart.decoding(apart.init(key)), jax.random.key(0))
  assert flops.decode_bytes(apart.config, params, 3, 10) == weights + 30 * cell
