"""Imitation is supervised fine-tuning on other rows."""

import functools
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from sftrl_jax.objectives.batches import PolicyBatch, TokenBatch
from sftrl_jax.objectives.imitation.responses import DAggerConfig, SelfSFTConfig, imitation_loss
from sftrl_jax.objectives.reinforce_plus_plus import ReinforcePlusPlusConfig, reinforce_plus_plus_loss
from sftrl_jax.objectives.sft import sft_loss

module = importlib.util.spec_from_file_location("laws", pathlib.Path(__file__).parents[2] / "formula_laws.py")
laws = importlib.util.module_from_spec(module)
module.loader.exec_module(laws)


def test_positives_alone_are_reinforce_with_a_reward_of_1_or_0():
  """On its own responses, but for the division: by the tokens of those that are right, not by all."""
  logits, targets, mask = laws.table()
  right = np.arange(laws.B)[:, None] % 2 * mask
  batch = TokenBatch(laws.blank_inputs(), targets, right)
  paid = PolicyBatch(laws.blank_inputs(), targets, mask, targets, None, None, right, None)
  own = laws.check(functools.partial(imitation_loss, score=laws.score), logits, batch,
                   -(right * laws.logprobs(logits, targets)).sum(), right.sum())
  loss = functools.partial(reinforce_plus_plus_loss, score=laws.score, config=ReinforcePlusPlusConfig())
  np.testing.assert_allclose(own, laws.check(loss, logits, paid, -right.sum(), mask.sum(), gradient=False), atol=1e-12)


def test_the_loss_is_that_of_sft_under_the_names_of_rl():
  logits, targets, mask = laws.table()
  batch = TokenBatch(laws.blank_inputs(), targets, mask.astype(np.float32))
  values = [loss({"logits": logits.astype(np.float32)}, batch, score=laws.score) for loss in (imitation_loss, sft_loss)]
  jax.tree.map(np.testing.assert_array_equal, values[0][0], values[1][0])
  assert values[0][1]["policy/entropy_avg"].total == values[1][1]["entropy"].total


@pytest.mark.parametrize("section", [SelfSFTConfig, DAggerConfig])
def test_a_section_has_neither_a_kl_nor_a_limit_of_it(section):
  with pytest.raises(TypeError):
    section(kl_coef=0.1)
  assert not section().kl_coef and not section().target_kl
  with pytest.raises(ValueError, match="^minibatches is 0"):
    section(minibatches=0)
