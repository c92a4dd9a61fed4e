"""The batches of the objectives. All arrays are aligned to the *predicting* position: column t is about token t + 1."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from sftrl_jax.inputs import Inputs, Prefix

LOGPROBS = "logprobs_BT"   # among the metrics of a loss whose batch has no old log-probabilities: those of its rows


@struct.dataclass
class TokenBatch:
  """Supervised rows: weights are 1 where the target is trained on, 0 elsewhere."""

  inputs: Inputs
  targets_BT: jax.Array  # int32: the next token of the same segment
  weights_BT: jax.Array  # f32
  old_logprobs_BT: jax.Array | None = None  # f32, before the step's first update; None where the loss has no ratio
  prefix: Prefix | None = None  # what a teacher alone reads before the row, which is then of one segment


@struct.dataclass
class PolicyBatch:
  """Rows that a policy sampled, with quantities from before the first update. mask_BT: the policy chose the target."""

  inputs: Inputs
  targets_BT: jax.Array  # int32
  mask_BT: jax.Array  # f32 0/1
  turns_BT: jax.Array  # int32: the turn of the target within its row, -1 off the mask
  old_logprobs_BT: jax.Array | None  # f32, by the training graph at the rollout's temperature; None: see old_logprobs
  old_values_BT: jax.Array | None  # f32; None without a value head
  advantages_BT: jax.Array  # f32, 0 off the mask
  returns_BT: jax.Array | None  # f32, 0 off the mask; None without a value head
  weights_BT: jax.Array | None = None  # f32, of a target's log-probability in that of its turn; None where all are 1
  ref_logprobs_BT: jax.Array | None = None  # f32, of the start's parameters; None where the loss has no KL
  kl_coef_B: jax.Array | None = None  # f32, the weight of the KL in the loss; None where it has none


@struct.dataclass
class GroupBatch:
  """Rows that a policy sampled, whose episodes are compared with the others of their group: no values, no returns.

  A row is an episode, or one of its S chats: row s * E + e is then of episode e, and all S rows are in one batch.
  """

  inputs: Inputs
  targets_BT: jax.Array  # int32
  mask_BT: jax.Array  # f32 0/1: the policy chose the target, and its episode is in the loss
  old_logprobs_BT: jax.Array | None  # f32, by the training graph at the rollout's temperature; None: see old_logprobs
  ref_logprobs_BT: jax.Array | None  # f32, of the start's parameters; None where the loss has no KL
  advantages_B: jax.Array  # f32, of all tokens of the episode
  kl_coef_B: jax.Array | None = None  # f32, the weight of the KL in the loss; None where it is fixed


@struct.dataclass
class PairBatch:
  """Rows that hold pairs of responses to one prompt, each side, a prompt with a response, a segment of its own.

  Pair p of a row has side 2p, the preferred response, and side 2p + 1, the other. S is twice the most pairs of a row.
  """

  inputs: Inputs
  targets_BT: jax.Array  # int32: the next token of the same segment
  weights_BT: jax.Array  # f32: 1 where the target is a token of the response, or its end
  sides_BT: jax.Array  # int32: the side of the token in this column, -1 for padding
  last_BT: jax.Array  # f32: 1 at the last token of a side
  live_BP: jax.Array  # f32: 1 where there is a pair
  margins_BP: jax.Array  # f32: by how much the preferred response is better, 0 where nobody has said
  ref_logprobs_BS: jax.Array | None  # f32: of each side's response by the start's parameters; None without a reference

  def by_side(self, x_BT: jax.Array) -> jax.Array:
    """sums_BS: over the columns of every side. What is off the sides may be NaN."""
    members_BTS = self.sides_BT[:, :, None] == jnp.arange(2 * self.live_BP.shape[1])[None, None, :]
    return jnp.sum(jnp.where(members_BTS, x_BT[:, :, None], 0.0), axis=1)


def chosen(x_BS: jax.Array) -> jax.Array:
  """x_BP of the preferred sides."""
  return x_BS[:, 0::2]


def rejected(x_BS: jax.Array) -> jax.Array:
  """x_BP of the other sides."""
  return x_BS[:, 1::2]


def has_advantage(batch: PolicyBatch | GroupBatch | TokenBatch) -> jax.Array:
  """Whether a token in the loss has an advantage, or a weight (bool scalar)."""
  if isinstance(batch, TokenBatch):
    return jnp.any(batch.weights_BT > 0)
  advantages = batch.advantages_BT if isinstance(batch, PolicyBatch) else batch.advantages_B[:, None]
  return jnp.any((advantages != 0) & (batch.mask_BT > 0))


class Scores(NamedTuple):
  """A model's outputs that objectives need."""

  logprobs_BT: jax.Array  # f32, of the targets
  entropy_BT: jax.Array  # f32, nats
  values_BT: jax.Array | None  # f32, of the state before the target; None without a value head
  correct_BT: jax.Array  # bool: the target is the likeliest token
  kl_BT: jax.Array | None = None  # f32, nats, to a teacher's distribution of the target; None without a teacher


# (params, inputs, targets_BT) -> Scores; with a teacher it takes the prefix of a batch besides, or None
Score = Callable[..., Scores]


def old_logprobs(batch: PolicyBatch | GroupBatch, scores: Scores) -> tuple[jax.Array, dict]:
  """(old_logprobs_BT, metrics to add): those of the batch, or, where it has none, those of the training graph itself.

  The latter is for the only update of an iteration, whose ratio is then exactly 1, with the gradient of a ratio. Its
  metrics hold LOGPROBS, for what is measured of them.
  """
  if batch.old_logprobs_BT is not None:
    return batch.old_logprobs_BT, {}
  old_BT = jax.lax.stop_gradient(scores.logprobs_BT)
  return old_BT, {LOGPROBS: old_BT}
