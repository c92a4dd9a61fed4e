"""What a run learns by, made from its parts: the loss, the optimizer, the train step, and how RL scores its rows.

One description for those who run it (sft.py, rl.py) and for those who only compile it (plan.py).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from sftrl_jax.objectives.sft import sft_loss
from sftrl_jax.programs import adapters
from sftrl_jax.programs.algorithms import ALGORITHMS, Algorithm, closes
from sftrl_jax.programs.evaluate import row_length
from sftrl_jax.programs.setup import Parts
from sftrl_jax.training.optimizer import make_optimizer
from sftrl_jax.training.schedule import make_schedule
from sftrl_jax.training.score import make_score
from sftrl_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class Learning:
  """loss: (params, batch) -> (Mean, metrics)
  train_step: (state, batch, frozen) -> (state, metrics), to be jitted
  rows, length: of the batch that one step of a run (an update, an iteration of RL) learns from
  method, section, prepare: of RL alone; prepare is jitted, (params, ref, *arrays) -> (batch, metrics)
  """

  loss: Callable
  optimizer: optax.GradientTransformation
  train_step: Callable
  rows: int
  length: int
  method: Algorithm | None = None
  section: Any = None
  prepare: Callable | None = None

  @property
  def value_head(self) -> bool:
    return self.method is not None and self.method.value_head

  @property
  def minibatch(self) -> int:
    """Rows of one update."""
    return self.rows if self.section is None else self.rows // self.section.minibatches

  @property
  def updates(self) -> int:
    """Updates a step of the run."""
    return 1 if self.section is None else self.section.epochs * self.section.minibatches


def of_sft(parts: Parts) -> Learning:
  loss = functools.partial(sft_loss, score=make_score(parts.model, chunk=parts.settings["compute"].logit_chunk))
  return Learning(loss, *_stepping(parts, loss, 1), parts.config["batch"], parts.settings["data"].length)


def of_rl(parts: Parts) -> Learning:
  name, compute = parts.config["algorithm"], parts.settings["compute"]
  method, section = ALGORITHMS[name], parts.settings[name]
  score = make_score(parts.model, parts.actor.rollout.temperature, compute.logit_chunk,
                     method.value_head and section.value_gradient)
  loss = method.loss(section, score, parts)
  prepare = jax.jit(method.prepare(section, score, compute.microbatches * section.minibatches))
  return Learning(loss, *_stepping(parts, loss, section.epochs * section.minibatches), parts.config["batch"],
                  row_length(parts, closing=closes(section)), method, section, prepare)


def _stepping(parts: Parts, loss: Callable, updates: int):
  """(optimizer, train step) of a run that makes so many updates a step."""
  optimizer, compute = parts.settings["optimizer"], parts.settings["compute"]
  schedule = make_schedule(parts.settings["schedule"], optimizer.learning_rate, parts.config["steps"] * updates)
  optax = make_optimizer(optimizer, schedule)
  return optax, make_train_step(loss, optax, schedule, compute.microbatches, adapters.whole(parts))
