"""What a run learns by: the loss, the optimizer, the train step, and how RL scores its rows.

One description for those who run it (sft.py, rl.py), who only compile it (plan/) and who time it (bench/).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
import optax

from sftrl_jax.data.pairs.batches import MOST, blank
from sftrl_jax.models import flops, heads
from sftrl_jax.models.attention import GroupLayout
from sftrl_jax.objectives.batches import PairBatch, TokenBatch
from sftrl_jax.objectives.logprobs import forward_kl
from sftrl_jax.objectives.sft import SFTConfig, sft_loss
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.start import trainable
from sftrl_jax.rollout.collect import row_numbers
from sftrl_jax.training.advantages import make_score_rows, score_pieces
from sftrl_jax.training.algorithms import learns_by_advantages_alone, needs_bootstrap, reads_whole_episodes
from sftrl_jax.training.optimizers.optimizer import make_optimizer
from sftrl_jax.training.optimizers.schedule import make_schedule
from sftrl_jax.training.position import Limits
from sftrl_jax.training.response_scores import make_response_score, make_score_responses
from sftrl_jax.training.score import make_score, make_teacher_score
from sftrl_jax.training.state import create, is_averaged
from sftrl_jax.training.step import make_train_step
from sftrl_jax.training.updates.ema import with_ema
from sftrl_jax.training.updates.hold import hold_policy
from sftrl_jax.training.updates.kl_limit import limit_kl
from sftrl_jax.training.updates.lengths import RowLengths, blank_score, by_length, compiled_lengths
from sftrl_jax.training.updates.pass_flops import PassFlops, StepFlops, teacher_flops


@dataclasses.dataclass(frozen=True)
class ResponseScoring:
  """How a reward model scores responses of RL.

  score: (params, rows, order_B) -> (scores_BU, counts), to be jitted; see training/response_scores.py
  rows, length, turns: of the rows that one call reads, and the most responses of one
  pieces: microbatches; sizes: their compiled lengths, () for the whole length alone
  pass_flops: (positions, length) -> FLOPs of one pass over so many positions in rows of this length
  """

  score: Callable
  rows: int
  length: int
  turns: int
  pieces: int
  sizes: tuple[int, ...]
  pass_flops: Callable[[float, int], float]

  def order(self, lengths_B: np.ndarray) -> tuple[np.ndarray, ...]:
    """The argument `order_B`, () if there is none."""
    return (by_length(np.arange(self.rows, dtype=np.int32), lengths_B, self.pieces),) if self.sizes else ()

  def flops(self, counts: Sequence[int] | None) -> float:
    """Of one call. counts: microbatches that were blank, and of each length."""
    if counts is None:
      return self.pass_flops(self.rows * self.length, self.length)
    rows = self.rows // self.pieces
    return sum(self.pass_flops(int(count) * rows * size, size)
               for count, size in zip(counts[1:], self.sizes, strict=True))


@dataclasses.dataclass(frozen=True)
class Learner:
  """The functions by which a run learns; arrays are arguments of each.

  loss: (params, batch) -> (Mean, metrics)
  optimizer: optax's
  train_step: (state, batch, frozen, spent) -> (state, metrics), to be jitted; with target_kl it has an argument more,
    see kl_limit.py
  rows, length: of the batch that one step of a run (an update, an iteration of RL) learns from
  flops: of one step, what it trains and what RL scores, without its rollout; all rows at their whole length
  episode_rows: rows of an episode of RL, all of which are in one update
  epochs, minibatches: how often a step goes over its batch, in how many updates each time
  score_rows, advantages: of RL, to be jitted; see training/advantages.py. score_rows is None where nothing has to be
    scored, see `has_ratio_1`. Of preferences score_rows scores by the start, once before the first step; of SFT by the
    policy before a step, where the step has several updates
  held_out: the loss of rows that are held out; None: as `loss`
  lengths: compiled lengths of RL's rows (training/updates/lengths.py); () where all are computed whole
  microbatches: of an update
  whole_episodes: whether the loss reads the rows of an episode together, which are then in one microbatch
  pass_flops: of one pass over rows of RL
  shared: how rows share prompts, which `length` is then without; None where they are whole
  blank_batch: (rows, reference) -> a blank batch of pairs in the shapes of a run, which score_rows reads without a
    reference; of preferences alone
  responses: of RL that learns from a reward model
  """

  loss: Callable
  optimizer: optax.GradientTransformation
  train_step: Callable
  rows: int
  length: int
  flops: StepFlops
  epochs: int = 1
  minibatches: int = 1
  score_rows: Callable | None = None
  advantages: Callable | None = None
  episode_rows: int = 1
  lengths: tuple[int, ...] = ()
  microbatches: int = 1
  whole_episodes: bool = False
  pass_flops: PassFlops | None = None
  shared: GroupLayout | None = None
  blank_batch: Callable[[int, bool], PairBatch] | None = None
  responses: ResponseScoring | None = None
  held_out: Callable | None = None

  @property
  def minibatch(self) -> int:
    """Rows of one update."""
    return self.rows // self.minibatches

  @property
  def episodes(self) -> int:
    """Episodes of a batch of RL."""
    return self.rows // self.episode_rows

  @property
  def group(self) -> int:
    """Neighbours that stay together in a microbatch."""
    return self.shared.group if self.shared else 1

  @property
  def row_tokens(self) -> int:
    """Most tokens of a row, with the prompt that it shares."""
    return self.length + (self.shared.prompt if self.shared else 0)

  @property
  def updates(self) -> int:
    """Updates a step of the run."""
    return self.epochs * self.minibatches

  @property
  def least_flops(self) -> StepFlops:
    """`flops` with every row at the shortest compiled length; blank ones may cost less."""
    if not self.lengths:
      return self.flops
    least = self.pass_flops(self.rows * self.lengths[0], self.lengths[0])
    return StepFlops(least.train * self.epochs, least.score if self.score_rows else 0.0)

  def update_order(self, chosen_E: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
    """The rows of these episodes, in an order in which each microbatch of an update has rows of like length.

    lengths_B: tokens of every row of the batch
    """
    rows_of = lambda chosen_E: row_numbers(chosen_E, self.episodes, self.episode_rows)
    if not self.lengths:
      return rows_of(chosen_E)
    if self.whole_episodes and not self.shared:   # else an episode is one row
      longest_E = lengths_B.reshape(self.episode_rows, -1).max(axis=0)
      return rows_of(by_length(chosen_E, longest_E[chosen_E], self.microbatches))
    rows_B = rows_of(chosen_E)
    return by_length(rows_B, lengths_B[rows_B], self.microbatches, self.group)

  def score_order(self, lengths_B: np.ndarray) -> tuple[np.ndarray, ...]:
    """The argument `order_B` of score_rows, () if it has none."""
    rows_B, pieces = np.arange(self.rows, dtype=np.int32), self.microbatches * self.minibatches
    return (by_length(rows_B, lengths_B, pieces, self.group),) if self.lengths else ()

  def computed(self, counts: Sequence[int]) -> tuple[int, StepFlops]:
    """(positions, FLOPs of one pass over them) of microbatches. counts: how many were blank, and of each length."""
    rows = self.minibatch // self.microbatches
    sizes = [(int(count) * rows * length, length) for count, length in zip(counts[1:], self.lengths, strict=True)
             if count]
    passes = [self.pass_flops(*size) for size in sizes]
    return round(sum(self.pass_flops.computed(*size) for size in sizes)), StepFlops(
        sum(each.train for each in passes), sum(each.score for each in passes))


def make_sft_learner(experiment: Experiment, length: int = 0) -> Learner:
  """The loss of config.sft on packed rows of `length` tokens (0: config.data.length)."""
  score, sft = make_score(experiment.model, chunk=experiment.compute.logit_chunk), experiment.sft or SFTConfig()
  held_out, teacher = functools.partial(sft_loss, score=score), experiment.teacher
  loss = held_out if sft.loss == "nll" else functools.partial(held_out, sft=sft)
  if teacher is not None:
    loss = functools.partial(loss, score=make_teacher_score(
        experiment.model, teacher.model, chunk=experiment.compute.logit_chunk, kl=forward_kl))
  minibatches = sft.minibatches if sft.loss == "psft" else 1
  rows, length = experiment.batch, length or experiment.data.length
  config, adapters = experiment.model.config, trainable.adapter_count(experiment)
  cost = StepFlops(flops.train(config, rows * length, length, adapters)
                   + _picture_flops(experiment, rows, adapters)
                   + teacher_flops(teacher and teacher.model.config, experiment.prefix_tokens, rows * length, length))
  score_rows = None
  if minibatches > 1:
    cost = StepFlops(cost.train, flops.forward(config, rows * length, length, adapters=adapters)
                     + flops.pictures(config, rows))
    score_rows = _score_targets(score, experiment.compute.microbatches * minibatches)
  updates = steps_at_most(experiment.limits, cost, data_flops(experiment)) * minibatches
  return Learner(loss, *_stepping(experiment, loss, updates), rows, length, cost, minibatches=minibatches,
                 score_rows=score_rows, microbatches=experiment.compute.microbatches, held_out=held_out)


def _score_targets(score: Callable, pieces: int) -> Callable:
  """(params, batch) -> logprobs_BT of a TokenBatch, a piece of its rows at a time."""

  def score_rows(params: dict, batch: TokenBatch) -> jax.Array:
    return score_pieces(score, params, (batch.inputs, batch.targets_BT), pieces)[0]

  return score_rows


def make_preference_learner(experiment: Experiment) -> Learner:
  """The loss of config.objective on packed rows of pairs."""
  objective, section, config = experiment.objective, experiment.objective_config, experiment.model.config
  loss = objective.loss(section, make_score(experiment.model, chunk=experiment.compute.logit_chunk,
                                            value_gradient=True))
  rows, length = experiment.batch, experiment.data.length
  adapters = trainable.adapter_count(experiment)
  head = 2.0 * rows * length * heads.matmul_parameters(config.width, experiment.head_layers or ())
  reads = objective.reads_start(section)
  cost = StepFlops(flops.train(config, rows * length, length, adapters) + 3 * head
                   + _picture_flops(experiment, rows, adapters),
                   flops.forward(config, rows * length, length) + flops.pictures(config, rows) if reads else 0.0)
  updates = steps_at_most(experiment.limits, StepFlops(cost.train), data_flops(experiment))
  optimizer, train_step = _stepping(experiment, loss, updates)
  plain = make_score(experiment.model, chunk=experiment.compute.logit_chunk)
  most, reader = MOST if experiment.data.pack else 1, experiment.tokenizer.reader
  return Learner(loss, optimizer, train_step, rows, length, cost, score_rows=score_sides(plain) if reads else None,
                 blank_batch=lambda count, reference: blank(count, length, most, reference, reader))


def score_sides(score: Callable) -> Callable:
  """(params, batch) -> logprobs_BS of the responses of a PairBatch, by parameters that are {"model": ...}."""

  def score_sides(params: dict, batch: PairBatch) -> jax.Array:
    logprobs_BT = score(params, batch.inputs, batch.targets_BT).logprobs_BT
    return batch.by_side(jax.numpy.where(batch.weights_BT > 0, logprobs_BT, 0.0))

  return score_sides


def make_rl_learner(experiment: Experiment) -> Learner:
  """The loss of config.algorithm on rows that hold whole chats."""
  algorithm, section, compute = experiment.algorithm, experiment.algorithm_config, experiment.compute
  temperature, teacher = experiment.actor.rollout.temperature, experiment.teacher
  if teacher is None:
    score = make_score(experiment.model, temperature, compute.logit_chunk,
                       algorithm.value_head and section.value_gradient)
  else:
    score = make_teacher_score(experiment.model, teacher.model, temperature, compute.logit_chunk)
  loss = algorithm.loss(section, score, experiment)
  slots = experiment.actor.episode_rows
  shared, rows = experiment.shared_prompts, experiment.batch * slots
  length = experiment.actor.row_len(bootstrap=needs_bootstrap(section)) - (shared.prompt if shared else 0)
  sizes = compiled_lengths(length, compute.lengths)
  lengths = RowLengths(sizes, algorithm.loss(section, blank_score, experiment)) if len(sizes) > 1 or shared else None
  pass_flops = _pass_flops(experiment, shared, length)
  cost = pass_flops(rows * length, length)
  updates = section.epochs * section.minibatches
  warmup = section.critic_warmup * updates if algorithm.value_head else 0
  optimizer, train_step = _stepping(experiment, loss, experiment.limits.steps * updates, warmup, lengths)
  scores = algorithm.compares and not has_ratio_1(experiment, optimizer)
  cost = StepFlops(cost.train * section.epochs, cost.score if scores else 0.0)
  alone = learns_by_advantages_alone(section)
  train_step = hold_policy(train_step, alone, warmup) if alone or warmup else train_step
  train_step = limit_kl(train_step, section.target_kl, warmup) if section.target_kl else train_step
  sizes = sizes if lengths else ()
  score_rows = make_score_rows(score, compute.microbatches * section.minibatches, sizes) if scores else None
  return Learner(loss, optimizer, train_step, rows, length, cost, section.epochs, section.minibatches, score_rows,
                 algorithm.advantages(section), slots, sizes, compute.microbatches, reads_whole_episodes(section),
                 pass_flops, shared,
                 responses=_response_scoring(experiment, rows, compute.microbatches * section.minibatches))


def _response_scoring(experiment: Experiment, rows: int, pieces: int) -> ResponseScoring | None:
  """As many rows a call as an iteration has, in the microbatches of its other scores."""
  reward, actor = experiment.reward_model, experiment.actor
  if reward is None:
    return None
  length = actor.row_len() + 1   # the last token is read, and not only a target
  sizes = compiled_lengths(length, experiment.compute.lengths)
  sizes, config = sizes if len(sizes) > 1 else (), reward.model.config
  head = 2.0 * heads.matmul_parameters(config.width, reward.layers)
  return ResponseScoring(
      make_score_responses(make_response_score(reward.model), pieces, sizes), rows, length, actor.row_turns, pieces,
      sizes, lambda positions, keys: flops.forward(config, positions, keys, unembedded=0) + head * positions)


def has_ratio_1(experiment: Experiment, optimizer: optax.GradientTransformation) -> bool:
  """Whether the ratio to the policy that played is 1 in every update, so that nothing has to be scored.

  So it is with one update an iteration, without values and without a KL, whose reference is scored too; but not under
  an optimizer that plays with averaged parameters and trains others.
  """
  section = experiment.algorithm_config
  if section.epochs * section.minibatches > 1 or experiment.algorithm.value_head or experiment.reads_reference:
    return False
  _, trained, _ = trainable.abstract_trainable(experiment)
  return not is_averaged(jax.eval_shape(lambda params: create(params, optimizer), trained))


def _pass_flops(experiment: Experiment, layout: GroupLayout | None, longest: int) -> PassFlops:
  teacher = experiment.teacher and experiment.teacher.model.config
  return PassFlops(
      experiment.model.config, trainable.adapter_count(experiment), trainable.adapts_pictures(experiment),
      experiment.reads_reference, experiment.algorithm_config.value_layers if experiment.algorithm.value_head else (),
      experiment.has_own_critic, teacher, experiment.prefix_tokens,
      *((layout.prompt, layout.group, longest) if layout else ()))


def _picture_flops(experiment: Experiment, rows: float, adapters: int) -> float:
  """Of training on the pictures of so many rows."""
  return flops.pictures(experiment.model.config, rows, training=True, adapters=adapters,
                        adapted=trainable.adapts_pictures(experiment))


def steps_at_most(limits: Limits, cost: StepFlops, before: float = 0.0) -> int:
  """The steps after which a run ends by config.steps or config.flops; exact but for rollouts, which cost more.

  before: FLOPs that are charged besides
  """
  left = max(1.0, limits.flops - before)
  return min(limits.steps, math.ceil(left / (cost.train + cost.score))) if limits.flops else limits.steps


def data_flops(experiment: Experiment) -> float:
  """FLOPs that the rows of a run have cost, as far as they are known; see programs/loop/pairs/sampling.py."""
  flops = getattr(experiment.data, "flops", 0.0)
  return 0.0 if isinstance(flops, str) else flops


def _stepping(experiment: Experiment, loss: Callable, updates: int, warmup: int = 0,
              lengths: RowLengths | None = None):
  """(optimizer, train step). updates: of the whole run, as far as it is known before; warmup: of its critic."""
  schedule = make_schedule(experiment.schedule, experiment.optimizer.learning_rate, updates)
  averaging = lambda rate: with_ema(make_optimizer(experiment.optimizer, rate), experiment.ema.decay)
  optimizer = averaging(schedule)

  def at_share(spent: jax.Array) -> tuple:
    rate = functools.partial(schedule, spent=spent)
    return averaging(rate), rate

  return optimizer, make_train_step(loss, optimizer, schedule, experiment.compute.microbatches,
                                    trainable.full_params_fn(experiment), at_share, warmup, lengths)
