"""Reinforcement learning from an environment's verdicts, or from a scorer's: play, score, update, evaluate.

One loop for every algorithm; what an algorithm does in its own way is in training/algorithms.py.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sftrl_jax.envs.env import counting_of
from sftrl_jax.metrics import Mean
from sftrl_jax.objectives.batches import LOGPROBS, GroupBatch, PolicyBatch
from sftrl_jax.parallel import hosts
from sftrl_jax.parallel.mesh import shard_rows
from sftrl_jax.programs.experiment import hosts_agree, memory
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import Learner, make_rl_learner
from sftrl_jax.programs.experiment.workdir import workdir_of
from sftrl_jax.programs.harness.run_tasks import with_tasks
from sftrl_jax.programs.loop import left_out, session
from sftrl_jax.programs.loop.evaluator import episode_line
from sftrl_jax.programs.loop.jitted import JittedFunctions, reference_params
from sftrl_jax.programs.loop.reward_scorers import make_scorer
from sftrl_jax.programs.loop.rollout_batch import RolloutBatch, group_metrics, play_batch, sampler_gap
from sftrl_jax.programs.loop.run_state import RunState, Step, add_up
from sftrl_jax.programs.start import initial_params
from sftrl_jax.rollout.actor import Cost
from sftrl_jax.rollout.collect import Rows
from sftrl_jax.rollout.episodes import Episode, blank_episodes
from sftrl_jax.rollout.scoring import gold_of
from sftrl_jax.rollout.tally import buffer_tokens, read_tokens, tally
from sftrl_jax.training import throughput
from sftrl_jax.training.advantages import NOT_SCORED
from sftrl_jax.training.algorithms import rows_of
from sftrl_jax.training.log import Log
from sftrl_jax.training.position import Position
from sftrl_jax.training.profile import span
from sftrl_jax.training.state import TrainState
from sftrl_jax.training.updates import kl_control, kl_limit, lengths


def run(config: ConfigDict, workdir: Path) -> None:
  """Runs config.steps iterations of config.batch episodes, or until config.flops are spent."""
  experiment = with_tasks(build_experiment(config, "rl", workdir))
  initial_params.check_start(experiment.start, experiment.model, experiment.lora)
  hosts_agree.check(experiment.config, "rl", {}, os.environ)

  # What is particular to RL: the loss, and where a batch comes from. The rest of a run is loop/session.py.
  learner = make_rl_learner(experiment)
  memory.refuse_larger(experiment, learner)

  with workdir_of(experiment, workdir) as (log, stop):
    run_state = session.start_or_resume(experiment, learner, workdir, log, stop)
    if run_state is None:
      return
    run_state = _with_scores(experiment, run_state)
    ref = reference_params(experiment, run_state.start)
    score = functools.partial(score_batch, experiment, learner, run_state.jitted, ref)
    blank = blank_episodes(learner.episodes)
    scored = score(run_state.eval_params(run_state.state), blank, kl_coef=run_state.kl_coef)   # compiles both functions
    minibatch = run_state.jitted.take(scored.batch, np.arange(learner.minibatch, dtype=np.int32))
    train_step = session.compile_step(run_state, minibatch, *step_scalars(experiment, run_state.position, first=True))
    run_state, updating = session.evaluate_start(experiment, run_state, log, stop, rollouts=True), 0.0
    while not experiment.limits.over(run_state.position):
      with log.profile.step(run_state.position.step + 1):
        started, before = time.perf_counter(), run_state.position
        with span("rollout"):
          params = run_state.eval_params(run_state.state)
          player = {"model": run_state.start} if experiment.samples_from_start else params
          played = play_batch(experiment, player, before.cursor, lambda: (log.heartbeat(), stop.sync_or_exit()),
                              run_state.scorer)
          counts = left_out.count(experiment, before.counts, played.all_episodes, f"step {before.step + 1}", log)
        played_at = time.perf_counter()
        with span("score"):
          scored = score(params, played.episodes, played, run_state.kl_coef)
        scored_at = time.perf_counter()
        stop.begin_update(updating)
        with span("update"):
          state, updated = update(experiment, learner, run_state, scored, train_step)
        run_state = _say_stopped(run_state, learner, updated, log)
        ended = time.perf_counter()
        updating = ended - scored_at
        numbers = scored.numbers | updated.numbers
        numbers |= {"timing_s/weights": played.weight_sync_seconds, "timing_s/rollout": played.clock.rollout,
                    "timing_s/verify": played.clock.verify, "timing_s/update": updating,
                    "timing_s/score": scored_at - played_at + played.score_seconds, "timing_s/step": ended - started}
        cost = sum(played.rollout_costs, Cost(0.0, 0.0))
        numbers["rollout/slots_alive"] = Mean(float(cost.live), float(max(1, cost.computed)))
        speed = dict(updating=updating, rolling=played.clock.rollout, read=cost.bytes)
        position = before.ahead(
            played.cursor, updated.positions, 0.0, train=updated.flops,
            rollout=cost.flops, score=scored.flops + played.score_flops + _once(experiment, before), counts=counts)
        read = int(scored.lengths_B.sum()) if experiment.algorithm.imitated else read_tokens(played.episodes)
        position = position.with_tokens(read * updated.count // learner.minibatches,
                                        buffer_tokens(played.all_episodes))
        step = Step(before, position, updated.metrics, functools.partial(_line, numbers, speed), started)
        _log_episodes(experiment, position.step, played, log)
        run_state = _adapted(experiment, run_state, scored)
        run_state = session.after_step(experiment, run_state, state, step, log, stop)
    session.finish(experiment, run_state, log, stop)


def _once(experiment: Experiment, position: Position) -> float:
  """FLOPs that are charged with the first step: what config.reward_model.flops says of the reward model."""
  return experiment.reward_model.flops if experiment.reward_model and position.step == 0 else 0.0


def _with_scores(experiment: Experiment, run_state: RunState) -> RunState:
  """The run with what scores its episodes, and with the coefficient of its KL where that is adapted."""
  coef, section = run_state.kl_coef, experiment.algorithm_config
  if coef is None and kl_control.is_adaptive(section):
    coef = section.kl_coef
  return dataclasses.replace(run_state, scorer=make_scorer(experiment, run_state.workdir), kl_coef=coef)


def _adapted(experiment: Experiment, run_state: RunState, scored: "ScoredBatch") -> RunState:
  """The run with the coefficient of the next iteration's KL, by the KL of the one that was scored."""
  if run_state.kl_coef is None:
    return run_state
  kl = float(scored.numbers["objective/kl_response"])
  coef = kl_control.adapted(experiment.algorithm_config, run_state.kl_coef, kl, experiment.batch)
  return dataclasses.replace(run_state, kl_coef=coef)


@dataclasses.dataclass(frozen=True)
class ScoredBatch:
  """The batch that an iteration learns from, on the devices.

  rows: of the same batch, on the host; lengths_B: their tokens
  numbers: what is measured of it, {} where nothing was played
  flops: of scoring it
  """

  batch: PolicyBatch | GroupBatch
  rows: Rows
  lengths_B: np.ndarray
  numbers: dict[str, float]
  flops: float


@dataclasses.dataclass(frozen=True)
class Updated:
  """What the updates of an iteration were.

  metrics: summed over minibatches
  count: how many minibatches were computed; those after one that is beyond target_kl are not
  positions, flops: that they computed, padding included
  numbers: what the host has measured of them
  """

  metrics: dict
  count: int
  positions: int
  flops: float
  numbers: dict[str, Any]


def score_batch(experiment: Experiment, learner: Learner, jitted: JittedFunctions, ref: dict | None, params: dict,
                episodes: list[Episode], played: RolloutBatch | None = None, kl_coef: float | None = None
                ) -> ScoredBatch:
  """The devices score the rows while the host makes what the verifier says of them, and the metrics of the episodes.

  kl_coef: of this iteration, None where it is fixed
  """
  section, padding = experiment.algorithm_config, played.padding_episodes if played else 0
  rows = rows_of(experiment, section, episodes, learner.length)
  lengths_B = lengths.lengths_of(rows.inputs)
  placed = shard_rows(experiment.mesh, rows)
  scored = jitted.score_rows(params, ref, placed, *learner.score_order(lengths_B)) if jitted.score_rows else NOT_SCORED
  outcomes = experiment.algorithm.outcomes(experiment, section, episodes, padding)
  coef = () if kl_coef is None else (np.float32(kl_coef),)
  batch, measured = jitted.advantages(scored, placed, shard_rows(experiment.mesh, outcomes), *coef)
  if played is None:
    return ScoredBatch(batch, rows, lengths_B, {}, 0.0)
  numbers = {**_episode_metrics(experiment, played.all_episodes), **group_metrics(experiment, played, outcomes),
             **jax.device_get(measured), **played.score_numbers}
  numbers |= _kl_metrics(section, kl_coef, numbers)
  if scored.logprobs_BT is not None:   # else the update measures it
    numbers |= sampler_gap(experiment, rows.sampled_logprobs_BT,
                           *hosts.whole_arrays((batch.old_logprobs_BT, batch.mask_BT)))
  cost = learner.flops if scored.counts is None else learner.computed(jax.device_get(scored.counts))[1]
  return ScoredBatch(batch, rows, lengths_B, numbers, cost.score)


def _kl_metrics(section: Any, kl_coef: float | None, numbers: dict[str, Any]) -> dict[str, float]:
  """What a line says of the penalty on the KL, {} where there is none."""
  if not section.kl_coef:
    return {}
  in_reward = getattr(section, "kl", "reward") == "reward"
  coef = section.kl_coef if kl_coef is None else kl_coef
  return kl_control.metrics(coef, in_reward, float(numbers["objective/kl"]), numbers["objective/scores"])


def _line(numbers: dict[str, float], speed: dict[str, float], before: Position, position: Position,
          seconds: float) -> dict[str, float]:
  """The numbers of the host for the line of a step."""
  return {**numbers, **throughput.of_step(before, position, seconds, **speed)}


def _log_episodes(experiment: Experiment, step: int, played: RolloutBatch, log: Log) -> None:
  if step % experiment.log.every == 0:
    there = [episode for episode in played.episodes if not episode.dropped]
    for episode in there[: experiment.log.episodes]:
      log.episode(episode_line(step, "train", "train", experiment.actor.rollout.temperature, episode))


def update(experiment: Experiment, learner: Learner, run_state: RunState, scored: ScoredBatch,
           train_step: Callable) -> tuple[TrainState, Updated]:
  """Epochs over shuffled minibatches; the order follows from the step.

  A device is waited for between minibatches only where target_kl is a limit. Every process reads the same sums over all
  devices, and so leaves at the same minibatch.
  """
  state, total, limited, read = run_state.state, [], bool(experiment.algorithm_config.target_kl), 0
  for rows in _minibatches(experiment, learner, run_state.position, scored.lengths_B):
    scalars = step_scalars(experiment, run_state.position, first=not total)
    minibatch = run_state.jitted.take(scored.batch, rows)
    state, metrics = train_step(state, minibatch, *scalars)
    total.append(metrics)
    read += lengths.tokens_of(scored.rows.inputs, rows)
    if limited and len(total) > 1 and jax.device_get(metrics[kl_limit.STOPPED]) > 0:
      break
  numbers = {}
  if LOGPROBS in metrics:   # there is one minibatch, which was not scored before
    new_BT, mask_BT = hosts.whole_arrays((metrics[LOGPROBS], minibatch.mask_BT))
    numbers = sampler_gap(experiment, scored.rows.sampled_logprobs_BT[rows], new_BT, mask_BT)
  total = jax.device_get([{name: metric for name, metric in metrics.items() if name != LOGPROBS} for metrics in total])
  if learner.lengths:
    positions, cost = learner.computed(sum(metrics.pop(lengths.COUNTS) for metrics in total))
    spent = cost.train
  else:
    positions = learner.minibatch * learner.length * len(total)
    spent = learner.flops.train * (len(total) / learner.updates)
  numbers["compute/real_share"] = Mean(float(read), float(positions))
  return state, Updated(add_up(total), len(total), positions, spent, numbers)


def _minibatches(experiment: Experiment, learner: Learner, position: Position, lengths_B: np.ndarray
                 ) -> Iterator[np.ndarray]:
  """The rows of every minibatch of an iteration; a minibatch has whole episodes. lengths_B: tokens of every row."""
  count, each = learner.episodes, learner.minibatch // learner.episode_rows
  for epoch in range(learner.epochs):
    source = np.random.default_rng((experiment.seed, position.step, epoch))
    order = source.permutation(count // learner.group).astype(np.int32)[:, None] * learner.group
    order = (order + np.arange(learner.group, dtype=np.int32)[None]).reshape(-1)
    for first in range(0, count, each):
      yield learner.update_order(order[first : first + each], lengths_B)


def step_scalars(experiment: Experiment, position: Position, first: bool) -> tuple[Any, ...]:
  """What a train step takes besides state and minibatch: (share of the FLOPs that is spent, first).

  The share: where the learning rate follows it, for what a rollout costs is known only after it; else None, for
  updates alone decide. first: whether the minibatch is the iteration's first, where target_kl may stop at others.
  """
  section, limits = experiment.schedule, experiment.limits
  follows = limits.flops and section.has_length and not section.updates
  spent = np.float32(limits.spent(position)) if follows else None
  if experiment.algorithm_config.target_kl:
    return spent, np.bool_(first)
  return () if spent is None else (spent,)


def _say_stopped(run_state: RunState, learner: Learner, updated: Updated, log: Log) -> RunState:
  """Tells a person of the first iteration that target_kl has stopped; the metrics tell of the others."""
  if kl_limit.STOPPED in run_state.warned or not updated.metrics.get(kl_limit.STOPPED):
    return run_state
  applied = f"{updated.count - 1} of {learner.updates} updates were applied"
  log.say(f"step {run_state.position.step + 1}: target_kl stopped the iteration, {applied}. The "
          f"metric {kl_limit.APPLIED} counts them from now on.")
  return dataclasses.replace(run_state, warned=run_state.warned | {kl_limit.STOPPED})


def _episode_metrics(experiment: Experiment, episodes: list[Episode]) -> dict[str, float]:
  """What the episodes of an iteration, learned from or not but for those that are left out, say of the policy."""
  episodes = [episode for episode in episodes if not episode.dropped]
  counts = tally(episodes, counting=counting_of(experiment.env))
  responses = max(1, counts.responses)
  spread, gold = float(np.std([sum(episode.rewards) for episode in episodes])), gold_of(episodes)
  return {**({} if gold is None else {"objective/gold": gold}),
          "objective/scores": counts.reward, "objective/scores_std": spread, "success": counts.success,
          "first_success": counts.first_success, "num_turns/mean": responses / counts.episodes,
          "response_length/mean": counts.response_tokens / responses,
          "response_length/clip_ratio": 1.0 - counts.stopped / responses}
