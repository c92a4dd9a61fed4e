"""A rollout whose responses have scripted lengths: how much of a batch is alive while it decodes."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sftrl_jax.programs.bench import table
from sftrl_jax.programs.bench.measurement import Bench, ScriptedLengths
from sftrl_jax.programs.bench.paired_timing import Work, alternate
from sftrl_jax.programs.bench.rl_iteration import refuse_dropped, response_tokens
from sftrl_jax.programs.bench.workloads import Timed
from sftrl_jax.programs.loop import left_out
from sftrl_jax.programs.loop.rollout_batch import env_seed
from sftrl_jax.programs.start import trainable
from sftrl_jax.rollout.actor import Actor, Compiled
from sftrl_jax.rollout.episodes import play
from sftrl_jax.rollout.policy import policy

UNDIVIDED = "the other side is ours with config.rollout.segment=0: a batch decodes until its longest response ends"


@dataclasses.dataclass(frozen=True)
class Counted(Actor):
  """An actor that counts its work. counts: gets (rows, steps on the devices) of every program that samples."""

  counts: list = dataclasses.field(default_factory=list, compare=False)

  @property
  def compiled(self) -> Compiled:
    """The compiled functions, counted."""
    compiled = super().compiled
    return compiled._replace(turn=self._counted(compiled.turn), segment=self._counted(compiled.segment))

  def _counted(self, function: Callable) -> Callable:
    def call(*arguments: Any, **more: Any) -> tuple:
      cache, sampled = function(*arguments, **more)
      self.counts.append((len(sampled.lengths_B), sampled.steps))
      return cache, sampled

    return call

  def slots(self) -> int:
    """Rows times steps since the last call, which is what decoding pays for."""
    slots = sum(rows * int(steps) for rows, steps in self.counts)
    self.counts.clear()
    return slots


def measure(bench: Bench) -> list[dict]:
  """The lines of a rollout of config.batch episodes, in segments and undivided, in turns."""
  actor = bench.experiment.actor
  if not actor.in_segments:
    bench.say(f"rollout is left out: config.rollout.segment is {actor.rollout.segment}, so that a response of "
              f"{actor.rollout.max_new_tokens} tokens is not divided")
    return []
  lengths = scripted(bench.scripted, actor.rollout.max_new_tokens, bench.experiment.seed)
  alive, counted = {}, {segment: _counted(actor, segment) for segment in (actor.rollout.segment, 0)}
  works = [_work(bench, each, lengths, alive) for each in counted.values()]
  pairs = alternate(*works, bench.pairs)
  tokens, flops = alive["tokens"], alive["flops"]
  shape = f"{bench.experiment.batch}x{actor.rollout.max_new_tokens}"
  line = table.line_of("rollout", shape, Timed(None, tokens, flops), pairs, bench.peak,
                       bench.experiment.model.config.dtype)
  line |= {"alive": alive[actor.rollout.segment], "their_alive": alive[0], "sides": UNDIVIDED}
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


def _counted(actor: Actor, segment: int) -> Counted:
  fields = {field.name: getattr(actor, field.name) for field in dataclasses.fields(Actor)}
  return Counted(**fields | {"rollout": dataclasses.replace(actor.rollout, segment=segment)})


def _work(bench: Bench, actor: Counted, lengths: Callable[[int, int], int], alive: dict) -> Work:
  """Plays the first episodes of the task. alive: gets, by segment, the share of slots that sampled a token."""
  experiment = bench.experiment
  full_params = trainable.full_params_fn(experiment)(bench.params, bench.frozen)
  decoding = experiment.actor.compiled.to_decoding(full_params["model"])
  rows, judging = actor.rollout.rows, left_out.judging(experiment)

  def run() -> None:
    episodes, costs, key = [], [], jax.random.key(experiment.seed)
    for first in range(0, experiment.batch, rows):
      numbers = range(first, min(first + rows, experiment.batch))
      answer = policy(actor, decoding, key, actor.rollout.temperature, numbers, costs, actor.group, lengths)
      played, _ = play(experiment.env, answer, [env_seed(experiment, number) for number in numbers], judging=judging)
      episodes += played
    refuse_dropped(episodes)
    alive["tokens"] = response_tokens(episodes)
    alive[actor.rollout.segment] = alive["tokens"] / actor.slots()
    if actor.rollout.segment:
      alive["flops"] = sum(cost.flops for cost in costs)

  return run
