"""A model as a policy: chats in, responses out, the cache carried from turn to turn.

All shapes are known beforehand (rollout/actor.py). Conversations that begin alike, as those of a group do, read their
prompt once.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sftrl_jax.chat import Chat, continues
from sftrl_jax.inputs import left_pad
from sftrl_jax.models.cache import Cache
from sftrl_jax.parallel import hosts
from sftrl_jax.rollout.actor import Actor, Cost
from sftrl_jax.rollout.episodes import Ended, Policy, Response, Trouble
from sftrl_jax.rollout.fitting import group_pictures, group_prompts, later_ids
from sftrl_jax.rollout.segments import SampledResponse, TurnBatch, between_turns, sample_turn, smallest_size
from sftrl_jax.text.images import Pictures
from sftrl_jax.text.render import later_messages, pictures

Lengths = Callable[[int, int], int]   # (episode, turn) -> tokens of its response


@dataclasses.dataclass(frozen=True)
class Memory:
  """What a policy keeps between two turns of the same conversations, those of this process."""

  turn: int
  cache: Cache | None  # None when it is not carried; the next turn takes it over
  columns: int  # of the cache that are written
  slots: tuple[int, ...]  # rows of these conversations
  ids: tuple[tuple[int, ...], ...]  # of every conversation so far: contexts and responses
  episodes: tuple[int, ...]
  rows: int  # rows of the compiled shape, dead ones included
  answered: tuple[tuple[Chat, str], ...] = ()  # chats and responses, where the environment rewrites its prompt


def policy(actor: Actor, params: dict, key: jax.Array, temperature: float, episodes: Sequence[int],
           rollout_costs: list[Cost] | None = None, group: int = 1, lengths: Lengths | None = None) -> Policy:
  """A Policy (rollout/episodes.py) that answers with `params`, which are decoding parameters.

  Of several processes each answers the chats of its own rows. All call it equally often, with no chats if need be
  (rollout/exchange.py), because the compiled turn runs on all devices.
  episodes: a number for each of the first call's chats, from which its random keys are folded.
  rollout_costs: the Cost of every turn is appended to it.
  group: so many of the first call's chats, standing together, are the same; 1, or the actor's group, which is compiled.
  lengths: scripted lengths of responses, to measure with: stop tokens then end none. `compile_all` does not know them.
  """

  def answer(chats: Sequence[Chat | None], kept: Sequence[int] | None, memory: Memory | None, ended: Ended
             ) -> tuple[list[Response], Memory]:
    reading = (_first_reading(actor, chats, episodes, group) if kept is None else
               _next_reading(actor, chats, kept, memory))
    batch = _batch(actor, reading, key, temperature, lengths)
    responses, memory, cost = _turn(actor, params, reading, batch, ended)
    if rollout_costs is not None:
      rollout_costs.append(cost)
    return responses, memory

  return answer


@dataclasses.dataclass(frozen=True)
class _Reading:
  """What this process's conversations read in one turn."""

  turn: int
  rows: int  # of the compiled shape
  columns: int  # of the cache that are written
  slots: tuple[int, ...]  # rows of the conversations
  contexts: list[list[int]]  # new ids of every conversation
  last_tokens: list[list[int]]  # ids read before them: the last sampled one, or with carry off the whole chat
  ids: list[tuple[int, ...]]  # of every conversation so far
  episodes: tuple[int, ...]
  cache: Cache | None
  refused: list[Trouble | None]  # why a conversation is not answered
  chats: Sequence[Chat | None]
  begins_row: list[bool]  # whether the chat is another one than that answered before
  images: list[Pictures]  # in the contexts
  all_images: list[Pictures]  # in all that is read: contexts, and with carry off the whole chat
  group: int = 1  # conversations that stand together and read the same


def _first_reading(actor: Actor, chats: Sequence[Chat | None], episodes: Sequence[int], group: int) -> _Reading:
  if len(chats) > len(actor.share.slots(actor.rollout.rows)):
    raise ValueError(f"{len(chats)} conversations do not fit into config.rollout.rows = {actor.rollout.rows}.")
  contexts, refused = group_prompts(actor.tokenizer, chats, actor.rollout.prompt_tokens, group)
  blank, slots = [[] for _ in chats], tuple(actor.share.slots(actor.rollout.rows)[: len(chats)])
  images = group_pictures(actor.tokenizer, chats, contexts, group)
  return _Reading(0, actor.rollout.rows, 0, slots, contexts, blank, [()] * len(chats), tuple(episodes), None, refused,
                  chats, [False] * len(chats), images, images, group)


def _next_reading(actor: Actor, chats: Sequence[Chat], kept: Sequence[int], memory: Memory) -> _Reading:
  turn = memory.turn + 1
  begins_row = [bool(actor.rewriting) and not continues(*memory.answered[place], chat)
                for chat, place in zip(chats, kept, strict=True)]
  ids = [() if anew else memory.ids[place] for place, anew in zip(kept, begins_row, strict=True)]
  contexts, refused, images, all_images = [], [], [], []
  for chat, read, anew in zip(chats, ids, begins_row, strict=True):
    context, trouble = later_ids(actor.tokenizer, actor.rollout, chat, read, anew, actor.carries)
    contexts.append(context)
    refused.append(trouble)
    images.append(() if trouble else pictures(actor.tokenizer, chat if anew else later_messages(chat)))
    all_images.append(images[-1] if trouble or actor.carries else pictures(actor.tokenizer, chat))
  slots, cache, columns = tuple(memory.slots[place] for place in kept), None, 0
  slots_of_processes = hosts.gathered(slots)
  rows = min(smallest_size(actor, slots_of_processes), memory.rows)
  if actor.carries:
    cache, columns = between_turns(actor, turn, memory.cache, rows, memory.columns, slots_of_processes), memory.columns
  if rows < memory.rows or not actor.in_segments:   # else rows stay where they are
    slots = tuple(actor.share.slots(rows)[: len(kept)])
  last_tokens = [list(row[-1:]) for row in ids] if actor.carries else [list(row) for row in ids]
  episodes = tuple(memory.episodes[place] for place in kept)
  return _Reading(turn, rows, columns, slots, contexts, last_tokens, ids, episodes, cache, refused, chats, begins_row,
                  images, all_images)


def _batch(actor: Actor, reading: _Reading, key: jax.Array, temperature: float, lengths: Lengths | None) -> TurnBatch:
  """What a turn samples from. Refused conversations read nothing."""
  new_ids: list[list[int]] = [[] for _ in range(reading.rows)]
  images: list[Pictures] = [()] * reading.rows
  behind_B, next_positions = np.zeros(reading.rows, np.int32), []
  for row, slot in enumerate(reading.slots):
    unread = reading.turn and reading.refused[row]   # a first turn has the ids of the group, or none
    new_ids[slot] = [] if unread else reading.last_tokens[row] + reading.contexts[row]
    images[slot] = reading.all_images[row]
    behind_B[slot] = len(reading.ids[row]) - len(reading.last_tokens[row])
    next_positions.append(int(behind_B[slot]) + len(new_ids[slot]))
  inputs = left_pad(new_ids[:: reading.group], actor.read_len(reading.turn))
  inputs = actor.with_pictures(inputs, images[:: reading.group], reading.turn)
  if reading.turn:
    inputs.positions_BT[:] += behind_B[:, None] * inputs.segments_BT
  return TurnBatch(
      reading.turn, reading.rows, reading.group, reading.columns, reading.slots, inputs, next_positions,
      [refused is None for refused in reading.refused], reading.episodes, key, temperature,
      None if lengths is None else [lengths(episode, reading.turn) for episode in reading.episodes])


def _turn(actor: Actor, params: dict, reading: _Reading, batch: TurnBatch, ended: Ended
          ) -> tuple[list[Response], Memory, Cost]:
  ended_rows: dict[int, Response] = {}

  def response(row: int, sampled: SampledResponse) -> Response:
    return response_of(actor, sampled, reading.contexts[row], reading.refused[row], reading.begins_row[row],
                       reading.images[row])

  def end(rows: Sequence[int], sampled: Sequence[SampledResponse]) -> None:
    ended_rows.update(zip(rows, map(response, rows, sampled), strict=True))
    ended(rows, [ended_rows[row] for row in rows])

  cache, columns, sampled, cost = sample_turn(actor, params, reading.cache, batch, end)
  responses = [ended_rows[row] if row in ended_rows else response(row, each) for row, each in enumerate(sampled)]
  ids = [(*read, *each.context, *each.tokens) for read, each in zip(reading.ids, responses, strict=True)]
  answered = tuple((chat, each.text) for chat, each in zip(reading.chats, responses, strict=True))
  memory = Memory(reading.turn, cache, columns, reading.slots, tuple(ids), reading.episodes, reading.rows,
                  answered if actor.rewriting else ())
  return responses, memory, cost


def response_of(actor: Actor, sampled: SampledResponse, context: Sequence[int], refused: Trouble | None = None,
                begins_row: bool = False, images: Pictures = ()) -> Response:
  """The response with its text. context, refused, begins_row, images: as of Response."""
  tokens, stopped = tuple(sampled.tokens), sampled.stopped
  text = actor.tokenizer.decode(tokens[:-1] if stopped and tokens else tokens)
  return Response(text, tuple(context), tokens, tuple(sampled.logprobs), stopped, refused, begins_row, images)
