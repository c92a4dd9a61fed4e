"""Group relative policy optimisation on tables: the parameters are the logits themselves."""

import dataclasses
import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs
from sftrl_jax.metrics import floats
from sftrl_jax.objectives.batches import GroupBatch, Scores
from sftrl_jax.objectives.grpo import GRPOConfig, grpo_loss
from sftrl_jax.training.step import accumulate

module = importlib.util.spec_from_file_location("laws", pathlib.Path(__file__).parents[1] / "formula_laws.py")
laws = importlib.util.module_from_spec(module)
module.loader.exec_module(laws)

B, T, V, LONGEST = 4, 6, 5, 7
# Two groups of two episodes: several turns with words between them, and lengths of 5, 2, 6 and 1.
MASK = np.asarray([[1, 1, 0, 1, 1, 1], [0, 1, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0]], np.float32)
ADVANTAGES = np.asarray([0.7, -0.7, -1.2, 1.2], np.float32)
MEANS = pytest.mark.parametrize("mean", ["token", "sequence", "constant"])


def score(params, _, targets_BT):
  logs = jax.nn.log_softmax(params["logits"])
  chosen = jnp.take_along_axis(logs, targets_BT[..., None], axis=-1)[..., 0]
  return Scores(chosen, -jnp.sum(jnp.exp(logs) * logs, -1), None, jnp.argmax(logs, -1) == targets_BT)


now = jax.jit(lambda params, targets_BT: score(params, None, targets_BT).logprobs_BT)


def example(moved=0.0, ref=None, mask=MASK):
  """(params, batch): the policy that sampled the batch, moved away from it at random by `moved`; a start at `ref`."""
  random = np.random.default_rng(0)
  normal = lambda *shape: random.normal(size=shape).astype(np.float32)
  logits, targets = normal(B, T, V), random.integers(0, V, (B, T)).astype(np.int32)
  old = now({"logits": logits}, targets)
  start = None if ref is None else now({"logits": logits + ref * normal(B, T, V)}, targets) * mask
  batch = GroupBatch(inputs.right_pad([[0] * T] * B, T), targets, mask, old * mask, start, ADVANTAGES)
  return {"logits": logits + moved * normal(B, T, V)}, jax.tree.map(jnp.asarray, batch)


@functools.partial(jax.jit, static_argnums=2)
def evaluate(params, batch, grpo):
  """(total, weight, metrics, gradient of the total)."""
  def total(params):
    value, metrics = grpo_loss(params, batch, grpo=grpo, score=score, longest=LONGEST)
    return value.total, (value.weight, metrics)
  (value, (weight, metrics)), gradient = jax.value_and_grad(total, has_aux=True)(params)
  return value, weight, metrics, gradient["logits"]


def weights_of(mean, mask=MASK):
  """(a token's weight, the divisor) by hand."""
  lengths = mask.sum(1, keepdims=True)
  return {"token": (mask, mask.sum()), "sequence": (mask / np.maximum(lengths, 1), (lengths > 0).sum()),
          "constant": (mask, B * LONGEST)}[mean]


@MEANS
def test_the_first_update_is_reinforce_with_the_advantage_of_the_episode(mean):
  params, batch = example()
  total, weight, metrics, gradient = evaluate(params, batch, GRPOConfig(mean=mean))
  weights, count = weights_of(mean)
  np.testing.assert_allclose(total, -(weights * ADVANTAGES[:, None]).sum(), rtol=1e-5)
  assert weight == count and floats(metrics)["label_tokens"] == MASK.sum()
  reinforce = jax.jit(jax.grad(lambda logits: -jnp.sum(
      weights * ADVANTAGES[:, None] * now({"logits": logits}, batch.targets_BT))))
  np.testing.assert_allclose(gradient, reinforce(params["logits"]), atol=1e-6)
  told = floats(metrics)
  assert told["val/ratio"] == pytest.approx(1, abs=1e-6) and told["policy/clipfrac_avg"] == 0
  assert told["policy/approxkl_avg"] == pytest.approx(0, abs=1e-10) and told["clip_ratio/region_mean"] == 0


def test_dr_grpo_has_no_length_bias_and_the_mean_of_sequences_has():
  """Two answers of one advantage, one of six tokens and one of one: how hard is each token pulled?"""
  params, batch = example()
  batch = batch.replace(advantages_B=jnp.full(B, 0.5))
  per_token = jax.jit(jax.grad(lambda logits: jnp.sum(now({"logits": logits}, batch.targets_BT))))(params["logits"])
  unit = np.abs(per_token).sum(-1)
  for mean, long_one, short_one in (("constant", 0.5, 0.5), ("token", 0.5, 0.5), ("sequence", 0.5 / 6, 0.5)):
    pulled = np.abs(evaluate(params, batch, GRPOConfig(scale=False, mean=mean))[3]).sum(-1) / unit
    np.testing.assert_allclose(pulled[2], long_one, rtol=1e-4)
    np.testing.assert_allclose(pulled[3, 2], short_one, rtol=1e-4)


@MEANS
@pytest.mark.parametrize("change", [{}, {"clip_high": 0.28, "kl_coef": 0.3, "entropy_coef": 0.1}], ids=str)
def test_eight_pieces_of_one_row_are_one_piece_of_eight(mean, change):
  params, batch = example(moved=0.4, ref=0.5 if change else None)
  double = lambda tree: jax.tree.map(lambda x: jnp.concatenate([x, x[::-1]]), tree)
  params, batch = {"logits": double(params["logits"])}, double(batch)
  lookup = lambda params, rows, targets: score({"logits": params["logits"][rows.tokens_BT[:, 0]]}, rows, targets)
  rows = batch.inputs.replace(tokens_BT=jnp.broadcast_to(jnp.arange(8)[:, None], (8, T)))
  loss = functools.partial(grpo_loss, grpo=GRPOConfig(mean=mean, **change), score=lookup, longest=LONGEST)
  one, eight = (jax.jit(functools.partial(accumulate, loss, microbatches=pieces))(params, batch.replace(inputs=rows))
                for pieces in (1, 8))
  for mine, theirs in zip(jax.tree.leaves(eight), jax.tree.leaves(one), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_loss_by_hand():
  """One token of probability 1/2 that had 1/4 (ratio 2): A = 3 is clipped at 1 + e_high, A = -3 is not."""
  batch = lambda advantage: GroupBatch(inputs.right_pad([[0]], 1), jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1)),
                                       jnp.full((1, 1), np.log(1 / 4)), None, jnp.asarray([advantage]))
  params = {"logits": jnp.zeros((1, 1, 2))}
  for high, clipped in ((0.0, 1.2), (0.28, 1.28)):
    total, weight, metrics, _ = evaluate(params, batch(3.0), GRPOConfig(clip=0.2, clip_high=high))
    np.testing.assert_allclose(total, -3 * clipped, rtol=1e-5)
    assert weight == 1 and floats(metrics) == pytest.approx({
        "loss/policy_avg": -3 * clipped, "label_tokens": 1, "policy/approxkl_avg": 0.5 * np.log(2) ** 2,
        "policy/clipfrac_avg": 1, "policy/entropy_avg": np.log(2), "clip_ratio/low_mean": 0, "clip_ratio/high_mean": 1,
        "clip_ratio/region_mean": 1, "val/ratio": 2, "val/ratio_max": 2}, rel=1e-5)
    total, _, metrics, _ = evaluate(params, batch(-3.0), GRPOConfig(clip=0.2, clip_high=high))
    np.testing.assert_allclose(total, 3 * 2, rtol=1e-5)
    assert floats(metrics)["clip_ratio/region_mean"] == 0   # beyond the clip, but on the side that is not held back
  total, *_ = evaluate(params, batch(3.0), GRPOConfig(entropy_coef=0.5))
  np.testing.assert_allclose(total, -3.6 - 0.5 * np.log(2), rtol=1e-5)


@MEANS
@pytest.mark.parametrize("estimator, value", [("k3", lambda d: np.exp(-d) - 1 + d), ("k2", lambda d: d**2 / 2)])
def test_the_kl_in_the_loss_is_weighed_as_the_loss_is(mean, estimator, value):
  params, batch = example(moved=0.2, ref=0.5)
  grpo = GRPOConfig(mean=mean, kl_coef=0.3, kl_estimator=estimator)
  total, _, metrics, _ = evaluate(params, batch, grpo)
  gap = np.asarray(now(params, batch.targets_BT) - batch.ref_logprobs_BT)
  weights, count = weights_of(mean)
  want = (weights * value(gap)).sum()
  without, *_ = evaluate(params, batch.replace(ref_logprobs_BT=None), grpo)
  np.testing.assert_allclose(total - without, 0.3 * want, rtol=1e-4)
  adapted, *_ = evaluate(params, batch.replace(kl_coef_B=jnp.full(len(gap), 0.3)), dataclasses.replace(grpo, kl_coef=9))
  np.testing.assert_allclose(adapted, total, rtol=1e-5)
  assert floats(metrics)["loss/kl_avg"] == pytest.approx(want / count, rel=1e-4)


def test_in_expectation_k2_has_the_gradient_of_the_kl_and_k3_has_not():
  """One state, every action once, each weighted by its probability: the exact expectation over actions."""
  random = np.random.default_rng(1)
  logits, other = (jnp.asarray(random.normal(size=V), jnp.float32) for _ in range(2))
  p, log_q = jax.nn.softmax(logits), jax.nn.log_softmax(other)
  one = jnp.ones((V, 1))
  batch = GroupBatch(inputs.right_pad([[0]] * V, 1), jnp.arange(V)[:, None], one, jax.nn.log_softmax(logits)[:, None],
                     log_q[:, None], jnp.zeros(V))
  params = {"logits": jnp.broadcast_to(logits, (V, 1, V))}
  gradient = jax.grad(lambda z: jnp.sum(jax.nn.softmax(z) * (jax.nn.log_softmax(z) - log_q)))(logits)
  found = {}
  for estimator in ("k2", "k3"):
    *_, each = evaluate(params, batch, GRPOConfig(kl_coef=1.0, kl_estimator=estimator))
    found[estimator] = jnp.einsum("a,av->v", p, each[:, 0])
  np.testing.assert_allclose(found["k2"], gradient, atol=1e-6)
  assert np.abs(found["k3"] - gradient).max() > 0.05


@MEANS
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_the_policy_did_not_write_may_be_anything(mean, poison):
  params, batch = example(moved=0.2, ref=0.3)
  hide = lambda x: jnp.where((MASK == 0).reshape(MASK.shape + (1,) * (x.ndim - 2)), poison, x)
  dirty = batch.replace(old_logprobs_BT=hide(batch.old_logprobs_BT), ref_logprobs_BT=hide(batch.ref_logprobs_BT))
  grpo = GRPOConfig(mean=mean, kl_coef=0.1, entropy_coef=0.1)
  clean, other = evaluate(params, batch, grpo), evaluate(jax.tree.map(hide, params), dirty, grpo)
  for mine, theirs in zip(jax.tree.leaves(other[:3]), jax.tree.leaves(clean[:3]), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)
  np.testing.assert_allclose(evaluate(params, dirty, grpo)[3], clean[3], rtol=1e-6)


@MEANS
def test_a_batch_that_is_masked_altogether_is_zero_and_finite(mean):
  params, batch = example(moved=0.2, ref=0.3)
  empty = batch.replace(mask_BT=jnp.zeros((B, T)))
  total, weight, metrics, gradient = evaluate(params, empty, GRPOConfig(mean=mean, kl_coef=0.1, entropy_coef=0.1))
  assert total == 0 and not gradient.any() and np.isfinite(weight)
  assert floats(metrics)["label_tokens"] == 0


def test_a_ratio_never_overflows():
  params, batch = example()
  batch = batch.replace(old_logprobs_BT=batch.old_logprobs_BT - 1e4 * batch.mask_BT)
  total, _, _, gradient = evaluate(params, batch, GRPOConfig())
  assert np.isfinite(total) and np.isfinite(gradient).all()


GSPO = GRPOConfig(ratio="sequence", mean="sequence", clip=0.02, clip_high=0.03)
CISPO = GRPOConfig(surrogate="cispo", clip_high=0.1)
KINDS = {"token": GRPOConfig(clip_high=0.28), "gspo": GSPO, "cispo": CISPO,
         "gspo with a KL": GRPOConfig(ratio="sequence", mean="constant", kl_coef=0.3)}
kinds = pytest.mark.parametrize("kind", KINDS)


def ragged(grpo, seed=0):
  """(logits, batch) in 64 bits, of a policy that has moved since it played."""
  logits, targets, mask = laws.table(seed)
  source = np.random.default_rng(seed + 100)
  moved = lambda by: laws.logprobs(logits + by * source.normal(size=logits.shape), targets) * mask
  return logits, GroupBatch(laws.blank_inputs(), targets, mask, moved(0.3), moved(0.5) if grpo.kl_coef else None,
                            source.normal(size=laws.B))


def by_formula(logits, batch, grpo, rows=1):
  """(total, weight) in plain numpy; row s * E + e of rows * E is of episode e."""
  mask, logs = batch.mask_BT, laws.logprobs(logits, batch.targets_BT)
  of_episode = lambda x_B: np.tile(x_B.reshape(rows, -1).sum(0), rows)[:, None]
  gap, tokens = (logs - batch.old_logprobs_BT) * mask, of_episode(mask.sum(1))
  ratio = np.exp(gap if grpo.ratio == "token" else of_episode(gap.sum(1)) / tokens)
  a, low, high = batch.advantages_B[:, None], 1 - grpo.clip, 1 + (grpo.clip_high or grpo.clip)
  each = -np.minimum(ratio * a, np.clip(ratio, low, high) * a)
  if grpo.surrogate == "cispo":
    each = -np.minimum(ratio, high) * a * logs
  if grpo.kl_coef:
    d = logs - batch.ref_logprobs_BT
    each = each + grpo.kl_coef * (np.exp(-d) - 1 + d)
  weights, count = {"token": (mask, mask.sum()), "sequence": (mask / tokens, laws.B // rows),
                    "constant": (mask, laws.B // rows * LONGEST)}[grpo.mean]
  return (weights * np.where(mask > 0, each, 0)).sum(), count


def loss_of(grpo, rows=1):
  return functools.partial(grpo_loss, grpo=grpo, score=laws.score, longest=LONGEST, rows=rows)


@kinds
@pytest.mark.parametrize("rows", [1, 2])
def test_every_kind_is_its_formula_on_ragged_rows(kind, rows):
  grpo = KINDS[kind]
  logits, batch = ragged(grpo, rows)
  total, count = by_formula(logits, batch, grpo, rows)
  gradient = laws.check(loss_of(grpo, rows), logits, batch, total, count, gradient=kind != "cispo")
  if kind == "cispo":   # REINFORCE, a token weighed by its bounded ratio
    ratio = np.exp(laws.logprobs(logits, batch.targets_BT) - batch.old_logprobs_BT)
    weight = np.minimum(ratio, 1.1) * batch.advantages_B[:, None] * batch.mask_BT
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    want = weight[..., None] * (softmax - np.eye(laws.V)[batch.targets_BT])
    np.testing.assert_allclose(gradient, want, rtol=1e-6, atol=1e-12)
    assert (ratio[batch.mask_BT > 0] > 1.1).any()


@kinds
def test_no_kind_reads_what_the_policy_did_not_write(kind):
  logits, batch = ragged(KINDS[kind])
  hide = lambda x: None if x is None else np.where(batch.mask_BT > 0, x, np.nan)
  poisoned = batch.replace(old_logprobs_BT=hide(batch.old_logprobs_BT), ref_logprobs_BT=hide(batch.ref_logprobs_BT))
  laws.check_mask(loss_of(KINDS[kind]), logits, batch, poisoned, batch.mask_BT)


def test_gspo_holds_an_episode_as_a_whole_and_cispo_lets_every_token_pull():
  """Where the sequence's ratio is beyond the clip, none of its tokens has a gradient, not even one whose own is 1."""
  params, batch = example(moved=0.4)
  batch = batch.replace(advantages_B=jnp.ones(B))
  pulled = lambda grpo: np.abs(evaluate(params, batch, grpo)[3]).sum(-1)[MASK > 0] > 0
  tight = dict(clip=1e-4, clip_high=1e-4)
  by_token, by_sequence = pulled(GRPOConfig(**tight)), pulled(GRPOConfig(ratio="sequence", mean="sequence", **tight))
  gap = (np.asarray(now(params, batch.targets_BT)) - batch.old_logprobs_BT) * MASK
  beyond = np.broadcast_to(gap.sum(1, keepdims=True) > 0, MASK.shape)[MASK > 0]
  np.testing.assert_array_equal(by_sequence, ~beyond)
  np.testing.assert_array_equal(by_token, gap[MASK > 0] <= 0)
  assert pulled(GRPOConfig(surrogate="cispo", clip_high=1e-4)).all()
  for grpo in (GSPO, CISPO):   # rewards that are alike
    assert not evaluate(params, batch.replace(advantages_B=jnp.zeros(B)), grpo)[3].any()
