"""What an objective is told of a model is what the model says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.models import build, heads
from sftrl_jax.training.score import CRITIC, make_score, make_teacher_score


def logits_of(model, params, inputs):
  return model.unembed(params, model.hidden(params, inputs))


@pytest.mark.parametrize("temperature, chunk", [(0.7, 0), (0.7, 4)])
def test_scores_are_the_log_softmax_of_the_logits(model, params, ragged, temperature, chunk):
  inputs, targets_BT, mask_BT = ragged
  scores = jax.jit(make_score(model, temperature, chunk))(params, inputs, targets_BT)
  logits, hidden = jax.jit(lambda p, x: (logits_of(model, p, x), model.hidden(p, x)))(params["model"], inputs)
  log = np.asarray(jax.nn.log_softmax(logits / temperature), np.float64)
  on = mask_BT > 0
  chosen = np.take_along_axis(log, targets_BT[..., None], -1)[..., 0]
  np.testing.assert_allclose(scores.logprobs_BT[on], chosen[on], atol=1e-5)
  np.testing.assert_allclose(scores.entropy_BT[on], -(np.exp(log) * log).sum(-1)[on], atol=1e-5)
  np.testing.assert_array_equal(scores.correct_BT[on], (log.argmax(-1) == targets_BT)[on])
  np.testing.assert_allclose(scores.values_BT[on], heads.scalar(params["value"], hidden)[on], atol=1e-5)


def test_without_a_value_head_there_are_no_values(model, params, ragged):
  score = lambda params: make_score(model)(params, *ragged[:2])
  assert jax.eval_shape(score, {"model": params["model"]}).values_BT is None
  assert jax.eval_shape(score, params).values_BT is not None


@pytest.mark.parametrize("value_gradient", [False, True])
def test_values_move_the_trunk_only_when_asked_to(model, params, ragged, value_gradient):
  score = make_score(model, value_gradient=value_gradient)
  grads = jax.jit(jax.grad(lambda p: jnp.sum(score(p, *ragged[:2]).values_BT)))(params)
  assert any(np.any(g) for g in jax.tree.leaves(grads["model"])) == value_gradient
  assert np.any(grads["value"]["kernel"])


def test_a_critic_of_its_own_gives_the_values_and_has_their_gradient_alone(model, params, ragged):
  other, score = jax.tree.map(lambda x: 1.5 * x, params["model"]), make_score(model)
  own = {**params, CRITIC: {"model": other}}
  loss = lambda params: (jnp.sum(score(params, *ragged[:2]).values_BT), score(params, *ragged[:2]))
  (_, scores), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(own)
  plain = jax.jit(score)
  on = ragged[2] > 0
  np.testing.assert_allclose(scores.logprobs_BT[on], plain(params, *ragged[:2]).logprobs_BT[on], atol=1e-6)
  np.testing.assert_allclose(scores.values_BT[on], plain({**params, "model": other}, *ragged[:2]).values_BT[on],
                             atol=1e-5)
  assert not any(np.any(g) for g in jax.tree.leaves(grads["model"]))
  assert np.any(grads[CRITIC]["model"]["embed"]) and np.any(grads["value"]["kernel"])


def test_rows_that_only_fill_the_tables_up_have_no_probability(model, params, ragged):
  inputs, targets_BT, mask_BT = ragged
  ids, on = 8, (mask_BT > 0) & (targets_BT < 8)
  bounded = build(model.config, ids)
  assert on.any() and build(model.config, model.config.vocab) == build(model.config) == model != bounded
  logits, shown = jax.jit(lambda p, x: (logits_of(model, p, x), logits_of(bounded, p, x)))(params["model"], inputs)
  np.testing.assert_array_equal(shown[..., :ids], logits[..., :ids])
  assert not np.exp(shown[..., ids:]).any()
  log = np.asarray(jax.nn.log_softmax(logits[..., :ids] / 0.7), np.float64)
  scores = jax.jit(make_score(bounded, 0.7, 4))(params, inputs, targets_BT)
  chosen = np.take_along_axis(log, np.minimum(targets_BT, ids - 1)[..., None], -1)[..., 0]
  np.testing.assert_allclose(scores.logprobs_BT[on], chosen[on], atol=1e-5)
  np.testing.assert_allclose(scores.entropy_BT[on], -(np.exp(log) * log).sum(-1)[on], atol=1e-5)


@pytest.mark.parametrize("chunk", [0, 4])
def test_a_policy_is_0_from_a_teacher_that_is_itself_and_scored_as_without_one(model, params, ragged, chunk):
  inputs, targets_BT, mask_BT = ragged
  both = {"model": params["model"], "teacher": params["model"]}
  scores = jax.jit(make_teacher_score(model, model, 0.7, chunk))(both, inputs, targets_BT)
  plain, on = jax.jit(make_score(model, 0.7, chunk))({"model": params["model"]}, inputs, targets_BT), mask_BT > 0
  np.testing.assert_allclose(scores.kl_BT[on], 0, atol=1e-6)
  np.testing.assert_allclose(scores.logprobs_BT[on], plain.logprobs_BT[on], atol=1e-5)
  np.testing.assert_allclose(scores.entropy_BT[on], plain.entropy_BT[on], atol=1e-5)
