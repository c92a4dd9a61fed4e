"""A batch scores each pair as a whole forward pass of that pair alone does, on one device and on several."""

import jax
import numpy as np
import pytest

from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.harness.likelihood import (
  MOST_TOKENS,
  NARROWEST,
  SHORTEST,
  LikelihoodScorer,
  Pair,
  batches,
  columns_of,
  length_of,
)

MODEL = build(DecoderConfig(vocab=50, width=16, layers=2, heads=2, kv_heads=1, mlp_dim=24, init_std=0.5, remat="none"))


@pytest.fixture(scope="module")
def params():
  return jax.jit(MODEL.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def pairs(params):
  """Pairs of many lengths, most of random ids, and some of the ids that the model itself finds likeliest."""
  random, forward = np.random.default_rng(1), jax.jit(MODEL.logits)
  pairs = [Pair(random.integers(1, 50, context).tolist(), random.integers(1, 50, scored).tolist())
           for context, scored in ((1, 1), (3, 2), (30, 9), (1, 40), (44, 1), (20, 20), (7, 1))]
  for context in ([5], [7, 8, 9]):
    ids = list(context)
    for _ in range(4):
      ids.append(int(np.argmax(forward(params, np.asarray([ids + [0] * (8 - len(ids))]))[0, len(ids) - 1])))
    pairs.append(Pair(context, ids[len(context):]))
  # Answers of one token behind one context, more than share a row, among them the likeliest.
  pairs[5:5] = [Pair([5], [number]) for number in (*range(20, 30), pairs[-2].scored[0])]
  return pairs


@pytest.mark.parametrize("devices", [1, 8])
def test_a_batch_scores_each_pair_as_alone(params, pairs, devices):
  mesh = meshes.make(MeshConfig(), jax.devices()[:devices])
  counted = []
  with jax.set_mesh(mesh), rules.applied():
    likelihoods = LikelihoodScorer(MODEL, params, mesh).score(pairs, counted.append)
  assert sum(counted) == len(pairs) == len(likelihoods)
  for pair, likelihood in zip(pairs, likelihoods, strict=True):
    ids = np.asarray([[*pair.context, *pair.scored]])
    logs = np.asarray(jax.nn.log_softmax(MODEL.logits(params, ids), axis=-1), np.float64)[0]
    places = np.arange(len(pair.context) - 1, ids.shape[1] - 1)
    assert likelihood.logprob == pytest.approx(logs[places, pair.scored].sum(), abs=1e-4)
    assert likelihood.greedy == bool((logs[places].argmax(-1) == pair.scored).all())
  assert [likelihood.greedy for likelihood in likelihoods[-2:]] == [True, True]
  assert not all(likelihood.greedy for likelihood in likelihoods)


def test_every_pair_is_in_one_batch_of_a_few_shapes():
  random = np.random.default_rng(2)
  pairs = [Pair([0] * int(random.integers(1, 900)), [0] * int(random.integers(1, 30))) for _ in range(700)]
  planned = list(batches(pairs, 6))
  assert sorted(number for batch in planned for row in batch.rows for number in row.numbers) == list(range(len(pairs)))
  assert len({batch[1:] for batch in planned}) <= 3 * len({length_of(tokens) for tokens in range(1, 930)})
  assert [batch.tokens for batch in planned] == sorted((batch.tokens for batch in planned), reverse=True)
  for batch in planned:
    assert batch.size % 6 == 0 and batch.size >= len(batch.rows) and batch.columns <= batch.tokens
    assert (batch.size - 6) * batch.tokens < MOST_TOKENS
    for row in batch.rows:
      assert len(row.read) <= batch.tokens and len(row.targets) <= batch.columns
      pair = pairs[row.numbers[0]]
      assert len(row.read) == len(pair.context) + (0 if batch.alternatives else len(pair.scored) - 1)


def test_answers_of_one_token_share_a_row():
  pairs = [Pair([1, 2], [answer]) for answer in range(NARROWEST + 1)] + [Pair([1, 2], [3, 4]), Pair([1], [9])]
  planned = [(row.read, row.targets, batch.alternatives) for batch in batches(pairs) for row in batch.rows]
  assert sorted(planned) == sorted([
      ((1, 2), tuple(range(NARROWEST)), True), ((1, 2), (NARROWEST,), True), ((1,), (9,), True),
      ((1, 2, 3), (3, 4), False)])


def test_lengths_have_little_padding():
  assert [length_of(n) for n in (1, SHORTEST, 33, 64, 65, 100, 129, 1025)] == [32, 32, 40, 64, 80, 112, 160, 1280]
  assert all(n <= length_of(n) <= max(SHORTEST, 1.25 * n) for n in range(1, 5000))
  assert [columns_of(n) for n in (1, 8, 9, 33, 500)] == [8, 8, 32, 128, 512]
