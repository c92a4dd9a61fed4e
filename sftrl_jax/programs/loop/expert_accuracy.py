"""How often the greedy response is right at the states of the expert's own walk, one response a state.

The states are chats of many lengths, which no turn of a rollout reads at once: one more program, of an actor whose
episodes have one turn and whose prompt has room for the longest of the chats.
"""

import dataclasses
import functools
import json
from collections.abc import Callable

from sftrl_jax.envs.env import Env
from sftrl_jax.envs.expert_states import ExpertStates, Place, walk
from sftrl_jax.envs.guard import OutOfTime, time_limit
from sftrl_jax.envs.referee import EpisodeError
from sftrl_jax.parallel import hosts
from sftrl_jax.programs.experiment.environment import has_reward_model, variant_env
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.rollout.actor import Actor
from sftrl_jax.rollout.episodes import Episode
from sftrl_jax.rollout.tally import count_parts
from sftrl_jax.text.render import render
from sftrl_jax.text.tokenizer import Tokenizer

Play = Callable[[Actor, Env, range], list[Episode]]   # greedy episodes of these seeds


def actors(experiment: Experiment) -> list[Actor]:
  """The Actor whose shapes are compiled besides those of the run's own; none where nothing is measured by it."""
  evals = experiment.evals
  return [_actor(experiment)] if evals.expert_episodes and evals.variants else []


def measure(experiment: Experiment, variant: str, play: Play) -> tuple[dict, list[Episode]]:
  """({"expert_accuracy", "expert_states"} of a variant, an episode of one response a state).

  Where verdicts have parts, "expert_parts" has those of these responses: {part: (right, responses that have it)}.

  A state that has no right response for whatever reason counts as not right, like an episode of an evaluation.
  """
  states = ExpertStates(experiment.env_variant(variant), _places(experiment)[0][variant])
  episodes = play(_actor(experiment), states, range(len(states.places)))
  right = sum(bool(episode.turns) and episode.turns[-1].verdict.correct for episode in episodes)
  parts = count_parts(turn for episode in episodes for turn in episode.turns)
  line = {"expert_accuracy": right / max(1, len(episodes)), "expert_states": len(episodes)}
  return line | ({"expert_parts": parts} if parts else {}), episodes


def _actor(experiment: Experiment) -> Actor:
  longest = max(1, min(_places(experiment)[1], experiment.actor.row_len()))
  rollout = dataclasses.replace(experiment.actor.rollout, prompt_tokens=longest, shrink=())
  return dataclasses.replace(experiment.actor, rollout=rollout, turns=1, group=1)


def _places(experiment: Experiment) -> tuple[dict[str, tuple[Place, ...]], int]:
  """({variant: places of its states}, tokens of the longest chat)."""
  evals, config = experiment.evals, experiment.config
  settings = json.dumps([{**config["env"], **evals.env}, config["reward"], config["own_reward"],
                         has_reward_model(config)], sort_keys=True)
  return _walked(experiment.tokenizer, settings, tuple(evals.variants), range(
      evals.seed, evals.seed + min(evals.expert_episodes, evals.episodes)), config["verdict_seconds"])


@functools.lru_cache(maxsize=2)   # the same at every evaluation of a run
def _walked(tokenizer: Tokenizer, settings: str, variants: tuple[str, ...], seeds: range, seconds: float
            ) -> tuple[dict[str, tuple[Place, ...]], int]:
  """`_places`; the first process walks, so that all play the same states. A walk ends before a state that fails, but
  its first state is always there, so that it is counted with its trouble."""

  def walk_all() -> list:
    counts, longest = {}, 0
    for variant in variants:
      env, *rewards = json.loads(settings)
      env = variant_env(env, variant, *rewards)
      lengths = [_lengths(tokenizer, env, seed, seconds) for seed in seeds]
      counts[variant] = [len(of_seed) for of_seed in lengths]
      longest = max([longest, *(length for of_seed in lengths for length in of_seed)])
    return [counts, longest]

  counts, longest = hosts.led_by_first(walk_all)
  return {variant: tuple(Place(seed, number) for seed, count in zip(seeds, counts[variant], strict=True)
                         for number in range(max(1, count))) for variant in variants}, longest


def _lengths(tokenizer: Tokenizer, env: Env, seed: int, seconds: float) -> list[int]:
  """Tokens of the chat at each state of a walk; 0 for a chat that has no ids."""
  lengths, states = [], walk(env, seed)
  while True:
    try:
      with time_limit(seconds):
        _, chat = next(states)
    except (StopIteration, EpisodeError, OutOfTime):
      return lengths
    try:
      lengths.append(len(render(tokenizer, chat)[0]))
    except ValueError:   # a word that the tokenizer does not know, say
      lengths.append(0)
