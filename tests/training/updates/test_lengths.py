"""Rows at their real length: what is computed is what whole rows give, and no more columns than are needed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sftrl_jax.inputs import Inputs, Prompts
from sftrl_jax.metrics import floats
from sftrl_jax.objectives.batches import LOGPROBS, GroupBatch, Scores
from sftrl_jax.objectives.grpo import GRPOConfig, grpo_loss
from sftrl_jax.objectives.imitation.distill import distill_loss
from sftrl_jax.objectives.ppo import PPOConfig, ppo_loss
from sftrl_jax.objectives.rloo import RLOOConfig, rloo_loss
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.rollout.collect import Rows
from sftrl_jax.training import state as states
from sftrl_jax.training.advantages import make_score_rows
from sftrl_jax.training.score import make_score, make_teacher_score
from sftrl_jax.training.step import accumulate, deal, make_train_step
from sftrl_jax.training.updates import lengths
from sftrl_jax.training.updates.lengths import (
  RowLengths,
  blank_score,
  by_length,
  case_of,
  compiled_lengths,
  cut,
  lengths_of,
)

SIZES = (3, 6)   # of the batches of conftest, whose rows have 6, 2, 5, 0, 3, 6, 4, 1 tokens
ppo = lambda **settings: lambda score: functools.partial(ppo_loss, ppo=PPOConfig(**settings), score=score, turns=2)
grpo = lambda rows=1, **settings: lambda score: functools.partial(
    grpo_loss, grpo=GRPOConfig(**settings), score=score, longest=9, rows=rows)
rloo = lambda rows=1, **settings: lambda score: functools.partial(
    rloo_loss, rloo=RLOOConfig(**settings), score=score, rows=rows)
LOSSES = {
    "ppo by tokens": ppo(entropy_coef=0.01, value_clip=0.2, value_coef=0.5),
    "ppo by turns": ppo(level="turn", value_coef=0.5, ratio_cap=10.0),
    "grpo": grpo(entropy_coef=0.01), "grpo, divided by a constant": grpo(mean="constant", kl_coef=0.5),
    "grpo of 2 rows": grpo(2, mean="sequence", kl_coef=0.5),
    "rloo of 2 rows": rloo(2, clip=0.5), "rloo by tokens": rloo(ratio="token")}
LAYOUTS = {"1 microbatch": (1, 1), "4 microbatches": (1, 4), "8 microbatches": (1, 8), "2 devices": (2, 2)}


def batch_for(kind, policy_batch, old=True):
  if kind.startswith("ppo"):
    return policy_batch
  ref_BT = 0.9 * policy_batch.old_logprobs_BT if "constant" in kind or kind.startswith("grpo of") else None
  return GroupBatch(policy_batch.inputs, policy_batch.targets_BT, policy_batch.mask_BT,
                    policy_batch.old_logprobs_BT if old else None, ref_BT,
                    np.tile(np.asarray([1.0, -0.5, 0.25, -2.0], np.float32), 2))


@pytest.fixture(scope="module")
def stepped(model, params, policy_batch):
  """stepped(kind, layout, sizes) -> (parameters, metrics, counts, log-probabilities) after one step, fetched."""

  def run(kind, layout, sizes, old=True):
    devices, microbatches = LAYOUTS[layout]
    mesh = meshes.make(meshes.MeshConfig(data=devices, fsdp=1), jax.devices()[:devices])
    loss = LOSSES[kind](make_score(model))
    of_rows = RowLengths(sizes, LOSSES[kind](blank_score)) if sizes else None
    optimizer = optax.sgd(0.5, momentum=0.9)
    with jax.set_mesh(mesh), rules.applied():
      step = jax.jit(make_train_step(loss, optimizer, optax.constant_schedule(0.5), microbatches, lengths=of_rows))
      batch = meshes.shard_rows(mesh, batch_for(kind, policy_batch, old))
      after, metrics = jax.device_get(step(states.create_sharded(params, optimizer, mesh), batch))
    counts, logprobs_BT = metrics.pop(lengths.COUNTS, None), metrics.pop(LOGPROBS, None)
    return after.params, floats(metrics), counts, logprobs_BT

  return run


def needed(inputs, microbatches):
  """By hand, how many microbatches are blank, and how many need each of SIZES."""
  longest = lengths_of(inputs).reshape(-1, microbatches).max(axis=0)
  return np.bincount(np.searchsorted((0, *SIZES), longest), minlength=len(SIZES) + 1)


@pytest.mark.parametrize("kind, layout", [
    *((kind, "4 microbatches") for kind in LOSSES if kind not in ("ppo by tokens", "grpo, divided by a constant")),
    *((kind, "8 microbatches") for kind in ("ppo by tokens", "grpo, divided by a constant")),   # one of them is blank
    *((kind, "2 devices") for kind in ("ppo by turns", "grpo of 2 rows")), ("rloo by tokens", "1 microbatch")])
def test_a_step_is_that_of_whole_rows_and_counts_what_it_computes(stepped, policy_batch, kind, layout):
  (whole, metrics, none, _), (cut_, others, counts, _) = (stepped(kind, layout, sizes) for sizes in ((), SIZES))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), whole, cut_)
  assert metrics.keys() == others.keys() and none is None
  for name, value in metrics.items():
    assert others[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
  assert counts.tolist() == needed(policy_batch.inputs, LAYOUTS[layout][1]).tolist()
  assert counts.sum() == LAYOUTS[layout][1] and (counts[0] > 0) == (layout == "8 microbatches")


@pytest.mark.parametrize("kind, layout", [
    ("grpo", "1 microbatch"), ("grpo", "4 microbatches"), ("grpo", "2 devices"), ("rloo of 2 rows", "4 microbatches")])
def test_without_old_logprobs_the_policy_is_its_own_and_its_logprobs_come_in_the_order_of_the_rows(
    stepped, model, params, policy_batch, kind, layout):
  """The scored path, with the policy's own log-probabilities as old ones, gives the same step to rounding."""
  batch = batch_for(kind, policy_batch)
  now_BT = np.asarray(jax.jit(make_score(model))(params, batch.inputs, batch.targets_BT).logprobs_BT)
  scored = policy_batch.replace(old_logprobs_BT=now_BT * policy_batch.mask_BT)
  step = jax.jit(make_train_step(LOSSES[kind](make_score(model)), optax.sgd(0.5, momentum=0.9),
                                 optax.constant_schedule(0.5)))
  want, wanted = step(states.create(params, optax.sgd(0.5, momentum=0.9)), batch_for(kind, scored))
  for sizes in ((), SIZES):
    after, metrics, _, logprobs_BT = stepped(kind, layout, sizes, old=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), after, jax.device_get(want.params))
    assert metrics["val/ratio"] == metrics["val/ratio_max"] == 1 and metrics["policy/approxkl_avg"] == 0
    assert metrics["loss"] == pytest.approx(floats(wanted)["loss"], abs=1e-6) and metrics["grad_norm"] > 0
    on = policy_batch.mask_BT > 0
    np.testing.assert_allclose(logprobs_BT[on], now_BT[on], atol=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_blank_microbatch_reads_no_model_and_adds_what_whole_blank_rows_add(model, params, policy_batch, kind):
  loss, batch = LOSSES[kind](make_score(model)), batch_for(kind, policy_batch)
  blank = jax.tree.map(np.zeros_like, batch)
  want = jax.jit(lambda p: accumulate(loss, p, blank, 1))(params)
  of_rows = RowLengths(SIZES, LOSSES[kind](blank_score))
  broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params)
  for pieces in (1, 2):
    grads, value, metrics = jax.jit(lambda p, n=pieces: accumulate(loss, p, blank, n, of_rows))(broken)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))
    assert metrics.pop(lengths.COUNTS).tolist() == [pieces, 0, 0]
    jax.tree.map(np.testing.assert_array_equal, (value, metrics), want[1:])


@pytest.mark.parametrize("longest", [1, 7, 8, 9, 53, 64, 255, 2304])
@pytest.mark.parametrize("count", [1, 3, 4, 8])
def test_lengths_are_shares_of_the_longest_which_is_one_of_them(longest, count):
  sizes = compiled_lengths(longest, count)
  assert sizes[-1] == longest and 1 <= len(sizes) <= count and list(sizes) == sorted(set(sizes))
  assert all(size % lengths.ROUND == 0 for size in sizes[:-1])
  bounds = [min(longest, longest * k / count + lengths.ROUND) for k in range(1, count + 1)]
  for length in range(1, longest + 1):   # a row is never computed much longer than its share of the longest
    size = next(size for size in sizes if size >= length)
    assert size <= next(bound for k, bound in enumerate(bounds, 1) if longest * k / count >= length)
  if count == 1:
    assert sizes == (longest,)


def test_microbatches_have_rows_of_like_length():
  source = np.random.default_rng(0)
  lengths_B, rows_B = source.integers(0, 99, 24), source.permutation(100)[:24]
  order = by_length(rows_B, lengths_B, 4)
  assert sorted(order) == sorted(rows_B)
  of = dict(zip(rows_B, lengths_B, strict=True))
  dealt = [[of[row] for row in piece] for piece in deal(order, 4).tolist()]
  assert sum(dealt, []) == sorted(lengths_B)
  assert by_length(rows_B, np.zeros(24), 1).tolist() == rows_B.tolist()   # ties stay in their order


def test_a_case_is_the_smallest_length_that_holds_every_row():
  segments = lambda *counts: np.stack([np.arange(6) < count for count in counts]).astype(np.int32)
  case = jax.jit(lambda x: case_of((2, 4, 6), Inputs(x, x, x)))
  assert [int(case(segments(0, count))) for count in range(7)] == [0, 1, 1, 2, 2, 3, 3]
  assert int(case(segments(5, 1))) == 3


def test_columns_are_cut_and_what_has_none_stays(policy_batch):
  batch = cut(batch_for("grpo", policy_batch), 2)
  assert batch.targets_BT.shape == batch.inputs.tokens_BT.shape == (8, 2) and batch.advantages_B.shape == (8,)
  np.testing.assert_array_equal(lengths.widen(batch.mask_BT, 6)[:, 2:], 0)


def score_pictured(params, inputs, targets_BT):
  """Log-probabilities that depend on the row's pictures."""
  blank = jnp.zeros(targets_BT.shape)
  return Scores(inputs.images_BIYXC.mean((1, 2, 3, 4))[:, None] * targets_BT, blank, None, blank > 0)


def test_rows_of_a_model_are_scored_alike_at_their_length_on_two_devices(model, params, ragged):
  """A model's on text, and what depends on a row's pictures."""
  inputs, targets_BT, mask_BT = ragged
  pictures = np.random.default_rng(0).random((8, 2, 4, 4, 3), np.float32)
  mesh = meshes.make(meshes.MeshConfig(data=2, fsdp=1), jax.devices()[:2])
  order = by_length(np.arange(8, dtype=np.int32), lengths_of(inputs), 4)
  for score_rows, read in ((make_score(model), inputs), (score_pictured, inputs.replace(images_BIYXC=pictures))):
    laid = Rows(read, targets_BT, mask_BT, targets_BT, mask_BT)
    whole = jax.device_get(jax.jit(make_score_rows(score_rows, 1))(params, None, laid))
    with jax.set_mesh(mesh), rules.applied():
      placed = jax.device_put(params, rules.shardings(params, mesh)), None, meshes.shard_rows(mesh, laid), order
      scored = jax.device_get(jax.jit(make_score_rows(score_rows, 4, (2, 4, 6)))(*placed))
    there = inputs.segments_BT > 0
    np.testing.assert_allclose(scored.logprobs_BT[there], whole.logprobs_BT[there], atol=1e-6)
    assert scored.counts.tolist() == [0, 1, 1, 2]
    if whole.values_BT is not None:
      np.testing.assert_allclose(scored.values_BT[there], whole.values_BT[there], atol=1e-6)


@pytest.mark.parametrize("microbatches", [1, 4, 8])
def test_a_prefix_stays_whole_where_its_rows_are_cut(model, params, prefixed, microbatches):
  """One of eight microbatches is blank."""
  teacher = jax.tree.map(lambda x: 0.5 * x, params["model"])
  score, loss = make_teacher_score(model, model), lambda score: functools.partial(distill_loss, score=score)
  with_teacher = lambda loss: lambda params, batch: loss({**params, "teacher": teacher}, batch)
  of_rows = RowLengths(SIZES, loss(blank_score))
  whole, cut_ = (jax.jit(lambda p, rows=rows: accumulate(with_teacher(loss(score)), p, prefixed, microbatches, rows))(
      {"model": params["model"]}) for rows in (None, of_rows))
  assert cut_[2].pop(lengths.COUNTS).tolist() == needed(prefixed.inputs, microbatches).tolist()
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), whole, cut_)
  assert cut(prefixed, 2).prefix is prefixed.prefix and cut(prefixed, 2).weights_BT.shape == (8, 2)


def test_groups_stay_together_in_the_order_of_their_longest_row():
  lengths_B = np.asarray([1, 9, 2, 2, 1, 3, 8, 8])   # four groups of two
  order = by_length(np.arange(8), lengths_B, 2, group=2)
  pieces = deal(order, 2)
  assert pieces.tolist() == [[2, 3, 4, 5], [6, 7, 0, 1]]   # neighbours, and neither piece has what the other needs
  assert by_length(np.arange(8), lengths_B, 2).tolist() == by_length(np.arange(8), lengths_B, 2, group=1).tolist()


def test_a_prompt_that_rows_share_is_cut_as_they_are():
  rows_BT, sizes = np.zeros((4, 24), np.int32), (8, 16, 24)
  tokens_BP = np.tile(np.arange(1, 31, dtype=np.int32), (4, 1))   # 30 columns: 16, 24 and 30 are kept
  assert [lengths.prompt_columns(30, size, 24) for size in sizes] == [16, 24, 30]
  for row, prompt, case in ((1, 16, 1), (8, 0, 1), (9, 3, 2), (8, 17, 2), (1, 25, 3), (24, 30, 3), (0, 30, 0)):
    segments_BT = rows_BT.copy()
    segments_BT[2, :row] = 1
    inputs = Inputs(rows_BT, rows_BT, segments_BT, prompts=Prompts(tokens_BP, np.full(4, prompt, np.int32), 2))
    assert int(case_of(sizes, inputs)) == case
    for size, kept in zip(sizes, (16, 24, 30), strict=True):
      short = cut((inputs, rows_BT), size)
      assert short[0].tokens_BT.shape == short[1].shape == (4, size)
      assert short[0].prompts.tokens_BP.tolist() == tokens_BP[:, 30 - kept :].tolist() and short[0].prompts.group == 2
