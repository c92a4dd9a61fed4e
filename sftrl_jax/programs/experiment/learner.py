"""What a run learns by: the loss, the optimizer, the train step, and how RL scores its rows.

One description for those who run it (sft.py, rl.py), who only compile it (plan/) and who time it (bench/).
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import optax

from sftrl_jax.models import flops, heads
from sftrl_jax.objectives.sft import sft_loss
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.start import trainable
from sftrl_jax.training.advantages import make_score_rows
from sftrl_jax.training.algorithms import learns_by_advantages_alone, needs_bootstrap
from sftrl_jax.training.hold import hold_policy
from sftrl_jax.training.kl_limit import limit_kl
from sftrl_jax.training.optimizers.optimizer import make_optimizer
from sftrl_jax.training.optimizers.schedule import make_schedule
from sftrl_jax.training.position import Limits
from sftrl_jax.training.score import make_score
from sftrl_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class StepFlops:
  """FLOPs of one step of a run."""

  train: float
  score: float = 0.0


@dataclasses.dataclass(frozen=True)
class Learner:
  """The functions by which a run learns; arrays are arguments of each.

  loss: (params, batch) -> (Mean, metrics)
  optimizer: optax's
  train_step: (state, batch, frozen, spent) -> (state, metrics), to be jitted; with target_kl it has an argument more,
    see kl_limit.py
  rows, length: of the batch that one step of a run (an update, an iteration of RL) learns from
  flops: of one step, what it trains and what RL scores, without its rollout
  episode_rows: rows of an episode of RL, all of which are in one update
  epochs, minibatches: how often a step goes over its batch, in how many updates each time
  score_rows, advantages: of RL alone, to be jitted; see training/advantages.py
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

  @property
  def minibatch(self) -> int:
    """Rows of one update."""
    return self.rows // self.minibatches

  @property
  def episodes(self) -> int:
    """Episodes of a batch of RL."""
    return self.rows // self.episode_rows

  @property
  def updates(self) -> int:
    """Updates a step of the run."""
    return self.epochs * self.minibatches


def make_sft_learner(experiment: Experiment, length: int = 0) -> Learner:
  """Cross-entropy on packed rows of `length` tokens (0: config.data.length)."""
  loss = functools.partial(sft_loss, score=make_score(experiment.model, chunk=experiment.compute.logit_chunk))
  rows, length = experiment.batch, length or experiment.data.length
  cost = StepFlops(flops.train(experiment.model.config, rows * length, length, trainable.adapter_count(experiment)))
  return Learner(loss, *_stepping(experiment, loss, steps_at_most(experiment.limits, cost)), rows, length, cost)


def make_rl_learner(experiment: Experiment) -> Learner:
  """The loss of config.algorithm on rows that hold whole chats."""
  algorithm, section, compute = experiment.algorithm, experiment.algorithm_config, experiment.compute
  score = make_score(experiment.model, experiment.actor.rollout.temperature, compute.logit_chunk,
                     algorithm.value_head and section.value_gradient)
  loss = algorithm.loss(section, score, experiment)
  slots = experiment.actor.episode_rows
  rows, length = experiment.batch * slots, experiment.actor.row_len(bootstrap=needs_bootstrap(section))
  read, adapters = (experiment.model.config, rows * length, length), trainable.adapter_count(experiment)
  reference = flops.forward(*read) if section.kl_coef else 0.0   # the reference has no adapters
  layers = section.value_layers if algorithm.value_head else ()
  head = 2.0 * rows * length * heads.matmul_parameters(experiment.model.config.width, layers)
  cost = StepFlops((flops.train(*read, adapters=adapters) + 3 * head) * section.epochs,
                   flops.forward(*read, adapters=adapters) + head + reference)
  updates = section.epochs * section.minibatches
  warmup = section.critic_warmup * updates if algorithm.value_head else 0
  optimizer, train_step = _stepping(experiment, loss, experiment.limits.steps * updates, warmup)
  alone = learns_by_advantages_alone(section)
  train_step = hold_policy(train_step, alone, warmup) if alone or warmup else train_step
  train_step = limit_kl(train_step, section.target_kl, warmup) if section.target_kl else train_step
  return Learner(loss, optimizer, train_step, rows, length, cost, section.epochs, section.minibatches,
                 make_score_rows(score, compute.microbatches * section.minibatches), algorithm.advantages(section),
                 slots)


def steps_at_most(limits: Limits, cost: StepFlops) -> int:
  """The steps after which a run ends by config.steps or config.flops; exact but for rollouts, which cost more."""
  return min(limits.steps, math.ceil(limits.flops / (cost.train + cost.score))) if limits.flops else limits.steps


def _stepping(experiment: Experiment, loss: Callable, updates: int, warmup: int = 0):
  """(optimizer, train step). updates: of the whole run, as far as it is known before; warmup: of its critic."""
  schedule = make_schedule(experiment.schedule, experiment.optimizer.learning_rate, updates)
  optimizer = make_optimizer(experiment.optimizer, schedule)

  def at_share(spent: jax.Array) -> tuple:
    rate = functools.partial(schedule, spent=spent)
    return make_optimizer(experiment.optimizer, rate), rate

  return optimizer, make_train_step(loss, optimizer, schedule, experiment.compute.microbatches,
                                    trainable.full_params_fn(experiment), at_share, warmup)
