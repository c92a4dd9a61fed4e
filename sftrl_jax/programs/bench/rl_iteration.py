"""A whole iteration of RL as `sftrl rl` runs it: rollout, verdicts, score, update; with TRL's beside it."""

import contextlib
import dataclasses
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from sftrl_jax.programs import rl
from sftrl_jax.programs.bench import table
from sftrl_jax.programs.bench.measurement import RECOMPUTED, Bench
from sftrl_jax.programs.bench.paired_timing import Pairs, Work, alternate
from sftrl_jax.programs.bench.trl import grpo
from sftrl_jax.programs.bench.trl.grpo import PARTS, Iteration
from sftrl_jax.programs.bench.trl.stepping import RATE
from sftrl_jax.programs.bench.workloads import Timed
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.experiment.learner import make_rl_learner
from sftrl_jax.programs.loop import session
from sftrl_jax.programs.loop.jitted import jit_functions, reference_params
from sftrl_jax.programs.loop.reward_scorers import make_scorer
from sftrl_jax.programs.loop.rollout_batch import play_batch
from sftrl_jax.programs.loop.run_state import RunState
from sftrl_jax.programs.start import trainable
from sftrl_jax.rollout.episodes import blank_episodes
from sftrl_jax.rollout.segments import compile_all
from sftrl_jax.training.position import Position
from sftrl_jax.training.state import is_averaged


def measure(bench: Bench) -> list[dict]:
  """A line of the whole iteration, and one of each part. Every iteration plays the next episodes of the task, by the
  same weights: the learning rate of both sides is too small to change them."""
  ours, theirs = [], []
  work = _work(bench, ours)
  with contextlib.ExitStack() as stack:
    peer = None
    if bench.against == "trl":
      peer = stack.enter_context(
          grpo.iterations(bench.experiment, bench.start, bench.peak.threads, bench.pairs + 1, theirs))
    alternate(work, peer, bench.pairs)
  ours, theirs = ours[1:], theirs[1:]   # without the warm-up
  return _lines(bench, ours, theirs)


def _lines(bench: Bench, ours: list[Iteration], theirs: list[Iteration]) -> list[dict]:
  experiment, lines = bench.experiment, []
  shape = f"{experiment.batch}x{experiment.actor.rollout.max_new_tokens}"
  mean = lambda iterations: statistics.mean(iteration.tokens for iteration in iterations)
  for part in ("iteration", *PARTS):
    seconds = lambda iterations, part=part: tuple(iteration.seconds(part) for iteration in iterations)
    timed = Timed(None, mean(ours), statistics.mean(iteration.flops.get(part, 0.0) for iteration in ours))
    line = table.line_of(f"{experiment.config['algorithm']} {part}", shape, timed,
                         Pairs(seconds(ours), seconds(theirs)), bench.peak, experiment.model.config.dtype,
                         their_tokens=mean(theirs) if theirs else 0.0)
    lines.append(line)
  each = lambda iterations: f"{mean(iterations) / experiment.batch:.1f}"
  lines[0]["note"] = f"{each(ours)} tokens an episode" + (f", peer {each(theirs)}" if theirs else "")
  if theirs:
    lines[0]["sides"] = _sides(bench)
  for line in lines:
    bench.say(table.describe_line(line))
  return lines


def _sides(bench: Bench) -> str:
  """What each side does, for below the table."""
  experiment = bench.experiment
  compute, remat, kl = experiment.compute, experiment.model.config.remat, experiment.algorithm_config.kl_coef
  alike = (f"prompts, rewards, groups of {experiment.actor.group}, max_new_tokens, one update by AdamW in "
           f"{compute.microbatches} microbatches, threads and weights are alike")
  score = "both score the reference" if kl else "neither scores the rows before its update"
  once = ", computes the prompt of a group once in the update too" if experiment.shared_prompts else ""
  ours = (f"ours pads prompts to {experiment.actor.rollout.prompt_tokens} tokens and a microbatch to the nearest of "
          f"{compute.lengths} lengths{once}, recomputes {RECOMPUTED[remat]}, and measures what a run logs")
  peer = ("TRL generates with transformers (no vLLM), pads to the longest prompt and response of a batch, and "
          f"recomputes {RECOMPUTED[remat if remat == 'full' else 'none']}")
  return f"{alike}; {score}; {ours}; {peer}. Neither logs, saves or evaluates."


def _work(bench: Bench, record: list[Iteration]) -> Work:
  """One iteration a call, each after the one before; all is compiled now. record: gets what is measured."""
  experiment = slow(bench.experiment)
  learner = make_rl_learner(experiment)
  jitted = jit_functions(experiment, learner, bench.params)
  state, full_params = jitted.init_state(bench.params), trainable.full_params_fn(experiment)
  averaged_params = jitted.average if is_averaged(state) else lambda state: state.params
  eval_params = lambda state: full_params(averaged_params(state), bench.frozen)
  run_state = RunState(state, Position(), bench.start, None, Path(), jitted, averaged_params, eval_params,
                       bench.frozen, lambda model: model)
  reference = reference_params(experiment, bench.start)
  score = lambda *arguments: rl.score_batch(experiment, learner, jitted, reference, *arguments)
  blank = score(eval_params(state), blank_episodes(learner.episodes))
  minibatch = jitted.take(blank.batch, np.arange(learner.minibatch, dtype=np.int32))
  train_step = session.compile_step(run_state, minibatch, *rl.step_scalars(experiment, Position(), first=True))
  decoding = experiment.actor.compiled.to_decoding(eval_params(state)["model"])
  compile_all(experiment.actor, decoding)
  held, scorer = [run_state], make_scorer(experiment, None)
  del run_state, state, decoding, blank, minibatch

  def run() -> None:
    run_state, started = held[0], time.perf_counter()
    params = eval_params(run_state.state)
    played = play_batch(experiment, params, run_state.position.cursor, scorer=scorer)
    refuse_dropped(played.all_episodes)
    played_at = time.perf_counter()
    scored = score(params, played.episodes, played)
    scored_at = time.perf_counter()
    state, updated = rl.update(experiment, learner, run_state, scored, train_step)
    jax.block_until_ready(state)
    ended, verify, judged = time.perf_counter(), played.clock.verify, played.score_seconds
    position = run_state.position.ahead(played.cursor, updated.positions, 0.0, train=updated.flops)
    held[0] = dataclasses.replace(run_state, state=state, position=position)
    flops = {"rollout": sum(cost.flops for cost in played.rollout_costs), "score": scored.flops + played.score_flops,
             "update": updated.flops}
    record.append(Iteration(
        {"rollout": played_at - started - verify - judged, "verify": verify, "score": scored_at - played_at + judged,
         "update": ended - scored_at}, response_tokens(played.all_episodes),
        flops | {"iteration": sum(flops.values())}))

  return run


def slow(experiment: Experiment) -> Experiment:
  """The experiment with a rate that leaves the weights as they are, so that all iterations do the same work."""
  optimizer = dataclasses.replace(experiment.optimizer, learning_rate=RATE)
  return dataclasses.replace(experiment, optimizer=optimizer,
                             actor=dataclasses.replace(experiment.actor, ungrouped=False))


def response_tokens(episodes: list) -> int:
  """Sampled tokens of all turns of these episodes."""
  return sum(len(turn.response.tokens) for episode in episodes for turn in episode.turns)


def refuse_dropped(episodes: list) -> None:
  """ConfigError where an episode is left out: less would be timed than a run does."""
  for episode in episodes:
    if episode.dropped:
      raise ConfigError(f"An episode is left out, and what is timed needs all of them: {episode.trouble.message}")
