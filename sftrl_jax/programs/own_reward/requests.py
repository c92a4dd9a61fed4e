"""What a function of TRL's form is called with: keyword arguments, each a list with an entry a response.

Responses stand in the order of episodes and of their turns. The arguments are

  prompts: what was answered, a list of messages {"role", "content"}; a text where every prompt of the data set is one
  completions: the response, [{"role": "assistant", "content": text}]; its text where prompts are texts
  completion_ids: its sampled ids
  each column of the environment (env.columns), but prompt, completion and completion_ids; null where a row has none
"""

import json
from collections.abc import Iterator, Sequence

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs.referee import TaskError
from sftrl_jax.programs.own_reward.calls import GIVEN
from sftrl_jax.rollout.episodes import Episode, Turn

NOT_COLUMNS = ("prompt", "completion", *GIVEN)


def answered(episode: Episode) -> Iterator[tuple[Chat, Turn]]:
  """(the chat that was answered, the turn) of every turn."""
  messages, start, place = (*episode.earlier, *episode.chat), 0, episode.asked
  for number, turn in enumerate(episode.turns):
    if number:
      start = place if turn.response.begins_row else start
      reply = Message("assistant", turn.response.text)
      place = messages.index(reply, place)
    yield messages[start:place], turn
    place += 1


def request_of(entries: Sequence[tuple[Chat, str, Sequence[int], dict]], plain: bool) -> dict:
  """The keyword arguments of a call, see above. entries: (chat, response, its ids, columns). TaskError for a column
  that JSON does not hold."""
  names = dict.fromkeys(name for *_, columns in entries for name in columns if name not in NOT_COLUMNS)
  if plain:
    asked = {"prompts": [chat[-1].text for chat, *_ in entries], "completions": [text for _, text, *_ in entries]}
  else:
    asked = {"prompts": [[_message(message) for message in chat] for chat, *_ in entries],
             "completions": [[{"role": "assistant", "content": text}] for _, text, *_ in entries]}
  request = {**asked, "completion_ids": [list(map(int, ids)) for *_, ids, _ in entries],
             **{name: [columns.get(name) for *_, columns in entries] for name in names}}
  for name in names:
    try:
      json.dumps(request[name])
    except (TypeError, ValueError) as error:
      raise TaskError(f"The column {name!r} of the environment has a value that JSON does not hold ({error}): let "
                      "columns(state) give texts, numbers, lists and dicts.") from error
  return request


def _message(message: Message) -> dict:
  return dict(message.fields) if message.fields else {"role": message.role, "content": message.text}
