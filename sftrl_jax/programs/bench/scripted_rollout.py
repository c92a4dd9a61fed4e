"""A rollout whose responses have scripted lengths: how much of a batch is alive while it decodes."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import numpy as np

from sftrl_jax.programs.bench import table
from sftrl_jax.programs.bench.measurement import Bench, ScriptedLengths
from sftrl_jax.programs.bench.paired_timing import Work, alternate
from sftrl_jax.programs.bench.rl_iteration import refuse_dropped
from sftrl_jax.programs.bench.workloads import Timed
from sftrl_jax.programs.loop import left_out
from sftrl_jax.programs.loop.rollout_batch import env_seed
from sftrl_jax.programs.start import trainable
from sftrl_jax.rollout.actor import Actor, Cost
from sftrl_jax.rollout.episodes import Episode, play
from sftrl_jax.rollout.policy import policy
from sftrl_jax.rollout.refill.queue import begin
from sftrl_jax.rollout.refill.slots import Decoding

UNDIVIDED = "the other side is ours with config.rollout.segment=0: a batch decodes until its longest response ends"


def measure(bench: Bench) -> list[dict]:
  """The lines of a rollout of config.batch episodes, in segments or refilled slots and undivided, in turns."""
  actor = bench.experiment.actor
  if not actor.in_segments:
    bench.say(f"rollout is left out: config.rollout.segment is {actor.rollout.segment}, so that a response of "
              f"{actor.rollout.max_new_tokens} tokens is not divided")
    return []
  lengths = scripted(bench.scripted, actor.rollout.max_new_tokens, bench.experiment.seed)
  alive = {}
  sides = (actor, dataclasses.replace(actor, rollout=dataclasses.replace(actor.rollout, segment=0, refill=False)))
  pairs = alternate(*(_work(bench, side, lengths, alive) for side in sides), bench.pairs)
  cost = alive[actor]
  tokens, undivided = cost.live, alive[sides[1]]
  shape = f"{bench.experiment.batch}x{actor.rollout.max_new_tokens}"
  line = table.line_of("rollout", shape, Timed(None, tokens, cost.flops), pairs, bench.peak,
                       bench.experiment.model.config.dtype)
  line |= {"alive": cost.live / cost.computed, "their_alive": undivided.live / undivided.computed, "sides": UNDIVIDED}
  line["note"] = (f"{tokens / bench.experiment.batch:.1f} tokens an episode; slots alive {line['alive']:.0%}, "
                  f"undivided {line['their_alive']:.0%}")
  bench.say(table.describe_line(line))
  return [line]


def scripted(section: ScriptedLengths, longest: int, seed: int) -> Callable[[int, int], int]:
  """(episode, turn) -> tokens of a response, 1 to `longest`: lognormal, the same ones for a seed."""
  mean = section.mean or longest / 5
  centre = math.log(mean) - section.sigma**2 / 2   # so that `mean` is the mean of the distribution

  def length(episode: int, turn: int) -> int:
    generator = np.random.default_rng((seed, episode, turn))
    return int(min(max(round(generator.lognormal(centre, section.sigma)), 1), longest))

  return length


def _work(bench: Bench, actor: Actor, lengths: Callable[[int, int], int], alive: dict[Actor, Cost]) -> Work:
  """Plays the first episodes of the task. alive: gets the cost of all of them."""
  experiment = bench.experiment
  full_params = trainable.full_params_fn(experiment)(bench.params, bench.frozen)
  decoding = experiment.actor.compiled.to_decoding(full_params["model"])
  judging, key = left_out.judging(experiment), jax.random.key(experiment.seed)
  together = experiment.batch if actor.rollout.refill else actor.rollout.rows

  def played(numbers: range, costs: list[Cost]) -> list[Episode]:
    seeds, temperature = [env_seed(experiment, number) for number in numbers], actor.rollout.temperature
    if actor.rollout.refill:
      slots = Decoding(actor, decoding, key, temperature, costs, lengths)
      return begin(experiment.env, slots, numbers, seeds, actor.group, judging=judging)()[0]
    answer = policy(actor, decoding, key, temperature, numbers, costs, actor.group, lengths)
    return play(experiment.env, answer, seeds, judging=judging)[0]

  def run() -> None:
    episodes, costs = [], []
    for first in range(0, experiment.batch, together):
      episodes += played(range(first, min(first + together, experiment.batch)), costs)
    refuse_dropped(episodes)
    alive[actor] = functools.reduce(Cost.__add__, costs)

  return run
