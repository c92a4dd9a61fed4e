"""Learning from pairs of responses, of which one is preferred: DPO, or a reward model."""

import dataclasses
import os
import time
from pathlib import Path

from ml_collections import ConfigDict

from sftrl_jax.models import flops
from sftrl_jax.objectives.batches import PairBatch
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.experiment import hosts_agree, memory
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.learner import make_preference_learner
from sftrl_jax.programs.experiment.workdir import workdir_of
from sftrl_jax.programs.loop import reference, session, sft_data
from sftrl_jax.programs.loop.run_state import Step
from sftrl_jax.programs.start import initial_params
from sftrl_jax.training import throughput
from sftrl_jax.training.position import Position
from sftrl_jax.training.profile import span

MEASURED = ("rewards/accuracies", "rewards/margins")   # of pairs that are held out


def run(config: ConfigDict, workdir: Path) -> None:
  """Trains config.steps updates of config.batch rows of pairs, or until config.flops are spent."""
  experiment = build_experiment(config, "preference", workdir)
  initial_params.check_start(experiment.start, experiment.model, experiment.lora)

  # What is particular to preferences: the loss, batches of pairs, and what the start says of them.
  learner = make_preference_learner(experiment)
  memory.refuse_larger(experiment, learner)
  data = sft_data.make_pair_data(experiment)
  hosts_agree.check(experiment.config, "preference", data.record, os.environ)
  sft_data.refuse_changed(data, workdir)
  tokens, limits = learner.rows * learner.length, experiment.limits

  def extra(before: Position, position: Position, seconds: float) -> dict[str, float]:
    return {"timing_s/step": seconds, **throughput.of_step(before, position, seconds)}

  with workdir_of(experiment, workdir) as (log, stop):
    run_state = session.start_or_resume(experiment, learner, workdir, log, stop)
    if run_state is None:
      return
    sft_data.record(data, workdir, log)
    scored = 0.0
    if learner.score_rows:
      data = reference.with_reference(experiment, data, run_state, log)
      rows = reference.scored_rows(experiment, data.corpus)
      scored = flops.forward(experiment.model.config, rows * learner.length, learner.length)
      if not reference.start_is_read_on(experiment):
        run_state = dataclasses.replace(run_state, start={})

    def next_batch(cursor: int) -> tuple[PairBatch, int]:
      """(the batch at this cursor on its way to the devices, the cursor after it)."""
      batch, after = data.batches(cursor)
      return shard_rows(experiment.mesh, batch), after

    batch, cursor = next_batch(run_state.position.cursor)
    train_step = session.compile_step(run_state, batch)
    run_state = dataclasses.replace(run_state, measure=sft_data.make_measure(experiment, data, learner.loss, run_state,
                                                                             MEASURED))
    run_state, seconds = session.evaluate_start(experiment, run_state, log, stop), 0.0
    while not limits.over(run_state.position):
      with log.profile.step(run_state.position.step + 1):
        started = time.perf_counter()
        stop.begin_update(seconds)
        with span("update"):
          state, metrics = train_step(run_state.state, batch)
        first = run_state.position.step == 0   # the reference is scored once, and paid for with the first step
        position = run_state.position.ahead(cursor, tokens, 0.0, train=learner.flops.train, score=scored * first)
        step = Step(run_state.position, position.with_tokens(tokens), metrics, extra, started)
        if not limits.over(position):
          batch, cursor = next_batch(cursor)   # while the devices compute
        late = session.settles_late(run_state, seconds, stop.grace)
        run_state = session.after_step(experiment, run_state, state, step, log, stop, late)
        seconds = run_state.position.seconds / run_state.position.step
    session.finish(experiment, run_state, log, stop)
