"""The algorithms of `sftrl rl` and all their differences. programs/rl.py is what they share."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import Mesh

from sftrl_jax.envs.env import Env, verifies
from sftrl_jax.envs.referee import EpisodeError
from sftrl_jax.objectives.groups import GroupConfig
from sftrl_jax.objectives.grpo import GRPOConfig, grpo_loss
from sftrl_jax.objectives.imitation.distill import DistillConfig, distill_loss
from sftrl_jax.objectives.imitation.responses import DAggerConfig, SelfSFTConfig, imitation_loss
from sftrl_jax.objectives.ppo import PPOConfig, ppo_loss
from sftrl_jax.objectives.reinforce_plus_plus import ReinforcePlusPlusConfig, reinforce_plus_plus_loss
from sftrl_jax.objectives.returns import group_relative, leave_one_out
from sftrl_jax.objectives.rloo import RLOOConfig, rloo_loss
from sftrl_jax.parallel.mesh import refuse_uneven
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.collect import Grid, Outcomes, Rows
from sftrl_jax.rollout.config import RolloutConfig
from sftrl_jax.rollout.episodes import Episode, Response
from sftrl_jax.rollout.imitated import (
  correct_responses,
  demonstration,
  expert_response,
  expert_tokens,
  refuse_long,
)
from sftrl_jax.text.render import continued, later_messages, render
from sftrl_jax.training.advantages import (
  imitation_batch,
  make_advantages,
  make_group_advantages,
  make_return_advantages,
)

DISTILL = "distill"   # the algorithm, and the loss of SFT, that learn from config.teacher
PROBED = 8   # first states whose expert is asked before a run begins


@dataclasses.dataclass(frozen=True)
class Algorithm:
  """One algorithm.

  section: the class of its section of a config; below, `config` is an instance of it
  outcomes: (experiment, config, episodes, padding_episodes) -> what `advantages` reads besides the rows, computed on
    the host; the last `padding_episodes` episodes only fill the batch
  advantages: config -> a function (scored, rows, outcomes) -> (batch, metrics), to be jitted
  loss: (config, score, experiment) -> a function (params, batch) -> (Mean, metrics)
  value_head: whether the algorithm trains a value function
  compares: whether the loss compares with the policy that played; else nothing is scored before the updates
  imitated: (experiment, episode) -> the episode with what of it is imitated, in the place of what was sampled; None
    where the policy learns from what it has sampled
  check: experiment -> None; ValueError where its environment cannot say what the algorithm needs
  """

  section: type
  outcomes: Callable
  advantages: Callable
  loss: Callable
  value_head: bool
  compares: bool = True
  imitated: Callable[[Any, Episode], Episode] | None = None
  check: Callable[[Any], None] = lambda experiment: None


def rows_of(experiment: Any, config: Any, episodes: Sequence[Episode], length: int) -> Rows:
  """Rows of `length` tokens, one an episode or several (rollout.collect.Rows), ids exactly as sampled.

  Where rows share prompts (experiment.shared_prompts) these are not among their tokens.
  """
  shared = experiment.shared_prompts
  if experiment.algorithm.imitated:
    episodes = [experiment.algorithm.imitated(experiment, episode) for episode in episodes]
  rows = collect.rows(episodes, length + (shared.prompt if shared else 0),
                      _bootstrap_tokens(experiment, config, episodes), experiment.actor.episode_rows,
                      _weigh(experiment, config), experiment.tokenizer.reader, experiment.prefix_tokens)
  return collect.sharing_prompts(rows, episodes, shared.prompt, shared.group) if shared else rows


def _weigh(experiment: Any, config: Any) -> Callable[[Response], Sequence[float]] | None:
  """From a response to the weights of its tokens; None where they are all 1."""
  if getattr(config, "thought_weight", 1.0) == 1.0:
    return None

  def weigh(response: Response) -> Sequence[float]:
    start, count = experiment.env.action_start(response.text), len(response.tokens)
    # An end id has no text, so a response without an action would otherwise end in a thought that is no thought.
    thought = collect.thought_tokens(experiment.tokenizer.decode, response.tokens, start) if start else 0
    return [config.thought_weight] * thought + [1.0] * (count - thought)

  return weigh


def _grid(experiment, config: PPOConfig | ReinforcePlusPlusConfig, episodes, padding_episodes: int = 0) -> Grid:
  tokens = experiment.actor.rollout.max_new_tokens
  return collect.grid(episodes, getattr(config, "level", "token"), experiment.env.attempts, tokens,
                      _bootstrap_tokens(experiment, config, episodes))


def _no_outcomes(experiment, config, episodes, padding_episodes: int = 0) -> tuple[()]:
  return ()


def _outcomes(experiment, config: GroupConfig, episodes, padding_episodes: int = 0) -> Outcomes:
  return collect.outcomes(
      episodes, turn_gamma=config.turn_gamma, mask=config.truncated == "mask", padding_episodes=padding_episodes,
      longest=experiment.actor.rollout.max_new_tokens, buffer=config.overlong_buffer, penalty=config.overlong_penalty)


def _refuse_unverified(experiment) -> None:
  if not verifies(experiment.env):
    raise ValueError("config.algorithm is 'self_sft', which learns from responses that the environment calls correct, "
                     f"but {experiment.config['env']['name']} says so of none: choose another config.env.name, or use "
                     "--config.algorithm=ppo.")


def _expert_response(experiment, episode: Episode) -> Episode:
  return expert_response(experiment.env, experiment.tokenizer, experiment.actor.rollout.max_new_tokens, episode)


def _refuse_long_experts(experiment) -> None:
  """Of the first states; an episode that reset does not give is counted later."""
  for number in range(PROBED):
    with contextlib.suppress(EpisodeError):
      expert_tokens(experiment.env, experiment.tokenizer, experiment.actor.rollout.max_new_tokens,
                    *experiment.env.reset(f"{experiment.seed} {number}"))


def _refuse_demonstrations(experiment) -> None:
  """Of the first states, half of which may have none, or a long one: a run leaves these out."""
  if not experiment.prefix_tokens:
    return
  lengths, errors = [], []
  for number in range(PROBED):
    with contextlib.suppress(EpisodeError):
      state, chat = experiment.env.reset(f"{experiment.seed} {number}")
      try:
        ids, _ = render(experiment.tokenizer, chat)
        lengths.append(len(demonstration(experiment.env, experiment.tokenizer, state, chat, ids)[0]))
      except ValueError as error:
        errors.append(error)
  if len(errors) + sum(length > experiment.prefix_tokens for length in lengths) <= min(
      PROBED // 2, experiment.config["max_dropped"]):
    return
  refuse_long(max(lengths, default=0), experiment.prefix_tokens)
  raise ValueError(f"config.teacher.demonstration is 'expert', but there is none to read: {errors[0]}")


ALGORITHMS = {
    # A value function for every token or turn: advantages by GAE.
    "ppo": Algorithm(
        PPOConfig, _grid, make_advantages, value_head=True,
        loss=lambda config, score, experiment: functools.partial(
            ppo_loss, ppo=config, score=score, turns=experiment.actor.row_turns)),
    # PPO's tokens with rewards from each on in the place of a value function.
    "reinforce_plus_plus": Algorithm(
        ReinforcePlusPlusConfig, _grid, make_return_advantages, value_head=False,
        loss=lambda config, score, experiment: functools.partial(
            reinforce_plus_plus_loss, config=config, score=score)),
    # An episode against the mean of its group, clipped token by token.
    "grpo": Algorithm(
        GRPOConfig, _outcomes, value_head=False,
        advantages=lambda config: make_group_advantages(
            config, functools.partial(group_relative, group=config.group, scale=config.scale), config.kl == "reward"),
        loss=lambda config, score, experiment: functools.partial(
            grpo_loss, grpo=config, score=score, rows=experiment.actor.episode_rows,
            longest=experiment.env.attempts * experiment.actor.rollout.max_new_tokens)),
    # An episode, which is one action, against the mean of the others in its group.
    "rloo": Algorithm(
        RLOOConfig, _outcomes, value_head=False,
        advantages=lambda config: make_group_advantages(
            config, functools.partial(leave_one_out, group=config.group), kl_in_reward=True),
        loss=lambda config, score, experiment: functools.partial(
            rloo_loss, rloo=config, score=score, rows=experiment.actor.episode_rows)),
    # Its own responses, as far as they are right.
    "self_sft": Algorithm(
        SelfSFTConfig, _no_outcomes, lambda config: imitation_batch, value_head=False, compares=False,
        loss=lambda config, score, experiment: functools.partial(imitation_loss, score=score),
        imitated=lambda experiment, episode: correct_responses(episode), check=_refuse_unverified),
    # The expert's response at a state of each episode.
    "dagger": Algorithm(
        DAggerConfig, _no_outcomes, lambda config: imitation_batch, value_head=False, compares=False,
        loss=lambda config, score, experiment: functools.partial(imitation_loss, score=score),
        imitated=_expert_response, check=_refuse_long_experts),
    # A teacher's distribution at every token that it has sampled.
    DISTILL: Algorithm(
        DistillConfig, _no_outcomes, lambda config: imitation_batch, value_head=False, compares=False,
        loss=lambda config, score, experiment: functools.partial(distill_loss, score=score),
        check=_refuse_demonstrations),
}


def group_of(config: Any) -> int:
  """The number of episodes that begin with the same state."""
  return config.group if isinstance(config, GroupConfig) else 1


def needs_bootstrap(config: Any) -> bool:
  """Whether rows hold the verifier's message after an episode that was truncated, for the value of that state."""
  return isinstance(config, PPOConfig) and config.truncation == "bootstrap"


def learns_by_advantages_alone(config: Any) -> bool:
  """Whether no other term of the loss moves the policy: neither a bonus for entropy nor a KL in the loss."""
  kl_in_loss = config.kl_coef and getattr(config, "kl", "reward") == "loss"   # RLOO has it in the reward
  return not kl_in_loss and not getattr(config, "entropy_coef", 0.0)


def reads_whole_episodes(config: Any) -> bool:
  """Whether a loss reads the rows of an episode together; else each row may be in any microbatch."""
  return getattr(config, "mean", "") == "sequence" or getattr(config, "ratio", "") == "sequence"


def check(name: str, config: Any, batch: int, microbatches: int, rollout: RolloutConfig, mesh: Mesh,
          episode_rows: int = 1) -> None:
  """ValueError unless the batch can be cut by the section's numbers and the mesh can split it.

  batch: episodes, each of so many rows
  """
  pieces, cut = config.minibatches, f"batch / {name}.minibatches"
  refuse_indivisible("batch", batch, f"{name}.minibatches", pieces)
  refuse_uneven(cut, batch // pieces, mesh)
  units, of_rows = batch // pieces, "" if episode_rows == 1 else f" x {episode_rows} rows"
  if not reads_whole_episodes(config):
    units, cut = units * episode_rows, f"{cut}{of_rows}"
  refuse_indivisible(cut, units, "compute.microbatches", microbatches)
  refuse_uneven(f"{cut} / compute.microbatches", units // microbatches, mesh)
  if isinstance(config, GroupConfig):
    refuse_indivisible("batch", batch, f"{name}.group", config.group)
    refuse_indivisible("rollout.rows", rollout.rows, f"{name}.group", config.group)
    refuse_uneven(f"rollout.rows / {name}.group", rollout.rows // config.group, mesh)
    if config.overlong_buffer > rollout.max_new_tokens:
      raise ValueError(f"config.{name}.overlong_buffer is {config.overlong_buffer}; it must be at most "
                       f"config.rollout.max_new_tokens = {rollout.max_new_tokens}.")


def refuse_thought(name: str, config: Any, env: Env) -> None:
  """ValueError where thought has a weight of its own, but the environment does not say what is thought."""
  weight = getattr(config, "thought_weight", 1.0)
  if weight != 1 and not callable(getattr(env, "action_start", None)):
    raise ValueError(f"config.{name}.thought_weight is {weight}, but this environment has no action_start(response): "
                     f"write it (envs/env.py describes its return value), or use --config.{name}.thought_weight=1.")


def refuse_indivisible(name: str, value: int, by_name: str, by: int) -> None:
  """ValueError unless config.<by_name> divides config.<name>."""
  if value % by:
    raise ValueError(f"config.{by_name} is {by}; it must divide config.{name} = {value}.")


def _bootstrap_tokens(experiment, config, episodes) -> list[Sequence[int]]:
  """For each episode the ids after its last response; () where the value of that state is not needed."""
  needed = needs_bootstrap(config)
  return [_closing_tokens(experiment, episode) if needed and episode.truncated else () for episode in episodes]


def _closing_tokens(experiment, episode: Episode) -> list[int]:
  """The ids after the last response of a truncated episode: a missing <eos>, and the verifier's last message.

  [] if they are more than fit, or if they are of a chat that was not answered: a text that did not fit ended the
  episode, and there is no state to value.
  """
  if not episode.turns[-1].verdict.truncated or any(message.image is not None
                                                    for message in later_messages(episode.chat)):
    return []
  closed = episode.turns[-1].response.tokens[-1:] == (experiment.tokenizer.eos,)   # not by another end id
  ids = ([] if closed else [experiment.tokenizer.eos]) + continued(experiment.tokenizer, episode.chat)
  return ids if len(ids) <= experiment.actor.rollout.feedback_tokens + 1 else []
