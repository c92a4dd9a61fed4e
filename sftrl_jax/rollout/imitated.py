"""What of an episode is imitated, as an episode: its own right responses, or the expert's at a state that it came to.

What is not imitated becomes what was read before, so that rows of these episodes have their mask on targets alone. And
what a teacher reads of the expert before an episode, whose responses it judges token by token.
"""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs.env import Env
from sftrl_jax.envs.referee import EpisodeError, RewardFnEnv
from sftrl_jax.rollout.episodes import DROPPED, Episode, Response, Trouble
from sftrl_jax.text.render import preceding, response as response_ids
from sftrl_jax.text.tokenizer import Tokenizer

UNDEMONSTRATED = f"{DROPPED}demonstration"


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
  env = _unrewarded(env)
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


def with_demonstrations(env: Env, tokenizer: Tokenizer, most: int, episodes: Sequence[Episode]) -> list[Episode]:
  """The episodes with what a teacher reads before each of their rows: the row's own prompt with the expert's response
  to it, an earlier exchange of the same chat.

  most: tokens of such a prefix. An episode that has none, or a longer one, is left out (dropped/demonstration)
  """
  env = _unrewarded(env)
  return [_demonstrated(env, tokenizer, most, episode) for episode in episodes]


def _demonstrated(env: Env, tokenizer: Tokenizer, most: int, episode: Episode) -> Episode:
  prefixes, before = [], 0
  try:
    for row in episode.rows if episode.turns else ():
      shown = demonstration(env, tokenizer, *replay(env, episode, before), row[0].response.context)
      refuse_long(len(shown[0]), most)
      prefixes.append(shown)
      before += len(row)
  except ValueError as error:   # EpisodeError among them
    return dataclasses.replace(episode, turns=(), truncated=False, trouble=Trouble(UNDEMONSTRATED, str(error)))
  return dataclasses.replace(episode, prefixes=tuple(prefixes))


def demonstration(env: Env, tokenizer: Tokenizer, state: Any, chat: Chat, ids: Sequence[int]
                  ) -> tuple[list[int], int]:
  """(ids that a teacher reads before a row, first ids of the row that it skips). The row begins with the chat to answer
  in this state, rendered as `ids`."""
  return preceding(tokenizer, (*chat, Message("assistant", env.expert(state))), chat, ids)


def refuse_long(tokens: int, most: int) -> None:
  """ValueError for a demonstration of more than `most` tokens."""
  if tokens > most:
    raise ValueError(f"config.teacher.demonstration_tokens is {most}, but a prompt with the expert's response has "
                     f"{tokens} tokens: use --config.teacher.demonstration_tokens={tokens} or more.")


def _unrewarded(env: Env) -> Env:
  """The environment below a reward function, which has given its rewards already."""
  return env.env if isinstance(env, RewardFnEnv) else env


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
