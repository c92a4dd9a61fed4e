"""A reward model from pairs: the preferred response has the higher score."""

import dataclasses

import jax
import jax.numpy as jnp

from sftrl_jax.metrics import Mean, masked_mean
from sftrl_jax.objectives.batches import PairBatch, Score, chosen, rejected
from sftrl_jax.objectives.dpo import lengths


@dataclasses.dataclass(frozen=True)
class RewardConfig:
  """How a reward model learns from pairs.

  centre: weight of the mean square of a pair's summed scores, which only their difference would leave free (Eisenstein
    et al. 2023); 0: none
  margin: whether the pairs' own margins, where they have some, are to be exceeded (Touvron et al. 2023)
  layers: widths of the score head's hidden layers (relu); () is a linear head
  """

  centre: float = 0.01
  margin: bool = True
  layers: tuple[int, ...] = ()

  def __post_init__(self):
    if not self.centre >= 0:  # so that nan is refused too
      raise ValueError(f"centre is {self.centre}; it must not be negative.")
    if not all(isinstance(width, int) and width > 0 for width in self.layers):
      raise ValueError(f"layers is {self.layers}; it must hold positive widths, such as (1024, 512), or nothing.")


def reward_loss(params: dict, batch: PairBatch, *, reward: RewardConfig, score: Score) -> tuple[Mean, dict]:
  """Mean over pairs of -log sigmoid(r(w) - r(l) - m) + c (r(w) + r(l))^2 (Bradley and Terry 1952; Ouyang et al. 2022).

  r is read at a side's last token, the end of its response; m is the pair's margin.
  score: (params, inputs, targets_BT) -> Scores, whose values are the scores of all tokens
  """
  scores_BS = batch.by_side(jnp.where(batch.last_BT > 0, score(params, batch.inputs, batch.targets_BT).values_BT, 0.0))
  better_BP, worse_BP, live_BP = chosen(scores_BS), rejected(scores_BS), batch.live_BP
  gap_BP = better_BP - worse_BP
  beyond_BP = gap_BP - batch.margins_BP if reward.margin else gap_BP
  loss = masked_mean(jax.nn.softplus(-beyond_BP) + reward.centre * jnp.square(better_BP + worse_BP), live_BP)
  tokens_BS = batch.by_side(batch.weights_BT)
  metrics = {
      "rewards/chosen": masked_mean(better_BP, live_BP), "rewards/rejected": masked_mean(worse_BP, live_BP),
      "rewards/margins": masked_mean(gap_BP, live_BP), "rewards/accuracies": masked_mean(gap_BP > 0, live_BP),
      # Where the preferred response is not the longer one, length alone does not give the right answer.
      "rewards/accuracies_not_longer": masked_mean(
          gap_BP > 0, live_BP * (chosen(tokens_BS) <= rejected(tokens_BS))), **lengths(batch)}
  return loss, metrics
