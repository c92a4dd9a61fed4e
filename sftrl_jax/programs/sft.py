"""Supervised fine-tuning, pre-training of a base included: read demonstrations, step, evaluate."""

import dataclasses
import os
import time
from pathlib import Path

import jax

from sftrl_jax.models import flops
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.programs import (
    adapters,
    learning as learnings,
    run as runs,
    start as starts,
    supply as supplies,
    unison,
    validation,
)
from sftrl_jax.programs.setup import assemble, workdir_of
from sftrl_jax.training import throughput
from sftrl_jax.training.profile import span


def run(config, workdir: Path) -> None:
  """Trains config.steps updates of config.batch packed rows, or until config.flops are spent."""
  parts = assemble(config, "sft", workdir)
  starts.check(parts.config["start"], parts.model)

  # What is particular to SFT: the loss, and where a batch comes from. The rest of a run is programs/run.py.
  learning = learnings.of_sft(parts)
  rows, length = learning.rows, learning.length
  supply = supplies.of(parts)
  unison.check(parts.config, "sft", supply.record, os.environ)
  supplies.refuse_changed(supply, workdir)
  cost = flops.train(parts.model.config, rows * length, length, adapters.count(parts))

  with workdir_of(parts, "sft", workdir) as (log, stop):
    session = runs.begin(parts, workdir, log, stop, learning.optimizer, value_head=False)
    if session is None:
      return
    supplies.record(supply, workdir, log)
    example, _ = supply.batches(session.position.cursor)
    train_step = runs.compile_step(learning.train_step, session, meshes.place(parts.mesh, example))
    session = dataclasses.replace(session, measure=validation.make_measure(parts, supply, learning.loss, session))
    session, seconds = runs.evaluate_start(parts, session, log, stop), 0.0
    while not parts.limits.over(session.position):
      with log.profile.step(session.position.step + 1):
        began = time.perf_counter()
        batch, cursor = supply.batches(session.position.cursor)
        stop.consume(seconds)
        with span("update"):
          state, metrics = train_step(session.state, meshes.place(parts.mesh, batch))
          jax.block_until_ready(metrics["loss"])
        seconds = time.perf_counter() - began
        position = session.position.ahead(cursor, rows * length, seconds, train=cost)
        extra = {"timing_s/step": seconds, **throughput.of_step(session.position, position, seconds)}
        session = runs.after_step(parts, session, state, position, metrics, extra, log, stop)
    runs.finish(parts, session, log)
