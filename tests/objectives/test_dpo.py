"""DPO and its family against plain numpy in 64 bits, by finite differences, and by the formulas' own numbers."""

import dataclasses
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.metrics import floats
from sftrl_jax.objectives.dpo import DPOConfig, dpo_loss

tables = importlib.util.spec_from_file_location("pairs", pathlib.Path(__file__).parents[1] / "pair_tables.py")
pairs = importlib.util.module_from_spec(tables)
tables.loader.exec_module(pairs)

FAMILY = [DPOConfig(), DPOConfig(beta=0.5, label_smoothing=0.1), DPOConfig("hinge"), DPOConfig("ipo"),
          DPOConfig(reference_free=True), DPOConfig(length_normalized=True), DPOConfig("hinge", length_normalized=True),
          DPOConfig(sft_coef=0.7), DPOConfig("ipo", sft_coef=0.2, reference_free=True)]
members = pytest.mark.parametrize("dpo", FAMILY, ids=lambda dpo: "-".join(
    f"{name}={value}" for name, value in dataclasses.asdict(dpo).items() if value != getattr(DPOConfig(), name)))


def reference(params, batch, dpo):
  """The loss of each pair by the formulas of the papers."""
  losses = []
  for (better, n, better_ref, _), (worse, m, worse_ref, _), _ in pairs.by_hand(params, batch):
    gaps = [better - (0 if dpo.reference_free else better_ref), worse - (0 if dpo.reference_free else worse_ref)]
    if dpo.loss == "ipo" or dpo.length_normalized:
      gaps = [gaps[0] / n, gaps[1] / m]
    h = gaps[0] - gaps[1]
    log_sigmoid = lambda z: -np.log1p(np.exp(-z))
    loss = {"sigmoid": -(1 - dpo.label_smoothing) * log_sigmoid(dpo.beta * h)
                       - dpo.label_smoothing * log_sigmoid(-dpo.beta * h),
            "hinge": max(0.0, 1 - dpo.beta * h), "ipo": (h - 1 / (2 * dpo.beta)) ** 2}[dpo.loss]
    losses.append(loss - dpo.sft_coef * better / n)
  return losses


def value(params, batch, dpo):
  return dpo_loss(params, batch, dpo=dpo, score=pairs.score)


@members
def test_every_member_is_its_formula_and_its_gradient_that_of_finite_differences(dpo):
  params, batch = pairs.example()
  total = jax.jit(lambda params, batch: value(params, batch, dpo)[0].total)
  with jax.enable_x64(True):
    exact = pairs.exact((params, batch))
    loss, _ = value(*exact, dpo)
    expected = reference(params, batch, dpo)
    assert loss.weight == len(expected) == 3
    np.testing.assert_allclose(loss.total, sum(expected), rtol=1e-6)
    gradient = jax.grad(lambda params: total(params, exact[1]))(exact[0])["logits"]
    source, step = np.random.default_rng(1), 1e-6
    for _ in range(5):
      toward = source.normal(size=params["logits"].shape)
      moved = [total({**exact[0], "logits": params["logits"] + sign * step * toward}, exact[1]) for sign in (1, -1)]
      np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), (gradient * toward).sum(), rtol=1e-5)
  single = jax.tree.map(lambda x: jnp.asarray(x, jnp.int32 if x.dtype == np.int32 else jnp.float32), (params, batch))
  np.testing.assert_allclose(value(*single, dpo)[0].total, sum(expected), rtol=1e-5)


@pytest.mark.parametrize("dpo, tokens, loss, slope", [
    (DPOConfig(), 1, 0.437488, -0.035434), (DPOConfig("hinge"), 1, 0.4, -0.1), (DPOConfig("ipo"), 1, 1.0, 2.0),
    (DPOConfig("ipo"), 2, 4.0, -4.0), (DPOConfig(label_smoothing=0.1), 1, 0.497488, None)])
def test_a_margin_of_six(dpo, tokens, loss, slope):
  """The table of formula, value and derivative at beta 0.1: one pair whose better response gained 6 nats."""
  params, batch = pairs.example()
  first = (np.arange(pairs.B) == 0)[:, None] * np.asarray([1.0, 0.0])
  sides = np.where(batch.sides_BT < 2, batch.sides_BT, -1)
  weights = np.zeros_like(batch.weights_BT)
  for side in (0, 1):
    columns = np.flatnonzero(sides[0] == side)
    weights[0, columns[:tokens]] = 1
  table = jnp.zeros_like(params["logits"])
  even = -tokens * np.log(pairs.V)
  batch = batch.replace(live_BP=first, sides_BT=sides, weights_BT=weights,
                        ref_logprobs_BS=np.asarray([[even - 6, even, 0, 0]] + 2 * [[0.0] * 4]))

  def at(moved):
    ref_BS = batch.ref_logprobs_BS - moved * np.asarray([[1, 0, 0, 0]])
    return value({**params, "logits": table}, batch.replace(ref_logprobs_BS=ref_BS), dpo)[0].total

  np.testing.assert_allclose(at(0.0), loss, atol=2e-6)
  if slope is not None:   # by the margin, of which a mean over two tokens has half
    np.testing.assert_allclose(jax.grad(at)(0.0) * tokens, slope, atol=2e-5)


@members
def test_what_is_no_response_changes_nothing(dpo):
  """Logits of prompts, of padding and behind an end may be anything, NaN too; so may what absent pairs hold."""
  params, batch = jax.tree.map(jnp.asarray, pairs.example())
  grad = jax.value_and_grad(lambda params, batch: value(params, batch, dpo)[0].total)
  before = grad(params, batch)
  off = np.asarray(batch.weights_BT == 0)
  noise = jnp.where(off[..., None], jnp.nan, params["logits"])
  absent = np.repeat(np.asarray(batch.live_BP == 0), 2, axis=1)
  other = batch.replace(ref_logprobs_BS=jnp.where(absent, 1e9, batch.ref_logprobs_BS))
  after = grad({**params, "logits": noise}, other)
  assert before[0] == after[0] and not np.isnan(after[0])
  np.testing.assert_array_equal(np.where(off[..., None], 0, after[1]["logits"]),
                                np.where(off[..., None], 0, before[1]["logits"]))
  assert not np.asarray(before[1]["logits"])[off].any()


@pytest.mark.parametrize("dpo", [DPOConfig(), DPOConfig(length_normalized=True)])
def test_at_the_start_the_loss_is_ln_2_and_nothing_is_preferred(dpo):
  params, batch = jax.tree.map(jnp.asarray, pairs.example())
  own = batch.by_side(jnp.where(batch.weights_BT > 0, pairs.score(params, None, batch.targets_BT).logprobs_BT, 0.0))
  loss, metrics = value(params, batch.replace(ref_logprobs_BS=own), dpo)
  assert float(loss.value()) == pytest.approx(np.log(2), abs=1e-6)
  numbers = floats(metrics)
  assert [numbers[f"rewards/{name}"] for name in ("chosen", "rejected", "margins", "accuracies")] == [0, 0, 0, 0]
  assert numbers["logps/chosen"] < 0 and 1 <= numbers["response_length/chosen"] <= 5


def test_on_a_bandit_labels_are_followed_reversed_ones_too_and_a_coin_teaches_nothing():
  params, batch = pairs.bandits()
  loss = lambda params, batch: dpo_loss(params, batch, dpo=DPOConfig(beta=1.0), score=pairs.bandit_score)[0]
  after = jax.jit(jax.vmap(lambda params, batch: pairs.learned(loss, params, batch)))(params, batch)
  pairs.refuse_unlearned(*(np.asarray(jax.nn.log_softmax(tables["logits"])) for tables in (params, after)))


@pytest.mark.parametrize("wrong, message", [
    ({"beta": 0.0}, "beta is 0.0; it must be positive"), ({"beta": float("nan")}, "beta is nan"),
    ({"loss": "simpo"}, "loss is 'simpo'; it must be one of sigmoid, ipo, hinge"),
    ({"label_smoothing": 0.5}, "label_smoothing is 0.5"), ({"sft_coef": -1.0}, "sft_coef is -1"),
    ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing is 0.1, which has no effect on loss 'ipo'"),
    ({"loss": "ipo", "length_normalized": True}, "length_normalized is True, which has no effect")])
def test_a_wrong_field_is_named_with_its_rule(wrong, message):
  with pytest.raises(ValueError, match=message):
    DPOConfig(**wrong)
