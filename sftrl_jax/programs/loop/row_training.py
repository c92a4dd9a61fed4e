"""Training on rows that are given, whatever the loss: read a batch, step, evaluate. What SFT and preferences share."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from sftrl_jax.data.batches import Cursors
from sftrl_jax.objectives.batches import PairBatch, TokenBatch
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.experiment import hosts_agree, memory
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import Learner, data_flops
from sftrl_jax.programs.experiment.workdir import workdir_of
from sftrl_jax.programs.loop import session, sft_data
from sftrl_jax.programs.loop.run_state import RunState, Step, add_up
from sftrl_jax.programs.loop.sft_data import SftData
from sftrl_jax.programs.start import initial_params, trainable
from sftrl_jax.training import throughput
from sftrl_jax.training.log import Log
from sftrl_jax.training.position import Position
from sftrl_jax.training.profile import span
from sftrl_jax.training.state import TrainState

# (data, run state, log) -> (data, run state, FLOPs), before the first batch
Prepare = Callable[[SftData, RunState, Log], tuple[SftData, RunState, float]]
Conclude = Callable[[SftData, RunState, Log], None]   # after the last step, before the run is complete
# (experiment, data, loss, run state, log) -> (parameters -> lines of evals.jsonl), or None
MakeMeasureVariants = Callable[[Experiment, SftData, Callable, RunState, Log], Callable[[dict], list[dict]] | None]


def train(experiment: Experiment, learner: Learner, make_data: Callable[[Experiment], SftData], workdir: Path,
          measured: Sequence[str], prepare: Prepare = lambda data, run_state, log: (data, run_state, 0.0),
          conclude: Conclude = lambda data, run_state, log: None,
          make_measure_variants: MakeMeasureVariants = lambda *_: None) -> None:
  """Trains config.steps updates of config.batch packed rows, or until config.flops are spent.

  measured: metrics of the loss that are measured on what is held out
  prepare, conclude: what a kind of training does before its first batch and after its last one; the FLOPs that
    `prepare` returns, and those that the data have cost, are counted with the first step
  make_measure_variants: what a kind of training measures besides
  """
  initial_params.check_start(experiment.start, experiment.model, experiment.lora)
  memory.refuse_larger(experiment, learner)
  data = make_data(experiment)
  hosts_agree.check(experiment.config, experiment.verb, data.record, os.environ)
  sft_data.refuse_changed(data, workdir)
  tokens, limits = learner.rows * learner.length, experiment.limits

  def next_batch(cursor: Cursors) -> tuple[TokenBatch | PairBatch, Cursors]:
    """(the batch at this cursor on its way to the devices, the cursor after it)."""
    batch, after = data.batches(cursor)
    return shard_rows(experiment.mesh, batch), after

  def extra(before: Position, position: Position, seconds: float) -> dict[str, float]:
    return {"timing_s/step": seconds, **throughput.of_step(before, position, seconds)}

  with workdir_of(experiment, workdir) as (log, stop):
    run_state = session.start_or_resume(experiment, learner, workdir, log, stop)
    if run_state is None:
      return
    sft_data.record(data, workdir, log)
    measure_variants = make_measure_variants(experiment, data, learner.loss, run_state, log)
    data, run_state, prepared = prepare(data, run_state, log)
    batch, cursor = next_batch(run_state.position.cursor)
    update = _make_update(experiment, learner, run_state, batch)
    measure = sft_data.make_measure(experiment, data, learner.held_out or learner.loss, run_state, measured)
    run_state = dataclasses.replace(run_state, measure=measure, measure_variants=measure_variants)
    run_state, seconds = session.evaluate_start(experiment, run_state, log, stop), 0.0
    while not limits.over(run_state.position):
      with log.profile.step(run_state.position.step + 1):
        started = time.perf_counter()
        stop.begin_update(seconds)
        with span("update"):
          state, metrics = update(run_state.state, batch)
        score, rollout = (prepared, data_flops(experiment)) if run_state.position.step == 0 else (0.0, 0.0)
        score += learner.flops.score if learner.minibatches > 1 else 0.0
        position = run_state.position.ahead(cursor, tokens, 0.0, train=learner.flops.train, score=score,
                                            rollout=rollout)
        step = Step(run_state.position, position.with_tokens(tokens), metrics, extra, started)
        if not limits.over(position):
          batch, cursor = next_batch(cursor)   # while the devices compute
        late = session.settles_late(run_state, seconds, stop.grace)
        run_state = session.after_step(experiment, run_state, state, step, log, stop, late)
        seconds = run_state.position.seconds / run_state.position.step
    conclude(data, run_state, log)
    session.finish(experiment, run_state, log, stop)


def _make_update(experiment: Experiment, learner: Learner, run_state: RunState, batch: TokenBatch | PairBatch
                 ) -> Callable[[TrainState, TokenBatch | PairBatch], tuple[TrainState, dict]]:
  """(state, batch) -> (state, metrics) of a step, compiled: one update, or one on every minibatch of rows that are
  scored by the policy before the first."""
  if learner.minibatches == 1:
    return session.compile_step(run_state, batch)
  jitted, full_params = run_state.jitted, trainable.full_params_fn(experiment)
  trained = lambda state: full_params(state.params, run_state.frozen)
  score_rows = jitted.score_rows.lower(trained(run_state.state), batch).compile()
  orders = np.arange(learner.rows, dtype=np.int32).reshape(-1, learner.minibatches).T
  scored = lambda state, batch: batch.replace(old_logprobs_BT=score_rows(trained(state), batch))
  train_step = session.compile_step(run_state, jitted.take(scored(run_state.state, batch), orders[0]))

  def update(state: TrainState, batch: TokenBatch) -> tuple[TrainState, dict]:
    batch, total = scored(state, batch), []
    for order in orders:
      state, metrics = train_step(state, jitted.take(batch, order))
      total.append(metrics)
    return state, add_up(jax.device_get(total))

  return update
