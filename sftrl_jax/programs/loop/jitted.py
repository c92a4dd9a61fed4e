"""The jitted functions of a run, made in one place: a run calls them, `sftrl plan` compiles them, `sftrl bench` times
them."""

import dataclasses
from collections.abc import Callable

import jax

from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import Learner
from sftrl_jax.training import state as states
from sftrl_jax.training.advantages import take
from sftrl_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class JittedFunctions:
  """Besides these, a run calls experiment.actor.compiled (rollouts) and evaluator.kl_rows (evaluations).

  shardings: of a state
  init_state: parameters that are trained -> TrainState
  average: state -> the parameters to evaluate with, of an optimizer that averages (states.is_averaged)
  train_step: (state, batch, frozen) -> (state, metrics); the state is donated, what is frozen is read again
  score_rows: of RL: (params, ref, rows) -> ScoredRows
  advantages: of RL: (scored, rows, outcomes) -> (batch, metrics)
  take: of RL: (batch, order_B) -> a minibatch
  """

  shardings: TrainState
  init_state: Callable
  average: Callable
  train_step: Callable
  score_rows: Callable | None
  advantages: Callable | None
  take: Callable = take


def jit_functions(experiment: Experiment, learner: Learner, trained: dict) -> JittedFunctions:
  """Nothing is compiled here. trained: the parameters that are trained, or their shapes."""
  shardings = states.shardings(trained, learner.optimizer, experiment.mesh)
  jit = lambda function: None if function is None else jax.jit(function)
  return JittedFunctions(
      shardings, states.init_fn(learner.optimizer, shardings), jax.jit(states.evaluated),
      jax.jit(learner.train_step, donate_argnums=0, out_shardings=(shardings, None)),
      jit(learner.score_rows), jit(learner.advantages))
