"""Supervised fine-tuning: cross-entropy on the target tokens."""

import jax.numpy as jnp

from sftrl_jax.metrics import Mean, masked_mean, row_sum
from sftrl_jax.objectives.batches import Score, TokenBatch


def sft_loss(params: dict, batch: TokenBatch, *, score: Score) -> tuple[Mean, dict]:
  """L = - sum_t w_t log p(y_t | y_<t) / sum_t w_t over the global batch; the train step divides.

  score: (params, inputs, targets_BT) -> Scores.
  """
  scores = score(params, batch.inputs, batch.targets_BT)
  loss = Mean(-row_sum(jnp.where(batch.weights_BT > 0, scores.logprobs_BT, 0.0) * batch.weights_BT),
              jnp.sum(batch.weights_BT))
  segments_BT = batch.inputs.segments_BT
  return loss, {"entropy": masked_mean(scores.entropy_BT, batch.weights_BT),
                "mean_token_accuracy": masked_mean(scores.correct_BT, batch.weights_BT),
                "compute/real_share": Mean(jnp.sum(segments_BT > 0, dtype=jnp.float32), float(segments_BT.size))}
