"""What an objective is told of a model is what the model says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.inputs import prefixes
from sftrl_jax.models import build, heads
from sftrl_jax.objectives.imitation.distill import distill_loss
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


@pytest.fixture(scope="module")
def both(model, params):
  return {"model": params["model"], "teacher": jax.jit(model.init)(jax.random.key(5))}


@pytest.mark.parametrize("chunk", [0, 4])
def test_a_teacher_says_after_a_prefix_what_it_says_of_the_row_behind_it(model, both, prefixed, chunk):
  """The loss is that of plain numpy, from logits of every row by itself."""
  logits = jax.jit(model.logits)
  log_of = lambda params, ids: np.asarray(jax.nn.log_softmax(logits(params, np.asarray([ids]))[0] / 0.7), np.float64)
  prefix, rows = prefixed.prefix, prefixed.inputs
  kl_BT = np.zeros(rows.tokens_BT.shape)
  for row, tokens in enumerate(rows.tokens_BT):
    ids, skipped = tokens[rows.segments_BT[row] > 0].tolist(), int(prefix.skipped_B[row])
    if not ids[skipped:]:
      continue
    shown = prefix.tokens_BP[row, prefix.tokens_BP.shape[1] - prefix.lengths_B[row]:].tolist()
    log_p, log_q = log_of(both["model"], ids), log_of(both["teacher"], shown + ids[skipped:])[len(shown):]
    kl_BT[row, skipped : len(ids)] = (np.exp(log_p) * log_p).sum(-1)[skipped:]
    kl_BT[row, skipped : len(ids)] -= (np.exp(log_p[skipped:]) * log_q).sum(-1)
  total = (kl_BT * prefixed.weights_BT).sum()
  score = make_teacher_score(model, model, 0.7, chunk)
  scores = jax.jit(score)(both, rows, prefixed.targets_BT, prefix)
  on = prefixed.weights_BT > 0
  np.testing.assert_allclose(np.asarray(scores.kl_BT)[on], kl_BT[on], atol=2e-6)
  loss, _ = jax.jit(functools.partial(distill_loss, score=score))(both, prefixed)
  assert loss.total == pytest.approx(total, abs=1e-5) and loss.weight == on.sum()
  alone = jax.jit(score)(both, rows, prefixed.targets_BT)
  assert np.abs(alone.kl_BT - scores.kl_BT)[on].max() > 0.01   # it is read
  for name in ("logprobs_BT", "entropy_BT"):   # by the teacher alone
    np.testing.assert_allclose(getattr(scores, name)[on], getattr(alone, name)[on], atol=1e-6)


def test_the_padding_of_a_prefix_changes_nothing(model, both, prefixed):
  score, prefix, on = jax.jit(make_teacher_score(model, model)), prefixed.prefix, prefixed.weights_BT > 0
  texts = prefixed.inputs, prefixed.targets_BT
  wider = prefix.replace(tokens_BP=np.pad(prefix.tokens_BP, ((0, 0), (3, 0)), constant_values=7))
  want = score(both, *texts, prefix).kl_BT
  np.testing.assert_allclose(score(both, *texts, wider).kl_BT[on], want[on], atol=1e-6)
  blank = prefixes([([], 0)] * len(on), 4)
  np.testing.assert_allclose(score(both, *texts, blank).kl_BT[on], score(both, *texts).kl_BT[on], atol=1e-6)
