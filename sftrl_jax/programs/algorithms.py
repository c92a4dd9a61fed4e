"""The methods of `sftrl rl`, and all in which they differ. What they share is programs/rl.py."""

import dataclasses
import functools
from collections.abc import Callable

from sftrl_jax.objectives.groups import Groups
from sftrl_jax.objectives.grpo import GRPO, grpo_loss
from sftrl_jax.objectives.ppo import PPO, ppo_loss
from sftrl_jax.objectives.returns import group_relative, leave_one_out
from sftrl_jax.objectives.rloo import RLOO, rloo_loss
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.programs.mistakes import ConfigError
from sftrl_jax.rollout import collect
from sftrl_jax.text.render import continued
from sftrl_jax.training.experience import make_group_prepare, make_prepare


@dataclasses.dataclass(frozen=True)
class Algorithm:
  """One method. A section is its part of the config, built.

  section: the class of its section
  arrays: (parts, section, episodes, length, fillers) -> what `prepare` reads, on the host; the last `fillers` episodes
    only fill the batch
  prepare: (section, score, pieces) -> a function (params, ref, *arrays) -> (batch, metrics)
  loss: (section, score, parts) -> a function (params, batch) -> (Mean, metrics)
  value_head: whether it learns a value function
  """

  section: type
  arrays: Callable
  prepare: Callable
  loss: Callable
  value_head: bool


def _grids(parts, ppo: PPO, episodes, length: int, fillers: int = 0):
  """(Rows, Grid). What was said after a truncated episode is read only if its value is wanted."""
  closing = [_closing(parts, episode) if closes(ppo) and episode.truncated else () for episode in episodes]
  rows = collect.rows(episodes, length, closing)
  tokens = parts.actor.rollout.max_new_tokens
  return rows, collect.grid(episodes, ppo.level, parts.env.attempts, tokens, closing)


def _outcomes(parts, section: Groups, episodes, length: int, fillers: int = 0):
  """(Rows, Outcomes)."""
  return collect.rows(episodes, length, [()] * len(episodes)), collect.outcomes(
      episodes, turn_gamma=section.turn_gamma, mask=section.truncated == "mask", fillers=fillers,
      longest=parts.actor.rollout.max_new_tokens, buffer=section.overlong_buffer, penalty=section.overlong_penalty)


ALGORITHMS = {
    # A value function judges every token or turn: advantages by GAE.
    "ppo": Algorithm(
        PPO, _grids, value_head=True,
        prepare=lambda ppo, score, pieces: make_prepare(score, ppo, pieces),
        loss=lambda ppo, score, parts: functools.partial(ppo_loss, ppo=ppo, score=score, turns=parts.env.attempts)),
    # The mean of its group judges an episode, clipped token by token.
    "grpo": Algorithm(
        GRPO, _outcomes, value_head=False,
        prepare=lambda grpo, score, pieces: make_group_prepare(
            score, grpo, pieces, kl_in_reward=grpo.kl == "reward",
            advantages=functools.partial(group_relative, group=grpo.group, scale=grpo.scale)),
        loss=lambda grpo, score, parts: functools.partial(
            grpo_loss, grpo=grpo, score=score, longest=parts.env.attempts * parts.actor.rollout.max_new_tokens)),
    # The mean of the others judges an episode, which is one action.
    "rloo": Algorithm(
        RLOO, _outcomes, value_head=False,
        prepare=lambda rloo, score, pieces: make_group_prepare(
            score, rloo, pieces, kl_in_reward=True, advantages=functools.partial(leave_one_out, group=rloo.group)),
        loss=lambda rloo, score, parts: functools.partial(rloo_loss, rloo=rloo, score=score)),
}


def group_of(section) -> int:
  """How many episodes begin alike."""
  return section.group if isinstance(section, Groups) else 1


def closes(section) -> bool:
  """Whether rows hold what was said after an episode that was truncated."""
  return isinstance(section, PPO) and section.truncation == "bootstrap"


def check(name: str, section, batch: int, microbatches: int, rollout, mesh) -> None:
  """ConfigError unless the batch can be cut as the section says; ValueError for what the mesh cannot split."""
  pieces, cut = section.minibatches, f"batch / {name}.minibatches"
  _divides("batch", batch, f"{name}.minibatches", pieces)
  _divides(cut, batch // pieces, "compute.microbatches", microbatches)
  meshes.refuse_uneven(cut, batch // pieces, mesh)
  meshes.refuse_uneven(f"{cut} / compute.microbatches", batch // pieces // microbatches, mesh)
  if isinstance(section, Groups):
    _divides("batch", batch, f"{name}.group", section.group)
    _divides("rollout.rows", rollout.rows, f"{name}.group", section.group)
    meshes.refuse_uneven(f"rollout.rows / {name}.group", rollout.rows // section.group, mesh)
    if section.overlong_buffer > rollout.max_new_tokens:
      raise ConfigError(f"config.{name}.overlong_buffer is {section.overlong_buffer}; it must be at most "
                        f"config.rollout.max_new_tokens = {rollout.max_new_tokens}.")


def _divides(name: str, value: int, by_name: str, by: int) -> None:
  if value % by:
    raise ConfigError(f"config.{by_name} is {by}; it must divide config.{name} = {value}.")


def _closing(parts, episode) -> list[int]:
  """The ids after the last response of a truncated episode: a missing <eos>, and the verifier's last message.

  Nothing if they are more than fit: a message that did not fit ended the episode, and there is no state to value.
  """
  closed = episode.turns[-1].reply.tokens[-1:] == (parts.tokenizer.eos,)   # not by another end id
  ids = ([] if closed else [parts.tokenizer.eos]) + continued(parts.tokenizer, episode.chat)
  return ids if len(ids) <= parts.actor.rollout.feedback_tokens + 1 else []
