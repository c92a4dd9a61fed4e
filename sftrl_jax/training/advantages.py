"""From sampled rows to a training batch: old log-probabilities and values, then returns and advantages.

Two jitted functions, because the host makes an input of the second (the grid, or one number an episode) while the
devices compute the first.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from sftrl_jax.metrics import row_sum
from sftrl_jax.models.layout import constrain
from sftrl_jax.objectives.batches import GroupBatch, PolicyBatch, TokenBatch
from sftrl_jax.objectives.groups import GroupConfig
from sftrl_jax.objectives.ppo import PPOConfig, explained_variance
from sftrl_jax.objectives.reinforce_plus_plus import ReinforcePlusPlusConfig
from sftrl_jax.objectives.returns import gae, rewards_differ, whiten
from sftrl_jax.rollout.collect import Grid, Outcomes, Rows
from sftrl_jax.training.score import CRITIC, Score
from sftrl_jax.training.step import deal, gather
from sftrl_jax.training.updates.lengths import case_of, cut, widen

ENDLESS = 100.0   # turns that a task may have without a discount, for what its rewards can add up to


@struct.dataclass
class ScoredRows:
  """Sampled rows scored by the training graph. Column t is about token t + 1. Without scores all fields are None."""

  logprobs_BT: jax.Array | None  # f32, of the sampled tokens by the policy that sampled them
  values_BT: jax.Array | None  # f32; None without a value head
  ref_logprobs_BT: jax.Array | None  # f32, by the reference; None without a KL penalty
  counts: jax.Array | None = None  # int32: pieces that were blank, and of each length; None where there is one length


NOT_SCORED = ScoredRows(None, None, None)


def make_score_rows(score: Score, pieces: int, sizes: tuple[int, ...] = ()) -> Callable:
  """score_rows(params, ref, rows, order_B) -> ScoredRows, to be jitted.

  Old log-probabilities come from the training graph, in the train step's own microbatches (`pieces` of them), because
  the sampler's differ by rounding that is large enough to clip. ref: {"model": ...}, or None without a KL penalty.
  sizes: compiled lengths (lengths.py); a piece is computed at the one that it needs. () for the whole length alone
  order_B: of the rows, in which pieces have rows of like length; left out with one length
  """

  def score_rows(params: dict, ref: dict | None, rows: Rows, order_B: jax.Array | None = None) -> ScoredRows:
    texts = rows.inputs, rows.targets_BT
    logprobs_BT, values_BT, *counts = score_pieces(score, params, texts, pieces, order_B, sizes)
    policy = {name: tree for name, tree in params.items() if name != CRITIC}   # whose values nobody reads here
    ref_logprobs_BT = None if ref is None else score_pieces(score, {**policy, **ref}, texts, pieces, order_B, sizes)[0]
    return ScoredRows(logprobs_BT, values_BT, ref_logprobs_BT, *counts)

  return score_rows


def make_advantages(ppo: PPOConfig) -> Callable:
  """advantages(scored, rows, grid, kl_coef) -> (PolicyBatch, metrics), to be jitted: GAE on a grid of tokens or turns.

  kl_coef: f32 scalar, of this iteration; left out where it is fixed
  """

  def advantages(scored: ScoredRows, rows: Rows, grid: Grid, kl_coef: jax.Array | None = None
                 ) -> tuple[PolicyBatch, dict]:
    logprobs_BT, values_BT, rewards_EL, metrics = scored.logprobs_BT, scored.values_BT, grid.rewards_EL, {}
    slots, coef, in_loss = _slots(rows, grid.live_EL), ppo.kl_coef if kl_coef is None else kl_coef, {}
    if scored.ref_logprobs_BT is not None:
      kl_BT = (logprobs_BT - scored.ref_logprobs_BT) * rows.mask_BT
      metrics["objective/kl"] = _per_episode(kl_BT, rows, slots)
      if ppo.kl_target:
        metrics["objective/kl_response"] = jnp.sum(kl_BT) / jnp.maximum(jnp.sum(grid.ends_EL), 1)
      if ppo.kl == "reward":
        rewards_EL = rewards_EL - coef * _penalty(kl_BT, rows, grid, ppo.level)
      elif ppo.kl_coef:
        in_loss = {"ref_logprobs_BT": scored.ref_logprobs_BT * rows.mask_BT,
                   "kl_coef_B": jnp.full(rows.mask_BT.shape[0], coef, jnp.float32)}
    values_EL = values_BT[grid.row_EL, grid.column_EL] * grid.live_EL
    discounts_EL = jnp.where(grid.ends_EL > 0, ppo.turn_gamma, ppo.gamma)
    last_values_E = values_BT[grid.row_EL[:, -1], grid.last_column_E] * grid.bootstrap_E
    advantages_EL, returns_EL = gae(rewards_EL, values_EL, discounts_EL, grid.live_EL, last_values_E, ppo.gae_lambda)
    metrics["critic/vf_explained_var"] = explained_variance(values_EL, returns_EL, grid.live_EL)
    metrics["critic/returns/mean"] = row_sum(returns_EL) / jnp.maximum(jnp.sum(grid.live_EL), 1)
    if ppo.whiten:
      advantages_EL = whiten(advantages_EL, grid.live_EL)
    # Without a difference between rewards, advantages are errors of the value head, which whitening would blow up.
    signal = rewards_differ(grid.rewards_EL, jnp.where(grid.ends_EL > 0, ppo.turn_gamma, 1.0), grid.live_EL)
    advantages_EL = jnp.where(signal, advantages_EL, 0.0)
    metrics["objective/signal"] = signal.astype(jnp.float32)
    metrics |= _range(values_EL, last_values_E, rewards_EL, grid, ppo)
    spread = lambda x_EL: _to_rows(x_EL, rows, grid, ppo.level)
    batch = PolicyBatch(rows.inputs, rows.targets_BT, rows.mask_BT, rows.turns_BT, logprobs_BT * rows.mask_BT,
                        values_BT, spread(advantages_EL), spread(returns_EL), rows.weights_BT, **in_loss)
    return batch, metrics

  return advantages


def make_return_advantages(section: ReinforcePlusPlusConfig) -> Callable:
  """advantages(scored, rows, grid) -> (PolicyBatch, metrics), to be jitted: the discounted rewards from a token on, KL
  of every token included, whitened over the batch. No values."""

  def advantages(scored: ScoredRows, rows: Rows, grid: Grid) -> tuple[PolicyBatch, dict]:
    logprobs_BT, rewards_EL, metrics = scored.logprobs_BT, grid.rewards_EL, {}
    if scored.ref_logprobs_BT is not None:
      kl_BT = (logprobs_BT - scored.ref_logprobs_BT) * rows.mask_BT
      metrics["objective/kl"] = _per_episode(kl_BT, rows, _slots(rows, grid.live_EL))
      rewards_EL = rewards_EL - section.kl_coef * _penalty(kl_BT, rows, grid, "token")
    discounts_EL, blank_EL = jnp.where(grid.ends_EL > 0, section.turn_gamma, 1.0), jnp.zeros_like(rewards_EL)
    returns_EL, _ = gae(rewards_EL, blank_EL, discounts_EL, grid.live_EL, blank_EL[:, 0], 1.0)
    metrics["critic/returns/mean"] = row_sum(returns_EL) / jnp.maximum(jnp.sum(grid.live_EL), 1)
    signal = rewards_differ(grid.rewards_EL, discounts_EL, grid.live_EL)   # else whitening would blow up rounding
    metrics["objective/signal"] = signal.astype(jnp.float32)
    advantages_EL = jnp.where(signal, whiten(returns_EL, grid.live_EL), 0.0)
    old_BT = None if logprobs_BT is None else logprobs_BT * rows.mask_BT
    return PolicyBatch(rows.inputs, rows.targets_BT, rows.mask_BT, rows.turns_BT, old_BT, None,
                       _to_rows(advantages_EL, rows, grid, "token"), None), metrics

  return advantages


def make_group_advantages(section: GroupConfig, compare: Callable, kl_in_reward: bool) -> Callable:
  """advantages(scored, rows, outcomes, kl_coef) -> (GroupBatch, metrics), to be jitted: no values, one advantage an
  episode.

  compare: (rewards_E, present_E, penalties_E=None) -> advantages_E; the episodes of a group are neighbours, and one
    that is not present has no advantage and no part in those of the others
  kl_in_reward: the penalty of an episode, k1 summed over its tokens, lowers its reward; else the loss computes the KL
    from the reference log-probabilities in the batch
  kl_coef: f32 scalar, of this iteration; left out where it is fixed
  """

  def advantages(scored: ScoredRows, rows: Rows, outcomes: Outcomes, kl_coef: jax.Array | None = None
                 ) -> tuple[GroupBatch, dict]:
    logprobs_BT, ref_logprobs_BT = scored.logprobs_BT, scored.ref_logprobs_BT
    penalties, metrics, slots = {}, {}, _slots(rows, outcomes.rewards_E)
    coef = section.kl_coef if kl_coef is None else kl_coef
    spread = lambda x_E: x_E if slots == 1 else jnp.tile(x_E, slots)   # from an episode to its rows
    if ref_logprobs_BT is not None:
      kl_BT = (logprobs_BT - ref_logprobs_BT) * rows.mask_BT
      metrics["objective/kl"] = _per_episode(kl_BT, rows, slots)
      if section.kl_target:
        responses = jnp.sum(jnp.max(rows.turns_BT, axis=1) + 1)
        metrics["objective/kl_response"] = jnp.sum(kl_BT) / jnp.maximum(responses, 1)
      if kl_in_reward:
        penalties = {"penalties_E": coef * _by_episode(jnp.sum, jnp.sum(kl_BT, axis=1), slots)}
        ref_logprobs_BT = None
    mask_BT = rows.mask_BT * spread(outcomes.in_loss_E)[:, None]
    if ref_logprobs_BT is not None:
      ref_logprobs_BT = ref_logprobs_BT * mask_BT
    old_BT = None if logprobs_BT is None else logprobs_BT * mask_BT
    in_loss = ref_logprobs_BT is not None and kl_coef is not None
    batch = GroupBatch(rows.inputs, rows.targets_BT, mask_BT, old_BT, ref_logprobs_BT,
                       spread(compare(outcomes.rewards_E, present_E=outcomes.has_advantage_E, **penalties)),
                       jnp.full(mask_BT.shape[0], coef, jnp.float32) if in_loss else None)
    return batch, metrics

  return advantages


def imitation_batch(scored: ScoredRows, rows: Rows, outcomes: tuple[()]) -> tuple[TokenBatch, dict]:
  """(batch, metrics), to be jitted, of an algorithm that imitates: rows whose mask is on what is imitated."""
  signal = jnp.any(rows.mask_BT > 0).astype(jnp.float32)
  return TokenBatch(rows.inputs, rows.targets_BT, rows.mask_BT, prefix=rows.prefix), {"objective/signal": signal}


@jax.jit
def take(batch: PolicyBatch | GroupBatch | TokenBatch, order_B: jax.Array) -> PolicyBatch | GroupBatch | TokenBatch:
  """The rows of a minibatch, by their indices."""
  return jax.tree.map(lambda x: jnp.take(x, order_B, axis=0), batch)


def score_pieces(score: Score, params: dict, texts: tuple, pieces: int, order_B: jax.Array | None = None,
                 sizes: tuple[int, ...] = ()) -> tuple:
  """(logprobs_BT, values_BT, and with sizes counts) of texts = (inputs, targets_BT), a piece of the rows at a time.

  pieces, order_B, sizes, counts: as of `make_score_rows`. What `score` gives as None stays None.
  """
  return _scored_by_length(score, params, texts, pieces, order_B, sizes) if sizes else _scored(
      score, params, texts, pieces)


def _scored(score: Score, params: dict, texts: tuple, pieces: int) -> tuple:
  """(logprobs_BT, values_BT or None), a piece of the rows at a time."""
  def score_piece(piece: tuple) -> tuple:
    scores = score(params, piece[0], piece[1])
    return scores.logprobs_BT, scores.values_BT

  return gather(jax.lax.map(score_piece, deal(texts, pieces)))


def _scored_by_length(score: Score, params: dict, texts: tuple, pieces: int, order_B: jax.Array,
                      sizes: tuple[int, ...]) -> tuple:
  """(logprobs_BT, values_BT or None, counts), 0 where a column was not computed."""
  # An array of two axes has tokens; pictures have others, which stay whole.
  axes_of = lambda x: ("batch", "tokens") if x.ndim == 2 else ("batch", *[None] * (x.ndim - 1))
  rows_of = lambda x, order_B: constrain(jnp.take(x, order_B, axis=0), axes_of(x))
  ordered = jax.tree.map(lambda x: rows_of(x, order_B), texts)

  def at(size: int) -> Callable:
    def branch(piece: tuple) -> tuple:
      inputs, targets_BT = cut(piece, size)
      scores = score(params, inputs, targets_BT)
      return jax.tree.map(lambda x: widen(x, sizes[-1]), (scores.logprobs_BT, scores.values_BT))
    return branch

  def blank(piece: tuple) -> tuple:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(at(sizes[-1]), piece))

  def score_piece(piece: tuple) -> tuple:
    case = case_of(sizes, piece[0])
    return jax.lax.switch(case, (blank, *map(at, sizes)), piece), case

  scored, cases = jax.lax.map(score_piece, deal(ordered, pieces))
  back_B = jnp.argsort(order_B)
  counts = jnp.sum(cases[:, None] == jnp.arange(len(sizes) + 1)[None, :], axis=0, dtype=jnp.int32)
  return (*jax.tree.map(lambda x: rows_of(x, back_B), gather(scored)), counts)


def _slots(rows: Rows, of_episodes) -> int:
  """Rows of an episode, see rollout.collect.Rows."""
  return rows.mask_BT.shape[0] // of_episodes.shape[0]


def _by_episode(reduce: Callable, x_B, slots: int):
  """x_E of numbers a row."""
  return x_B if slots == 1 else reduce(x_B.reshape(slots, -1), axis=0)


def _per_episode(kl_BT, rows: Rows, slots: int):
  """Nats an episode; those without a sampled token do not count."""
  played_E = _by_episode(jnp.any, jnp.any(rows.mask_BT > 0, axis=1), slots)
  return jnp.sum(kl_BT) / jnp.maximum(jnp.sum(played_E), 1)


def _range(values_EL, last_values_E, rewards_EL, grid: Grid, ppo: PPOConfig) -> dict:
  """The largest |V|, and the largest that the rewards of the batch can add up to: those of an episode, and after one
  that is bootstrapped the largest reward at every turn, of at most ENDLESS turns."""
  discounts_EL, size_EL = jnp.where(grid.ends_EL > 0, ppo.turn_gamma, 1.0), jnp.abs(rewards_EL)
  turns = min(ENDLESS, 1 / (1 - ppo.turn_gamma)) if ppo.turn_gamma < 1 else ENDLESS
  rest_E = jnp.max(size_EL) * turns * grid.bootstrap_E
  _, sums_EL = gae(size_EL, jnp.zeros_like(size_EL), discounts_EL, grid.live_EL, rest_E, 1.0)
  most = lambda x: jnp.max(jnp.abs(x))
  return {"critic/values/max": jnp.maximum(most(values_EL), most(last_values_E)), "critic/values/bound": most(sums_EL)}


def _penalty(kl_BT, rows: Rows, grid: Grid, level: str):
  """k1 on the grid: per token, or summed over a turn's tokens."""
  if level == "token":
    return kl_BT[grid.row_EL, grid.column_EL] * grid.live_EL
  turns = jnp.arange(grid.live_EL.shape[1])
  member_BTU = rows.turns_BT[:, :, None] == turns[None, None, :]
  kl_BU = jnp.sum(jnp.where(member_BTU, kl_BT[:, :, None], 0.0), axis=1)
  if _slots(rows, grid.live_EL) > 1:
    kl_BU = kl_BU[grid.row_EL, _turn_of_row(rows, grid)]
  return kl_BU * grid.live_EL


def _to_rows(x_EL, rows: Rows, grid: Grid, level: str):
  """Grid values at the columns they belong to, 0 elsewhere; a turn's value on every token of the turn."""
  if level == "token":
    blank = jnp.zeros(rows.mask_BT.shape)
    return blank.at[grid.row_EL, grid.column_EL].add(x_EL * grid.live_EL)
  x_BU = x_EL
  if _slots(rows, grid.live_EL) > 1:
    blank_BU = jnp.zeros((rows.mask_BT.shape[0], x_EL.shape[1]))
    x_BU = blank_BU.at[grid.row_EL, _turn_of_row(rows, grid)].add(x_EL * grid.live_EL)
  turn_BT = jnp.clip(rows.turns_BT, 0, x_BU.shape[1] - 1)
  return jnp.take_along_axis(x_BU, turn_BT, axis=1) * rows.mask_BT


def _turn_of_row(rows: Rows, grid: Grid):
  """Of a grid of turns, the number of each within its row; 0 where not live."""
  return jnp.maximum(rows.turns_BT[grid.row_EL, grid.column_EL], 0)
