"""On-policy distillation on tables against plain numpy: the reverse KL, and where it has a gradient."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.objectives.batches import TokenBatch
from sftrl_jax.objectives.imitation.distill import distill_loss
from sftrl_jax.objectives.logprobs import reverse_kl

module = importlib.util.spec_from_file_location("laws", pathlib.Path(__file__).parents[2] / "formula_laws.py")
laws = importlib.util.module_from_spec(module)
module.loader.exec_module(laws)

TEACHER = np.random.default_rng(7).normal(size=(laws.B, laws.T, laws.V))


def score(params, _, targets_BT, prefix):
  assert prefix is None
  log_q = jax.nn.log_softmax(jnp.asarray(TEACHER, params["logits"].dtype))
  return laws.score(params, _, targets_BT)._replace(kl_BT=reverse_kl(jax.nn.log_softmax(params["logits"]), log_q))


def ragged():
  logits, targets, mask = laws.table()
  return logits, TokenBatch(laws.blank_inputs(), targets, mask)


def test_the_loss_is_the_reverse_kl_of_every_token_that_was_sampled():
  logits, batch = ragged()
  log_of = lambda z: z - np.log(np.exp(z).sum(-1, keepdims=True))
  log_p, log_q = log_of(logits), log_of(TEACHER)
  kl = (np.exp(log_p) * (log_p - log_q)).sum(-1)
  gradient = laws.check(functools.partial(distill_loss, score=score), logits, batch, (batch.weights_BT * kl).sum(),
                        batch.weights_BT.sum())
  # That of REINFORCE with log q - log pi as the reward of each token, in expectation over the token.
  p = np.exp(log_p)
  each = -(log_q - log_p)[..., None] * (np.eye(laws.V) - p[..., None, :])   # by the token that is sampled
  np.testing.assert_allclose(gradient, batch.weights_BT[..., None] * np.einsum("btv,btvw->btw", p, each), atol=1e-9)


def test_what_was_not_sampled_changes_nothing_and_a_policy_that_is_its_teacher_stays():
  logits, batch = ragged()
  laws.check_mask(functools.partial(distill_loss, score=score), logits, batch, batch, batch.weights_BT)
  at_teacher = jax.grad(lambda z: distill_loss({"logits": z}, batch, score=score)[0].total)(jnp.asarray(TEACHER))
  np.testing.assert_allclose(at_teacher, 0, atol=1e-6)
