"""Reinforcement learning from an environment's verdicts: play, score, update, evaluate."""

import functools
import time
from pathlib import Path

import jax
import numpy as np

from sftrl_jax.models import flops
from sftrl_jax.objectives.batches import PolicyBatch
from sftrl_jax.objectives.ppo import ppo_loss
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.programs import run as runs, start as starts
from sftrl_jax.programs.evaluate import episode_line, row_length
from sftrl_jax.programs.setup import assemble, workdir_of
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import Episode, play
from sftrl_jax.rollout.policy import policy
from sftrl_jax.rollout.tally import tally
from sftrl_jax.text.render import message_ids
from sftrl_jax.training.experience import make_prepare, take
from sftrl_jax.training.optimizer import make_optimizer
from sftrl_jax.training.schedule import make_schedule
from sftrl_jax.training.score import make_score
from sftrl_jax.training.step import make_train_step


def run(config, workdir: Path) -> None:
  """Runs config.steps iterations of config.batch episodes, or until config.flops are spent."""
  parts = assemble(config, "rl")
  starts.check(parts.config["start"], parts.model)
  ppo, compute, optimizer = (parts.settings[name] for name in ("ppo", "compute", "optimizer"))
  episodes, turns = parts.config["batch"], parts.env.attempts
  length = row_length(parts, closing=ppo.truncation == "bootstrap")
  updates = parts.config["steps"] * ppo.epochs * ppo.minibatches

  # What is particular to RL: the loss, and where a batch comes from. The rest of a run is programs/run.py.
  temperature = parts.actor.rollout.temperature
  score = make_score(parts.model, temperature, compute.logit_chunk, ppo.value_gradient)
  loss = functools.partial(ppo_loss, ppo=ppo, score=score, turns=turns)
  schedule = make_schedule(parts.settings["schedule"], optimizer.learning_rate, updates)
  optax = make_optimizer(optimizer, schedule)
  train_step = make_train_step(loss, optax, schedule, compute.microbatches)
  prepare = jax.jit(make_prepare(score, ppo, compute.microbatches * ppo.minibatches))
  forward = flops.forward(parts.model.config, episodes * length, length)
  scoring = forward * (2 if ppo.kl_coef else 1)

  with workdir_of(parts, "rl", workdir) as (log, stop):
    session = runs.begin(parts, workdir, log, stop, optax, value_head=True)
    if session is None:
      return
    ref = {"model": session.start} if ppo.kl_coef else None
    blank = _arrays(parts, ppo, [Episode(0, (), (), False)] * episodes, length)
    batch, _ = prepare(session.judged(session.state), ref, *meshes.place(parts.mesh, blank))
    size = episodes // ppo.minibatches
    train_step = runs.compile_step(train_step, session.state, take(batch, np.arange(size, dtype=np.int32)))
    session, updating = runs.evaluate_start(parts, session, log, stop, rollouts=True), 0.0
    while not parts.limits.over(session.position):
      began = time.perf_counter()
      params = session.judged(session.state)
      played, clock, spent = _play(parts, params, session.position.cursor)
      mark = time.perf_counter()
      arrays = _arrays(parts, ppo, played, length)
      batch, measured = prepare(params, ref, *meshes.place(parts.mesh, arrays))
      measured = {**jax.device_get(measured), **_sampler_gap(arrays[0], batch)}
      scored = time.perf_counter()
      stop.consume(updating)
      state, metrics = _update(parts, ppo, session, batch, train_step)
      ended = time.perf_counter()
      updating = ended - scored
      extra = {**measured, **_told(played), "timing_s/rollout": clock.rollout, "timing_s/verify": clock.verify,
               "timing_s/score": scored - mark, "timing_s/update": updating, "timing_s/step": ended - began}
      position = session.position.ahead(
          session.position.cursor + episodes, episodes * length * ppo.epochs, ended - began,
          train=3 * forward * ppo.epochs, rollout=sum(spent), score=scoring)
      if position.step % parts.settings["log"].every == 0:
        for episode in played[: parts.settings["log"].episodes]:
          log.episode(episode_line(position.step, "train", "train", temperature, episode))
      session = runs.after_step(parts, session, state, position, metrics, extra, log, stop)
    runs.finish(parts, session, log)


def _play(parts, params, first):
  """(episodes, Clock, FLOPs spent): one iteration's episodes, whose hands and random numbers follow from the cursor."""
  actor, seed = parts.actor, parts.config["seed"]
  decoding = actor.compiled[2](params["model"])
  key = jax.random.key(seed)
  played, spent, rollout, verify = [], [], 0.0, 0.0
  for start in range(first, first + parts.config["batch"], actor.rollout.rows):
    numbers = range(start, min(start + actor.rollout.rows, first + parts.config["batch"]))
    seeds = [f"{seed} {number}" for number in numbers]
    some, clock = play(parts.env, policy(actor, decoding, key, actor.rollout.temperature, numbers, spent), seeds)
    played, rollout, verify = played + some, rollout + clock.rollout, verify + clock.verify
  for episode in played:
    for reward in episode.rewards:
      if reward is None or not np.isfinite(reward):
        raise ValueError(f"The environment gave the reward {reward!r} in episode {episode.seed!r}; it must be a finite "
                         "number.")
  return played, type(clock)(rollout, verify), spent


def _arrays(parts, ppo, episodes, length):
  """(Rows, Grid) on the host. What was said after a truncated episode is read only if its value is wanted."""
  bootstrap = ppo.truncation == "bootstrap"
  most = parts.actor.rollout.feedback_tokens + 1
  closing = [_closing(parts.tokenizer, episode, most) if bootstrap and episode.truncated else ()
             for episode in episodes]
  rows = collect.rows(episodes, length, closing)
  tokens = parts.actor.rollout.max_new_tokens
  return rows, collect.grid(episodes, ppo.level, parts.env.attempts, tokens, closing)


def _closing(tokenizer, episode, most: int) -> list[int]:
  """The ids after the last response of a truncated episode: a missing <eos>, and the verifier's last message.

  Nothing if they are more than `most`: a message that did not fit ended the episode, and there is no state to value.
  """
  last = episode.turns[-1].reply
  said = episode.chat[-1]
  missing = [] if last.stopped else [tokenizer.eos]
  ids = missing + (message_ids(tokenizer, said) if said.role == "user" else [])
  return ids if len(ids) <= most else []


def _update(parts, ppo, session, batch: PolicyBatch, train_step):
  """Epochs over shuffled minibatches; the order follows from the step. Returns (state, metrics summed over updates)."""
  state, total = session.state, None
  size = parts.config["batch"] // ppo.minibatches
  for epoch in range(ppo.epochs):
    source = np.random.default_rng((parts.config["seed"], session.position.step, epoch))
    order = source.permutation(parts.config["batch"]).astype(np.int32)
    for first in range(0, len(order), size):
      state, metrics = train_step(state, take(batch, order[first : first + size]))
      total = [metrics] if total is None else [*total, metrics]
  return state, runs.add_up(jax.device_get(total))


def _sampler_gap(rows, batch: PolicyBatch) -> dict[str, float]:
  """|log pi by the training graph - by the sampler| over sampled tokens."""
  old_BT = np.asarray(batch.old_logprobs_BT)
  gaps = np.abs(old_BT - rows.sampled_logprobs_BT)[rows.mask_BT > 0]
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
