"""Supervised fine-tuning, pre-training of a base included: read demonstrations, step, evaluate."""

import dataclasses
import os
import time
from pathlib import Path

from ml_collections import ConfigDict

from sftrl_jax.objectives.batches import TokenBatch
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.experiment import hosts_agree, memory
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.learner import make_sft_learner
from sftrl_jax.programs.experiment.workdir import workdir_of
from sftrl_jax.programs.loop import session, sft_data
from sftrl_jax.programs.loop.run_state import Step
from sftrl_jax.programs.start import initial_params
from sftrl_jax.training import throughput
from sftrl_jax.training.position import Position
from sftrl_jax.training.profile import span


def run(config: ConfigDict, workdir: Path) -> None:
  """Trains config.steps updates of config.batch packed rows, or until config.flops are spent."""
  experiment = build_experiment(config, "sft", workdir)
  initial_params.check_start(experiment.start, experiment.model, experiment.lora)

  # What is particular to SFT: the loss, and where a batch comes from. The rest of a run is loop/session.py.
  learner = make_sft_learner(experiment)
  memory.refuse_larger(experiment, learner)
  data = sft_data.make_sft_data(experiment)
  hosts_agree.check(experiment.config, "sft", data.record, os.environ)
  sft_data.refuse_changed(data, workdir)
  tokens, limits = learner.rows * learner.length, experiment.limits

  def next_batch(cursor: int) -> tuple[TokenBatch, int]:
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
    batch, cursor = next_batch(run_state.position.cursor)
    train_step = session.compile_step(run_state, batch)
    run_state = dataclasses.replace(run_state, measure=sft_data.make_measure(experiment, data, learner.loss, run_state))
    run_state, seconds = session.evaluate_start(experiment, run_state, log, stop), 0.0
    while not limits.over(run_state.position):
      with log.profile.step(run_state.position.step + 1):
        started = time.perf_counter()
        stop.begin_update(seconds)
        with span("update"):
          state, metrics = train_step(run_state.state, batch)
        position = run_state.position.ahead(cursor, tokens, 0.0, train=learner.flops.train).with_tokens(tokens)
        step = Step(run_state.position, position, metrics, extra, started)
        if not limits.over(position):
          batch, cursor = next_batch(cursor)   # while the devices compute
        late = session.settles_late(run_state, seconds, stop.grace)
        run_state = session.after_step(experiment, run_state, state, step, log, stop, late)
        seconds = run_state.position.seconds / run_state.position.step
    session.finish(experiment, run_state, log, stop)
