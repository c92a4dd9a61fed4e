"""Reinforcement learning from an environment's verdicts: play, score, update, evaluate.

One loop for every algorithm; what an algorithm does in its own way is in training/algorithms.py.
"""

import os
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sftrl_jax.models import flops
from sftrl_jax.parallel import hosts, mesh as meshes
from sftrl_jax.programs.experiment import hosts_agree
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import Learner, make_rl_learner
from sftrl_jax.programs.experiment.workdir import workdir_of
from sftrl_jax.programs.loop import rollout_batch, run_state as loop_run_state, session
from sftrl_jax.programs.loop.evaluator import episode_line
from sftrl_jax.programs.loop.jitted import reference_params
from sftrl_jax.programs.start import initial_params, trainable
from sftrl_jax.rollout.episodes import Episode, blank_episodes
from sftrl_jax.rollout.tally import tally
from sftrl_jax.training import throughput
from sftrl_jax.training.algorithms import rows_of
from sftrl_jax.training.profile import span


def run(config: ConfigDict, workdir: Path) -> None:
  """Runs config.steps iterations of config.batch episodes, or until config.flops are spent."""
  experiment = build_experiment(config, "rl", workdir)
  initial_params.check_start(experiment.start, experiment.model)
  hosts_agree.check(experiment.config, "rl", {}, os.environ)

  # What is particular to RL: the loss, and where a batch comes from. The rest of a run is loop/session.py.
  learner = make_rl_learner(experiment)
  algorithm, section = experiment.algorithm, experiment.algorithm_config
  tokens, temperature = learner.rows * learner.length, experiment.actor.rollout.temperature
  read = (experiment.model.config, tokens, learner.length)
  training, scoring = (cost(*read, adapters=trainable.adapter_count(experiment))
                       for cost in (flops.train, flops.forward))
  scoring += flops.forward(*read) if section.kl_coef else 0.0  # the reference has no adapters

  def score(params, ref, episodes):
    """(rows on the host, rows on the devices, ScoredRows, which the devices still compute)."""
    rows = rows_of(experiment, section, episodes, learner.length)
    placed = meshes.shard_rows(experiment.mesh, rows)
    return rows, placed, run_state.jitted.score_rows(params, ref, placed)

  def learnable(scored, placed, episodes, padding_episodes=0):
    """(outcomes on the host, batch, metrics): what was scored, with what the verifier says."""
    outcomes = algorithm.outcomes(experiment, section, episodes, padding_episodes)
    return outcomes, *run_state.jitted.advantages(scored, placed, meshes.shard_rows(experiment.mesh, outcomes))

  with workdir_of(experiment, workdir) as (log, stop):
    run_state = session.start_or_resume(experiment, learner, workdir, log, stop)
    if run_state is None:
      return
    ref = reference_params(experiment, run_state.start)
    blank = blank_episodes(learner.rows)
    _, placed, scored = score(run_state.eval_params(run_state.state), ref, blank)
    _, batch, _ = learnable(scored, placed, blank)
    minibatch = run_state.jitted.take(batch, np.arange(learner.minibatch, dtype=np.int32))
    train_step = session.compile_step(run_state, minibatch)
    run_state, updating = session.evaluate_start(experiment, run_state, log, stop, rollouts=True), 0.0
    while not experiment.limits.over(run_state.position):
      with log.profile.step(run_state.position.step + 1):
        started, before = time.perf_counter(), run_state.position
        params = run_state.eval_params(run_state.state)
        with span("rollout"):
          played = rollout_batch.play_batch(experiment, params, before.cursor,
                                            lambda: (log.heartbeat(), stop.sync_or_exit()))
        played_at = time.perf_counter()
        with span("score"):
          rows, placed, scored = score(params, ref, played.episodes)
          outcomes, batch, measured = learnable(scored, placed, played.episodes, played.padding_episodes)
          measured = {**_episode_metrics(played.all_episodes), **rollout_batch.measured(experiment, played, outcomes),
                      **jax.device_get(measured), **_sampler_gap(rows, batch)}
        scored_at = time.perf_counter()
        stop.begin_update(updating)
        with span("update"):
          state, metrics = _update(experiment, learner, run_state, batch, train_step)
        ended = time.perf_counter()
        updating = ended - scored_at
        timings = {"timing_s/weights": played.weight_sync_seconds, "timing_s/rollout": played.clock.rollout,
                   "timing_s/verify": played.clock.verify, "timing_s/score": scored_at - played_at,
                   "timing_s/update": updating, "timing_s/step": ended - started}
        position = before.ahead(
            played.cursor, tokens * section.epochs, 0.0, train=training * section.epochs,
            rollout=sum(cost.flops for cost in played.rollout_costs), score=scoring)
        bytes_read = sum(cost.bytes for cost in played.rollout_costs)

        def extra(before, position, seconds, numbers={**measured, **timings}, updating=updating,  # noqa: B006
                  rolling=played.clock.rollout, bytes_read=bytes_read):
          return {**numbers, **throughput.of_step(before, position, seconds, updating=updating, rolling=rolling,
                                                  read=bytes_read)}

        if position.step % experiment.log.every == 0:
          for episode in played.episodes[: experiment.log.episodes]:
            log.episode(episode_line(position.step, "train", "train", temperature, episode))
        step = loop_run_state.Step(before, position, metrics, extra, started)
        run_state = session.after_step(experiment, run_state, state, step, log, stop)
    session.finish(experiment, run_state, log)


def _update(experiment: Experiment, learner: Learner, run_state, batch, train_step):
  """Epochs over shuffled minibatches; the order follows from the step. Returns (state, metrics summed over updates)."""
  state, total, rows = run_state.state, [], learner.rows
  for epoch in range(learner.epochs):
    source = np.random.default_rng((experiment.seed, run_state.position.step, epoch))
    order = source.permutation(rows).astype(np.int32)
    for first in range(0, rows, learner.minibatch):
      state, metrics = train_step(state, run_state.jitted.take(batch, order[first : first + learner.minibatch]))
      total.append(metrics)
  return state, loop_run_state.add_up(jax.device_get(total))


def _sampler_gap(rows, batch) -> dict[str, float]:
  """|log pi by the training graph - by the sampler| over the tokens that are learned from."""
  old_BT, mask_BT = hosts.whole_arrays((batch.old_logprobs_BT, batch.mask_BT))
  gaps = np.abs(old_BT - rows.sampled_logprobs_BT)[mask_BT > 0]
  name = "sampling/sampling_logp_difference/"
  gaps = gaps if gaps.size else np.zeros(1)
  measured = {"mean": gaps.mean(), "p99": np.quantile(gaps, 0.99), "max": gaps.max()}
  return {name + kind: float(value) for kind, value in measured.items()}


def _episode_metrics(episodes: list[Episode]) -> dict[str, float]:
  """What the episodes of an iteration, learned from or not, say of the policy."""
  counts = tally(episodes)
  responses = max(1, counts.responses)
  spread = float(np.std([sum(episode.rewards) for episode in episodes]))
  return {"objective/scores": counts.reward, "objective/scores_std": spread, "success": counts.success,
          "first_success": counts.first_success, "num_turns/mean": responses / counts.episodes,
          "response_length/mean": counts.response_tokens / responses,
          "response_length/clip_ratio": 1.0 - counts.stopped / responses}
