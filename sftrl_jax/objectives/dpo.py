"""Direct preference optimisation: the policy itself is the reward model, by its log-ratio to the start."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from sftrl_jax.metrics import Mean, masked_mean
from sftrl_jax.objectives.batches import PairBatch, Score, chosen, rejected
from sftrl_jax.objectives.groups import refuse_choices


@dataclasses.dataclass(frozen=True)
class DPOConfig:
  """How a policy learns from pairs.

  loss: of the margin h, see dpo_loss: "sigmoid" (Rafailov et al. 2023), "ipo" (Azar et al. 2023) or "hinge" (Zhao et
    al. 2023, whose delta is 1 / beta here)
  beta: from log-ratios to rewards; a larger one stays nearer to the start
  label_smoothing: of "sigmoid": the share of pairs whose label is taken to be wrong (Mitchell 2023)
  reference_free: log-probabilities in place of log-ratios: the start is not scored, and nothing holds the policy to it
  length_normalized: log-ratios are means over the tokens of a response; those of "ipo" always are
  sft_coef: weight of the negative log-likelihood of the preferred response, a mean over its tokens (Pang et al. 2024)
  """

  loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
  beta: float = 0.1
  label_smoothing: float = 0.0
  reference_free: bool = False
  length_normalized: bool = False
  sft_coef: float = 0.0

  def __post_init__(self):
    refuse_choices(self)
    if not self.beta > 0:  # so that nan is refused too
      raise ValueError(f"beta is {self.beta}; it must be positive, for example 0.1: with 0 nothing is learned.")
    if not 0 <= self.label_smoothing < 0.5:
      raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be from 0 to below 0.5, where a label says "
                       "nothing.")
    if not self.sft_coef >= 0:
      raise ValueError(f"sft_coef is {self.sft_coef}; it must not be negative.")
    for key, only in (("label_smoothing", ("sigmoid",)), ("length_normalized", ("sigmoid", "hinge"))):
      if getattr(self, key) and self.loss not in only:
        raise ValueError(f"{key} is {getattr(self, key)}, which has no effect on loss {self.loss!r}: leave it out, or "
                         f"use loss={' or '.join(map(repr, only))}.")


def dpo_loss(params: dict, batch: PairBatch, *, dpo: DPOConfig, score: Score) -> tuple[Mean, dict]:
  """Mean over pairs; w is the preferred response, l the other, and r(y) = log pi(y | x) - log pi_start(y | x).

    h = r(w) - r(l)      sigmoid  -(1 - s) log sigmoid(beta h) - s log sigmoid(-beta h),  s the label smoothing
                         hinge    max(0, 1 - beta h)          ipo  (h - 1 / (2 beta))^2, r being means over tokens
    L = loss(h) + c_sft (-log pi(w | x)) / |w|

  score: (params, inputs, targets_BT) -> Scores
  """
  scores = score(params, batch.inputs, batch.targets_BT)
  tokens_BS = batch.by_side(batch.weights_BT)
  logps_BS = batch.by_side(jnp.where(batch.weights_BT > 0, scores.logprobs_BT, 0.0))
  gap_BS = logps_BS if dpo.reference_free else logps_BS - batch.ref_logprobs_BS
  if dpo.length_normalized or dpo.loss == "ipo":
    gap_BS = gap_BS / jnp.maximum(tokens_BS, 1.0)
  margin_BP, live_BP = chosen(gap_BS) - rejected(gap_BS), batch.live_BP
  nll_BP = -chosen(logps_BS) / jnp.maximum(chosen(tokens_BS), 1.0)
  loss = masked_mean(_of_margin(margin_BP, dpo) + dpo.sft_coef * nll_BP, live_BP)
  mean = lambda x_BP: masked_mean(x_BP, live_BP)
  metrics = {
      "rewards/chosen": mean(dpo.beta * chosen(gap_BS)), "rewards/rejected": mean(dpo.beta * rejected(gap_BS)),
      "rewards/margins": mean(dpo.beta * margin_BP), "rewards/accuracies": mean(margin_BP > 0),
      "logps/chosen": mean(chosen(logps_BS)), "logps/rejected": mean(rejected(logps_BS)), "loss/sft": mean(nll_BP),
      "entropy": masked_mean(scores.entropy_BT, batch.weights_BT), **lengths(batch)}
  return loss, metrics


def _of_margin(h_BP: jax.Array, dpo: DPOConfig) -> jax.Array:
  if dpo.loss == "ipo":
    return jnp.square(h_BP - 1 / (2 * dpo.beta))
  if dpo.loss == "hinge":
    return jax.nn.relu(1 - dpo.beta * h_BP)
  agree, smooth = jax.nn.softplus(-dpo.beta * h_BP), dpo.label_smoothing   # softplus(-z) = -log sigmoid(z)
  return (1 - smooth) * agree + smooth * jax.nn.softplus(dpo.beta * h_BP) if smooth else agree


def lengths(batch: PairBatch) -> dict[str, Mean]:
  """Metrics of every pair batch: tokens of the responses, and the share of columns that hold a token."""
  tokens_BS, segments_BT = batch.by_side(batch.weights_BT), batch.inputs.segments_BT
  return {"response_length/chosen": masked_mean(chosen(tokens_BS), batch.live_BP),
          "response_length/rejected": masked_mean(rejected(tokens_BS), batch.live_BP),
          "compute/real_share": Mean(jnp.sum(segments_BT > 0, dtype=jnp.float32), float(segments_BT.size))}
