"""The jitted functions of a training run, described once: a run calls them, `sftrl plan` compiles them for devices that
are not here, and `sftrl bench` times them.

How a new function gets into all three:
1. Write it, not jitted, in the room of its subject (training/, objectives/, rollout/); every array is an argument.
2. Give JittedFunctions a field for it, and fill the field in `jit_functions` from the experiment and its Learner.
3. The run calls it as `run_state.jitted.NAME`, in programs/VERB.py or in loop/session.py.
4. plan lists it: `planned_functions` in plan/jitted_functions.py yields it where a run first calls it, with the same
   arguments.
5. bench times it, in bench/run.py, if a step of the run spends time in it.
tests/programs/loop/test_jitted.py fails if a run compiles a function, or a shape of one, that plan does not list.

plan leaves out the programs that load a start, checksum or export a checkpoint, measure held-out rows, sample pairs,
or score the responses that a reward model is scaled by.
"""

import dataclasses
from collections.abc import Callable

import jax

from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import Learner
from sftrl_jax.rollout.collect import Grid, Outcomes, Rows
from sftrl_jax.rollout.episodes import blank_episodes
from sftrl_jax.training import state
from sftrl_jax.training.advantages import take
from sftrl_jax.training.algorithms import rows_of
from sftrl_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class JittedFunctions:
  """Besides these, a run calls experiment.actor.compiled (rollouts) and evaluator.kl_rows (evaluations).

  shardings: of a state
  init_state: parameters that are trained -> TrainState
  average: state -> the parameters to evaluate with, of an optimizer that averages (state.is_averaged)
  train_step: (state, batch, frozen, spent) -> (state, metrics); the state is donated, `frozen` is not: every step reads
    it. spent: of RL that ends by FLOPs and whose rate goes down, else left out. With target_kl: see kl_limit.py
  score_rows: of RL: (params, ref, rows) -> ScoredRows; of preferences: (params, batch) -> logprobs_BS by the start; of
    SFT in minibatches: (params, batch) -> logprobs_BT
  advantages: of RL: (scored, rows, outcomes) -> (batch, metrics)
  take: of RL, and of SFT in minibatches: (batch, order_B) -> a minibatch
  """

  shardings: TrainState
  init_state: Callable
  average: Callable
  train_step: Callable
  score_rows: Callable | None
  advantages: Callable | None
  take: Callable = take


def jit_functions(experiment: Experiment, learner: Learner, trained: dict) -> JittedFunctions:
  """The functions of a run; nothing is compiled yet. trained: the parameters that are trained, or their shapes."""
  shardings = state.shardings(trained, learner.optimizer, experiment.mesh)
  jit = lambda function: None if function is None else jax.jit(function)
  return JittedFunctions(
      shardings, state.init_fn(learner.optimizer, shardings), jax.jit(state.evaluated),
      jax.jit(learner.train_step, donate_argnums=0, out_shardings=(shardings, None)),
      jit(learner.score_rows), jit(learner.advantages))


def reference_params(experiment: Experiment, start: dict) -> dict | None:
  """The argument `ref` of score_rows: the parameters at the start of RL, or None where no KL is measured."""
  return {"model": start} if experiment.reads_reference else None


def blank_rollout(experiment: Experiment, learner: Learner) -> tuple[Rows, Grid | Outcomes]:
  """(rows, outcomes) of blank episodes, on the host: what score_rows and advantages read, in the shapes of a run."""
  section, episodes = experiment.algorithm_config, blank_episodes(learner.episodes)
  return (rows_of(experiment, section, episodes, learner.length),
          experiment.algorithm.outcomes(experiment, section, episodes))
