"""Reinforcement learning from an environment's verdicts: play, score, update, evaluate.

One loop for every method; what a method does in its own way is in algorithms.py.
"""

import os
import time
from pathlib import Path

import jax
import numpy as np

from sftrl_jax.models import flops
from sftrl_jax.parallel import hosts, mesh as meshes
from sftrl_jax.programs import adapters, learning as learnings, rounds, run as runs, start as starts, unison
from sftrl_jax.programs.evaluate import episode_line
from sftrl_jax.programs.setup import assemble, workdir_of
from sftrl_jax.rollout.episodes import Episode
from sftrl_jax.rollout.tally import tally
from sftrl_jax.training import throughput
from sftrl_jax.training.experience import take
from sftrl_jax.training.profile import span


def run(config, workdir: Path) -> None:
  """Runs config.steps iterations of config.batch episodes, or until config.flops are spent."""
  parts = assemble(config, "rl", workdir)
  starts.check(parts.config["start"], parts.model)
  unison.check(parts.config, "rl", {}, os.environ)

  # What is particular to RL: the loss, and where a batch comes from. The rest of a run is programs/run.py.
  learning = learnings.of_rl(parts)
  method, section, prepare = learning.method, learning.section, learning.prepare
  episodes, length, temperature = learning.rows, learning.length, parts.actor.rollout.temperature
  read = (parts.model.config, episodes * length, length)
  training, scoring = (cost(*read, adapters=adapters.count(parts)) for cost in (flops.train, flops.forward))
  scoring += flops.forward(*read) if section.kl_coef else 0.0  # the reference has no adapters

  with workdir_of(parts, "rl", workdir) as (log, stop):
    session = runs.begin(parts, workdir, log, stop, learning.optimizer, value_head=method.value_head)
    if session is None:
      return
    ref = {"model": session.start} if section.kl_coef else None
    blank = method.arrays(parts, section, [Episode(0, (), (), False)] * episodes, length)
    batch, _ = prepare(session.judged(session.state), ref, *meshes.place(parts.mesh, blank))
    train_step = runs.compile_step(
        learning.train_step, session, take(batch, np.arange(learning.minibatch, dtype=np.int32)))
    session, updating = runs.evaluate_start(parts, session, log, stop, rollouts=True), 0.0
    while not parts.limits.over(session.position):
      with log.profile.step(session.position.step + 1):
        began = time.perf_counter()
        params = session.judged(session.state)
        with span("rollout"):
          played = rounds.play_batch(parts, params, session.position.cursor, lambda: (log.fed(), stop.pause()))
        mark = time.perf_counter()
        arrays = method.arrays(parts, section, played.episodes, length, played.fillers)
        with span("score"):
          batch, measured = prepare(params, ref, *meshes.place(parts.mesh, arrays))
          measured = jax.device_get(measured)
        measured = {**measured, **_sampler_gap(arrays[0], batch), **_told(played.everything)}
        scored = time.perf_counter()
        stop.consume(updating)
        with span("update"):
          state, metrics = _update(parts, section, session, batch, train_step)
        ended = time.perf_counter()
        updating = ended - scored
        extra = {**measured, **rounds.measured(parts, played, arrays[1]), "timing_s/weights": played.weights,
                 "timing_s/rollout": played.clock.rollout, "timing_s/verify": played.clock.verify,
                 "timing_s/score": scored - mark, "timing_s/update": updating, "timing_s/step": ended - began}
        position = session.position.ahead(
            played.cursor, episodes * length * section.epochs, ended - began,
            train=training * section.epochs, rollout=sum(cost.flops for cost in played.spent), score=scoring)
        extra |= throughput.of_step(
            session.position, position, ended - began, updating=updating, rolling=played.clock.rollout,
            read=sum(cost.bytes for cost in played.spent))
        if position.step % parts.settings["log"].every == 0:
          for episode in played.episodes[: parts.settings["log"].episodes]:
            log.episode(episode_line(position.step, "train", "train", temperature, episode))
        session = runs.after_step(parts, session, state, position, metrics, extra, log, stop)
    runs.finish(parts, session, log)


def _update(parts, section, session, batch, train_step):
  """Epochs over shuffled minibatches; the order follows from the step. Returns (state, metrics summed over updates)."""
  state, total = session.state, None
  size = parts.config["batch"] // section.minibatches
  for epoch in range(section.epochs):
    source = np.random.default_rng((parts.config["seed"], session.position.step, epoch))
    order = source.permutation(parts.config["batch"]).astype(np.int32)
    for first in range(0, len(order), size):
      state, metrics = train_step(state, take(batch, order[first : first + size]))
      total = [metrics] if total is None else [*total, metrics]
  return state, runs.add_up(jax.device_get(total))


def _sampler_gap(rows, batch) -> dict[str, float]:
  """|log pi by the training graph - by the sampler| over the tokens that are learned from."""
  old_BT, mask_BT = hosts.whole((batch.old_logprobs_BT, batch.mask_BT))
  gaps = np.abs(old_BT - rows.sampled_logprobs_BT)[mask_BT > 0]
  name = "sampling/sampling_logp_difference/"
  gaps = gaps if gaps.size else np.zeros(1)
  measured = {"mean": gaps.mean(), "p99": np.quantile(gaps, 0.99), "max": gaps.max()}
  return {name + kind: float(value) for kind, value in measured.items()}


def _told(episodes) -> dict[str, float]:
  """What the episodes say of the policy."""
  counts = tally(episodes)
  responses = max(1, counts.responses)
  spread = float(np.std([sum(episode.rewards) for episode in episodes]))
  return {"objective/scores": counts.reward, "objective/scores_std": spread, "success": counts.success,
          "first_success": counts.first_success, "num_turns/mean": responses / counts.episodes,
          "response_length/mean": counts.response_tokens / responses,
          "response_length/clip_ratio": 1.0 - counts.stopped / responses}
