"""Proximal policy optimisation on tables: the parameters are the logits and the values themselves."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import inputs
from sftrl_jax.metrics import floats
from sftrl_jax.objectives.batches import PolicyBatch, Scores
from sftrl_jax.objectives.ppo import PPOConfig, explained_variance, ppo_loss

B, T, V, TURNS = 3, 6, 5, 3
# Turns of different lengths with the environment's words between them; row 2 has one turn, row 1 stops early.
LAYOUT = np.asarray([[0, 0, -1, 1, 1, 1], [-1, 0, -1, 1, -1, -1], [0, 0, 0, 0, -1, -1]], np.int32)
SINGLE = np.asarray([[0, -1, 1, -1, -1, 2], [-1, 0, -1, 1, -1, -1], [-1, -1, -1, 0, -1, -1]], np.int32)


def score(params, _, targets_BT):
  logs = jax.nn.log_softmax(params["logits"])
  chosen = jnp.take_along_axis(logs, targets_BT[..., None], axis=-1)[..., 0]
  return Scores(chosen, -jnp.sum(jnp.exp(logs) * logs, -1), params["values"], jnp.argmax(logs, -1) == targets_BT)


now = jax.jit(lambda params, targets_BT: score(params, None, targets_BT).logprobs_BT)


def example(turns=LAYOUT, moved=0.0, seed=0):
  """(params, batch): the policy that sampled the batch, moved away from it at random by `moved`."""
  random = np.random.default_rng(seed)
  normal = lambda *shape: random.normal(size=shape).astype(np.float32)
  logits, values, mask = normal(B, T, V), normal(B, T), (turns >= 0).astype(np.float32)
  targets = random.integers(0, V, (B, T)).astype(np.int32)
  old = np.asarray(now({"logits": logits, "values": values}, targets))
  # On every token of a turn stands what its grid says, as the collector spreads it.
  by_turn = lambda grid: np.take_along_axis(grid, np.maximum(turns, 0), axis=1) * mask
  batch = PolicyBatch(inputs.right_pad([[0] * T] * B, T), targets, mask, turns, old * mask, values,
                      by_turn(normal(B, TURNS)), by_turn(normal(B, TURNS)))
  params = {"logits": logits + moved * normal(B, T, V), "values": values + moved * normal(B, T)}
  return jax.tree.map(lambda x: jnp.asarray(x, np.int32 if x.dtype == np.int32 else np.float32), (params, batch))


@functools.partial(jax.jit, static_argnums=2)
def evaluate(params, batch, ppo):
  """(total, weight, metrics, gradient)"""

  def total(params):
    loss, metrics = ppo_loss(params, batch, ppo=ppo, score=score, turns=TURNS)
    return loss.total, (loss, metrics)

  gradient, (loss, metrics) = jax.grad(total, has_aux=True)(params)
  return loss.total, loss.weight, metrics, gradient


levels = pytest.mark.parametrize("level", ["token", "turn"])
POLICY_ONLY = PPOConfig(value_coef=0.0)


@levels
def test_the_policy_that_sampled_is_at_ratio_one(level):
  params, batch = example()
  total, weight, metrics, _ = evaluate(params, batch, PPOConfig(level=level, value_coef=0.0))
  told = floats(metrics)
  assert told["val/ratio"] == pytest.approx(1, abs=1e-6) and told["val/ratio_max"] == pytest.approx(1, abs=1e-6)
  assert told["policy/approxkl_avg"] == pytest.approx(0, abs=1e-10) and told["policy/clipfrac_avg"] == 0
  steps = (LAYOUT >= 0) if level == "token" else np.diff(LAYOUT, axis=1, prepend=-1) * (LAYOUT >= 0) > 0
  assert weight == steps.sum()
  np.testing.assert_allclose(total, -np.asarray(batch.advantages_BT)[steps].sum(), rtol=1e-5)


@levels
def test_at_ratio_one_the_gradient_is_the_policy_gradient(level):
  """d/dtheta sum over actions of -A log pi(action); the action of a turn is all of its tokens."""
  params, batch = example()
  *_, gradient = evaluate(params, batch, dataclasses.replace(POLICY_ONLY, level=level))
  reinforce = jax.jit(jax.grad(lambda logits: -jnp.sum(
      batch.advantages_BT * score({**params, "logits": logits}, None, batch.targets_BT).logprobs_BT)))
  np.testing.assert_allclose(gradient["logits"], reinforce(params["logits"]), atol=1e-6)
  assert (gradient["values"] == 0).all()


def test_the_loss_by_hand():
  """One action of probability 1/2 that had 1/4 (ratio 2), A = 3: clipped at 1.2; V = 1, R = 3: 1/2 (1 - 3)^2."""
  batch = PolicyBatch(inputs.right_pad([[0]], 1), *(jnp.asarray([[x]]) for x in (
      0, 1.0, 0, np.float32(np.log(1 / 4)), 0.0, 3.0, 3.0)))
  params = {"logits": jnp.zeros((1, 1, 2)), "values": jnp.ones((1, 1))}
  total, weight, metrics, _ = evaluate(params, batch, PPOConfig(clip=0.2, value_coef=0.1, entropy_coef=0.0))
  assert weight == 1
  np.testing.assert_allclose(total, -1.2 * 3 + 0.1 * 2, rtol=1e-5)
  assert floats(metrics) == pytest.approx({
      "loss/policy_avg": -3.6, "loss/value_avg": 2.0, "policy/approxkl_avg": 0.5 * np.log(2) ** 2,
      "policy/clipfrac_avg": 1.0, "policy/entropy_avg": np.log(2), "val/ratio": 2.0, "val/ratio_max": 2.0}, rel=1e-5)
  total, *_ = evaluate(params, batch, PPOConfig(clip=0.2, value_coef=0.1, entropy_coef=0.5))
  np.testing.assert_allclose(total, -3.6 + 0.2 - 0.5 * np.log(2), rtol=1e-5)


@pytest.mark.parametrize("gap,advantage,moves", [
    (0.5, 1.0, False), (-0.5, -1.0, False),  # already moved where the advantage points: nothing more to gain
    (0.5, -1.0, True), (-0.5, 1.0, True), (0.1, 1.0, True), (-0.1, -1.0, True)])
@levels
def test_only_a_ratio_that_has_gone_far_enough_stops_pulling(level, gap, advantage, moves):
  params, batch = example(SINGLE)
  batch = batch.replace(old_logprobs_BT=(now(params, batch.targets_BT) - gap) * batch.mask_BT,
                        advantages_BT=advantage * batch.mask_BT)
  *_, metrics, gradient = evaluate(params, batch, PPOConfig(level=level, clip=0.2, value_coef=0.0))
  pulled = np.asarray(jnp.any(gradient["logits"] != 0, axis=-1))
  np.testing.assert_array_equal(pulled, (SINGLE >= 0) & moves)
  assert floats(metrics)["policy/clipfrac_avg"] == (abs(np.exp(gap) - 1) > 0.2)


@levels
def test_bounds_of_the_ratio_change_no_action_with_a_positive_advantage_or_a_small_ratio(level):
  params, batch = example(moved=1.0)
  bounds = {"dual_clip": {"dual_clip": 2.0}, "ratio_cap": {"ratio_cap": 2.0}}
  run = lambda batch, **change: evaluate(params, batch, PPOConfig(level=level, value_coef=0.0, **change))
  up = batch.replace(advantages_BT=jnp.abs(batch.advantages_BT))
  for change in bounds.values():
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6)
    jax.tree.map(same, (run(up)[0], run(up)[3]), (run(up, **change)[0], run(up, **change)[3]))
  plain, *bounded = (run(batch, **change) for change in ({}, *bounds.values()))
  assert floats(plain[2])["val/ratio_max"] > 2 and all(x[0] < plain[0] for x in bounded)
  jax.tree.map(np.testing.assert_array_equal, *(x[3] for x in bounded))   # they pull alike


@pytest.mark.parametrize("change", [{}, {"value_clip": 0.1, "entropy_coef": 0.3, "value_coef": 1.0}], ids=str)
def test_turns_of_one_token_are_tokens(change):
  params, batch = example(SINGLE, moved=0.3)
  token, turn = (evaluate(params, batch, PPOConfig(level=level, **change)) for level in ("token", "turn"))
  for mine, theirs in zip(jax.tree.leaves(turn), jax.tree.leaves(token), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_ratio_of_a_turn_is_the_product_of_its_tokens():
  params, batch = example(moved=0.1)
  gap = np.asarray(now(params, batch.targets_BT)) - np.asarray(batch.old_logprobs_BT)
  ratios = np.asarray([np.exp(gap[row][LAYOUT[row] == turn].sum())
                       for row, turn in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]])
  _, weight, metrics, _ = evaluate(params, batch, PPOConfig(level="turn"))
  told = floats(metrics)
  assert weight == 5
  assert told["val/ratio"] == pytest.approx(ratios.mean(), rel=1e-5)
  assert told["val/ratio_max"] == pytest.approx(ratios.max(), rel=1e-5)


def test_the_value_of_a_turn_is_that_before_its_first_token():
  params, batch = example()
  *_, gradient = evaluate(params, batch, PPOConfig(level="turn", value_coef=1.0))
  first = (LAYOUT >= 0) & (np.diff(LAYOUT, axis=1, prepend=-1) > 0)
  want = np.where(first, params["values"] - batch.returns_BT, 0)
  np.testing.assert_allclose(gradient["values"], want, rtol=1e-5, atol=1e-6)


def test_the_value_loss_is_clipped_around_the_old_value():
  """V_old = 0, R = 1, e = 0.2: V = 0.5 counts as 0.2 since that is worse, V = -0.5 as itself."""
  params, batch = example(SINGLE)
  batch = batch.replace(old_values_BT=jnp.zeros((B, T)), returns_BT=jnp.ones((B, T)))
  ppo = PPOConfig(value_clip=0.2, value_coef=1.0)
  for value, loss, moves in ((0.5, 0.5 * 0.8 ** 2, False), (-0.5, 0.5 * 1.5 ** 2, True), (0.1, 0.5 * 0.9 ** 2, True)):
    *_, metrics, gradient = evaluate({**params, "values": jnp.full((B, T), value)}, batch, ppo)
    np.testing.assert_allclose(metrics["loss/value_avg"].value(), loss, rtol=1e-5)
    assert (gradient["values"] != 0).any() == moves


@levels
def test_in_expectation_the_bonus_has_the_gradient_of_the_entropy(level):
  """One state, every action once, each weighted by its probability: the exact expectation over actions."""
  logits = jnp.asarray(np.random.default_rng(0).normal(size=V), jnp.float32)
  every = jnp.broadcast_to(logits, (V, 1, V))
  params, zero = {"logits": every, "values": jnp.zeros((V, 1))}, jnp.zeros((V, 1))
  batch = PolicyBatch(inputs.right_pad([[0]] * V, 1), jnp.arange(V)[:, None], zero + 1, jnp.zeros((V, 1), jnp.int32),
                      jax.nn.log_softmax(logits)[:, None], zero, zero, zero)
  *_, gradient = evaluate(params, batch, PPOConfig(level=level, entropy_coef=0.7))
  expected = jnp.einsum("a,av->v", jax.nn.softmax(logits), gradient["logits"][:, 0])
  entropy = lambda z: -jnp.sum(jax.nn.softmax(z) * jax.nn.log_softmax(z))
  np.testing.assert_allclose(expected, -0.7 * jax.grad(entropy)(logits), atol=1e-6)


@levels
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_the_policy_did_not_write_may_be_anything(level, poison):
  params, batch = example(moved=0.2)
  off = batch.mask_BT == 0
  hide = lambda x: jnp.where(off.reshape(off.shape + (1,) * (x.ndim - 2)), poison, x)
  dirty = batch.replace(**{name: hide(getattr(batch, name)) for name in (
      "old_logprobs_BT", "old_values_BT", "advantages_BT", "returns_BT")})
  ppo = PPOConfig(level=level, value_clip=0.2, entropy_coef=0.1)
  clean, other = evaluate(params, batch, ppo), evaluate(jax.tree.map(hide, params), dirty, ppo)
  for mine, theirs in zip(jax.tree.leaves(other[:3]), jax.tree.leaves(clean[:3]), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)
  gradient = evaluate(params, dirty, ppo)[3]
  for mine, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(clean[3]), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)


@levels
def test_rows_without_an_action_add_nothing(level):
  params, batch = example(moved=0.2)
  nothing = batch.replace(mask_BT=jnp.zeros((B, T)), turns_BT=jnp.full((B, T), -1, jnp.int32))
  total, weight, _, gradient = evaluate(params, nothing, PPOConfig(level=level, entropy_coef=0.1))
  assert total == 0 and weight == 0
  assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_a_ratio_never_overflows():
  params, batch = example()
  batch = batch.replace(old_logprobs_BT=batch.old_logprobs_BT - 1e4 * batch.mask_BT,
                        advantages_BT=-jnp.abs(batch.advantages_BT))
  total, _, _, gradient = evaluate(params, batch, POLICY_ONLY)
  assert all(np.isfinite(x).all() for x in (total, *gradient.values()))


def test_explained_variance():
  random = np.random.default_rng(0)
  returns, mask = random.normal(2, 3, (4, 5)).astype(np.float32), np.float32(random.random((4, 5)) < 0.7)
  assert explained_variance(returns, returns, mask) == pytest.approx(1)
  assert explained_variance(returns + 5, returns, mask) == pytest.approx(1, abs=1e-5)  # an offset is not variance
  assert explained_variance(np.zeros((4, 5), np.float32), returns, mask) == pytest.approx(0, abs=1e-6)
  assert explained_variance(-returns, returns, mask) == pytest.approx(-3, rel=1e-5)
  assert explained_variance(returns, np.ones((4, 5), np.float32), mask) == 0
  assert explained_variance(returns, returns, np.zeros((4, 5), np.float32)) == 0
  hidden = np.where(mask > 0, returns, np.nan)
  assert explained_variance(hidden, hidden, mask) == pytest.approx(1)


@pytest.mark.parametrize("change,told", [
    ({"level": "word"}, "token, turn"), ({"truncation": "stop"}, "end, bootstrap"), ({"gamma": 1.1}, r"gamma is 1.1"),
    ({"turn_gamma": -0.1}, "turn_gamma is -0.1"), ({"gae_lambda": 2}, "gae_lambda is 2"),
    ({"epochs": 0}, "epochs is 0"), ({"minibatches": 0}, "minibatches is 0"),
    ({"clip": 0}, "clip is 0"), ({"clip": 1.0}, "clip is 1.0"),
    ({"value_clip": -1}, "value_clip is -1"), ({"value_coef": -1}, "value_coef is -1"),
    ({"dual_clip": 0.9}, "dual_clip is 0.9"), ({"ratio_cap": 1.0}, "ratio_cap is 1.0"),
    ({"target_kl": -1}, "target_kl is -1"), ({"critic_warmup": -1}, "critic_warmup is -1"),
    ({"value_layers": (8, 0)}, r"value_layers is \(8, 0\)"),
    ({"entropy_coef": -0.1}, "entropy_coef is -0.1"), ({"kl_coef": -1}, "kl_coef is -1"),
    *(({name: float("nan")}, f"{name} is nan") for name in ("gamma", "clip", "value_coef", "kl_coef")),
])
def test_what_makes_no_sense_is_refused(change, told):
  with pytest.raises(ValueError, match=told):
    PPOConfig(**change)


def test_weights_of_tokens_weigh_their_log_probabilities_in_those_of_the_turn():
  """Weights of 1 are as none; elsewhere the gradient at ratio one is that of -A sum_t w_t log pi_t."""
  params, batch = example()
  turn = dataclasses.replace(POLICY_ONLY, level="turn")
  weights = jnp.asarray(np.random.default_rng(1).choice([0.5, 1.0], (B, T)), np.float32)
  for plain, weighed in zip(evaluate(params, batch, turn), evaluate(params, batch.replace(
      weights_BT=jnp.ones((B, T))), turn), strict=True):
    jax.tree.map(np.testing.assert_array_equal, plain, weighed)
  *_, gradient = evaluate(params, batch.replace(weights_BT=weights), turn)
  reinforce = jax.grad(lambda logits: -jnp.sum(batch.advantages_BT * weights * score(
      {**params, "logits": logits}, None, batch.targets_BT).logprobs_BT))
  np.testing.assert_allclose(gradient["logits"], reinforce(params["logits"]), atol=1e-6)
  moved, _ = example(moved=0.3)
  gaps = np.asarray(weights * (now(moved, batch.targets_BT) - batch.old_logprobs_BT))
  *_, metrics, _ = evaluate(moved, batch.replace(weights_BT=weights), turn)
  by_turn = [gaps[row][LAYOUT[row] == u].sum() for row in range(B) for u in range(TURNS) if (LAYOUT[row] == u).any()]
  assert floats(metrics)["val/ratio"] == pytest.approx(np.exp(by_turn).mean(), rel=1e-5)


def test_thought_has_a_weight_of_its_own_only_where_a_turn_is_one_action():
  assert PPOConfig(level="turn", thought_weight=0.5).thought_weight == 0.5
  with pytest.raises(ValueError, match="thought_weight is 0.5, but level is 'token'.*use level='turn'"):
    PPOConfig(thought_weight=0.5)
  with pytest.raises(ValueError, match="thought_weight is -1"):
    PPOConfig(level="turn", thought_weight=-1)


@levels
def test_a_kl_in_the_loss_has_the_gradient_of_the_kl(level):
  """beta times the mean over actions of k2, whose gradient is that of sum_a d(a) grad log pi(a)."""
  params, batch = example(moved=0.1)
  random = np.random.default_rng(7)
  ref_BT = jnp.asarray(random.normal(-1.6, 0.4, (B, T)), jnp.float32) * batch.mask_BT
  coef_B = jnp.asarray([0.3, 0.3, 0.3], jnp.float32)
  with_kl = batch.replace(ref_logprobs_BT=ref_BT, kl_coef_B=coef_B)
  config = dataclasses.replace(POLICY_ONLY, level=level, kl_coef=0.3, kl="loss")
  total, _, metrics, gradient = evaluate(params, with_kl, config)
  plain, weight, _, before = evaluate(params, batch, config)
  logs_BT = np.asarray(now(params, batch.targets_BT), np.float64)
  far_BT, k2 = np.where(LAYOUT >= 0, logs_BT - np.asarray(ref_BT), 0.0), 0.0
  if level == "turn":
    sums = np.stack([np.where(LAYOUT == turn, far_BT, 0.0).sum(1) for turn in range(TURNS)], 1)
    k2, far_BT = 0.5 * np.square(sums).sum(), np.take_along_axis(sums, np.maximum(LAYOUT, 0), 1) * (LAYOUT >= 0)
  else:
    k2 = 0.5 * np.square(far_BT).sum()
  np.testing.assert_allclose(total - plain, 0.3 * k2, rtol=1e-4)
  np.testing.assert_allclose(metrics["loss/kl_avg"].total, k2, rtol=1e-5)
  assert metrics["loss/kl_avg"].weight == weight
  chosen = jax.nn.one_hot(batch.targets_BT, V) - jax.nn.softmax(params["logits"])   # grad of log pi
  np.testing.assert_allclose(gradient["logits"] - before["logits"], 0.3 * far_BT[..., None] * chosen, atol=1e-5)


@pytest.mark.parametrize("fields, message", [
    ({"kl": "both"}, "kl is 'both'"), ({"kl_target": -1.0, "kl_coef": 0.1}, "kl_target is -1.0"),
    ({"critic": "own", "value_gradient": True}, "value_gradient is True, but critic is 'own'"),
    ({"kl_target": 6.0}, "kl_target is 6.0, but kl_coef is 0"),
    ({"kl_horizon": 0}, "kl_horizon is 0")])
def test_a_kl_out_of_range_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    PPOConfig(**fields)
