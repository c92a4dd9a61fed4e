"""REINFORCE++ on tables against plain numpy."""

import functools
import importlib.util
import pathlib

import numpy as np
import pytest

from sftrl_jax.metrics import floats
from sftrl_jax.objectives.batches import PolicyBatch
from sftrl_jax.objectives.reinforce_plus_plus import ReinforcePlusPlusConfig, reinforce_plus_plus_loss

module = importlib.util.spec_from_file_location("laws", pathlib.Path(__file__).parents[1] / "formula_laws.py")
laws = importlib.util.module_from_spec(module)
module.loader.exec_module(laws)

CONFIG = ReinforcePlusPlusConfig(dual_clip=1.5)


def ragged(seed=0):
  """(logits, batch) in 64 bits, of a policy that has moved since it played."""
  logits, targets, mask = laws.table(seed)
  source = np.random.default_rng(seed + 100)
  old = laws.logprobs(logits + 0.5 * source.normal(size=logits.shape), targets) * mask
  return logits, PolicyBatch(laws.blank_inputs(), targets, mask, np.zeros_like(targets), old, None,
                             source.normal(size=mask.shape) * mask, None)


def loss(config=CONFIG):
  return functools.partial(reinforce_plus_plus_loss, score=laws.score, config=config)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_is_its_formula_on_ragged_rows(seed):
  logits, batch = ragged(seed)
  ratio, advantages = np.exp(laws.logprobs(logits, batch.targets_BT) - batch.old_logprobs_BT), batch.advantages_BT
  each = -np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages)
  each = np.where(advantages < 0, np.minimum(each, -1.5 * advantages), each)
  laws.check(loss(), logits, batch, (batch.mask_BT * each).sum(), batch.mask_BT.sum())


def test_what_the_policy_did_not_write_changes_nothing():
  logits, batch = ragged()
  off = batch.mask_BT == 0
  poisoned = batch.replace(old_logprobs_BT=np.where(off, np.nan, batch.old_logprobs_BT),
                           advantages_BT=np.where(off, np.nan, batch.advantages_BT))
  laws.check_mask(loss(ReinforcePlusPlusConfig(entropy_coef=0.1)), logits, batch, poisoned, batch.mask_BT)


def test_without_old_log_probabilities_the_ratio_is_1_and_the_gradient_that_of_reinforce():
  logits, batch = ragged()
  now = laws.logprobs(logits, batch.targets_BT)
  alone = batch.replace(old_logprobs_BT=None)
  gradient = laws.check(loss(), logits, alone, -batch.advantages_BT.sum(), batch.mask_BT.sum(), gradient=False)
  softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(gradient, batch.advantages_BT[..., None] * (softmax - np.eye(laws.V)[batch.targets_BT]),
                             rtol=1e-6, atol=1e-12)
  metrics = loss()({"logits": logits}, batch.replace(old_logprobs_BT=now))[1]
  assert floats(metrics)["val/ratio"] == pytest.approx(1, abs=1e-6)
