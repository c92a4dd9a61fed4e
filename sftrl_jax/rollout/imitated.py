"""What of an episode is imitated, as an episode: its own right responses, or the expert's at a state that it came to.

What is not imitated becomes what was read before, so that rows of these episodes have their mask on targets alone.
"""

import dataclasses
import random
from typing import Any

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs.env import Env
from sftrl_jax.envs.referee import EpisodeError, RewardFnEnv
from sftrl_jax.rollout.episodes import Episode, Response
from sftrl_jax.text.render import response as response_ids
from sftrl_jax.text.tokenizer import Tokenizer


def correct_responses(episode: Episode) -> Episode:
  """The episode without the responses that the verifier does not call correct, but as what was read before others."""
  turns = []
  for row in episode.rows:
    before, begins_row = (), bool(turns)
    for turn in row:
      context = (*before, *turn.response.context)
      if not turn.verdict.correct:
        before = (*context, *turn.response.tokens)
        continue
      response = dataclasses.replace(turn.response, context=context, begins_row=begins_row)
      turns.append(dataclasses.replace(turn, response=response))
      before, begins_row = (), False
  return dataclasses.replace(episode, turns=tuple(turns))


def expert_response(env: Env, tokenizer: Tokenizer, most: int, episode: Episode) -> Episode:
  """The episode up to one of its states, drawn by its seed, with the expert's response there in place of its own.

  most: tokens of a response; ValueError for an expert that has more. An episode that cannot be played again has no turn
  """
  if not episode.turns:
    return episode
  source = random.Random(f"{episode.seed} dagger")
  place = source.randrange(len(episode.turns))
  env = env.env if isinstance(env, RewardFnEnv) else env   # whose function has given its rewards already
  try:
    state, chat = replay(env, episode, place)
  except EpisodeError:
    return dataclasses.replace(episode, turns=())
  tokens, before = expert_tokens(env, tokenizer, most, state, chat), ()
  row = next(row for row in episode.rows if any(turn is episode.turns[place] for turn in row))
  for turn in row:
    before += turn.response.context
    if turn is episode.turns[place]:
      break
    before += turn.response.tokens
  response = Response(tokenizer.decode(tokens), before, tokens, (0.0,) * len(tokens))
  return dataclasses.replace(episode, turns=(dataclasses.replace(turn, response=response),))


def replay(env: Env, episode: Episode, responses: int) -> tuple[Any, Chat]:
  """(state, chat to answer) after so many of the episode's responses. Raises what reset and step raise."""
  state, chat = env.reset(episode.seed)
  for turn in episode.turns[:responses]:
    try:
      state, verdict = env.step(state, turn.response.text)
    except EpisodeError as error:
      if error.after is None:
        raise
      state, verdict = error.after
    chat = verdict.chat
  return state, chat


def expert_tokens(env: Env, tokenizer: Tokenizer, most: int, state: Any, chat: Chat) -> tuple[int, ...]:
  """The ids of the expert's response to a chat, its end included. ValueError for more than `most`."""
  tokens = tuple(response_ids(tokenizer, (*chat, Message("assistant", env.expert(state)))))
  if len(tokens) > most:
    raise ValueError(f"config.rollout.max_new_tokens is {most}, but a response of the expert has {len(tokens)} tokens, "
                     f"which is imitated whole: use --config.rollout.max_new_tokens={len(tokens)} or more.")
  return tokens
