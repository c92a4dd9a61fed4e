"""Episodes that several processes play together: each plays those of its own rows, then all exchange them."""

import base64
import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Env, Verdict
from sftrl_jax.parallel import hosts
from sftrl_jax.rollout.actor import Actor, Cost
from sftrl_jax.rollout.episodes import JUDGING, Clock, Episode, Judging, Response, Trouble, Turn, begin
from sftrl_jax.rollout.policy import policy
from sftrl_jax.rollout.refill import queue
from sftrl_jax.rollout.refill.slots import Decoding

ARRAYS = {"context": np.int32, "tokens": np.int32, "logprobs": np.float32}   # long fields of a Response


@dataclasses.dataclass(frozen=True)
class PlayContext:
  """What episodes are played with.

  params: decoding parameters
  key: an episode's random keys follow from it and from the episode's number alone
  group: episodes that begin with one prompt, standing together: 1, or the actor's
  rollout_costs: a list that gets the Cost of every turn, or None
  before_turn: called before every turn, or refill of slots, equally often by all processes; it may end the process
  judging: limits of the environment's calls
  """

  env: Env
  actor: Actor
  params: dict
  key: jax.Array
  temperature: float
  group: int = 1
  rollout_costs: list[Cost] | None = None
  before_turn: Callable[[], None] = lambda: None
  judging: Judging = JUDGING


def play_together(context: PlayContext, numbers: Sequence[int], seeds: Sequence[int | str]
                  ) -> tuple[list[Episode], Clock]:
  """`play` of as many seeds as `begun_together` says. Each process plays its share, and returns all episodes.

  numbers: of the episodes. Random keys follow from them, so it does not matter which process plays an episode.
  """
  return begin_together(context, numbers, seeds)()


def begun_together(actor: Actor, count: int) -> list[range]:
  """Of `count` episodes, those of every call of `begin_together`: as many as have rows or, with refill, all."""
  rows = count if actor.rollout.refill else actor.rollout.rows
  return [range(first, min(first + rows, count)) for first in range(0, count, max(1, rows))]


def begin_together(context: PlayContext, numbers: Sequence[int], seeds: Sequence[int | str]
                   ) -> Callable[[], tuple[list[Episode], Clock]]:
  """`play_together` up to the last verdicts: returns the function that waits for them, and returns what it does.

  Processes call it, and the function, in the same order.
  numbers: of the episodes. Random keys follow from them, so it does not matter which process plays an episode.
  """
  actor, places = context.actor, shared_out(context, len(numbers), hosts.index())
  own, own_seeds = [numbers[place] for place in places], [seeds[place] for place in places]
  if actor.rollout.refill:
    costs = [] if context.rollout_costs is None else context.rollout_costs
    decoding = Decoding(actor, context.params, context.key, context.temperature, costs)
    end = queue.begin(context.env, decoding, own, own_seeds, context.group, context.before_turn, context.judging)
  else:
    answer = policy(actor, context.params, context.key, context.temperature, own, context.rollout_costs, context.group)

    def any_process(going_on: bool) -> bool:
      context.before_turn()
      return hosts.any_process(going_on)

    end = begin(context.env, answer, own_seeds, any_process, context.judging)
  return (lambda: _exchanged(context, seeds, *end())) if hosts.several() else end


def shared_out(context: PlayContext, count: int, process: int) -> list[int]:
  """Which of `count` episodes a process plays: those of its rows or, where slots are refilled, every so many-th group.

  Processes that hold the same rows play the same episodes.
  """
  share, rows, group = context.actor.share, context.actor.rollout.rows, context.group
  if not hosts.several():
    return [*range(count)]
  if not context.actor.rollout.refill:
    return [slot for slot in share.slots(rows, process) if slot < count]
  blocks = sorted({*share.blocks})
  return [place for place in range(count) if place // group % len(blocks) == blocks.index(share.blocks[process])]


def _exchanged(context: PlayContext, seeds: Sequence[int | str], episodes: list[Episode], clock: Clock
               ) -> tuple[list[Episode], Clock]:
  """All episodes from this process's own, in the order of the seeds."""
  records = [None] * len(seeds)
  for process, shared in enumerate(hosts.gathered([packed(episode) for episode in episodes])):
    for place, record in zip(shared_out(context, len(seeds), process), shared, strict=True):
      records[place] = record
  return [unpacked(record, seed) for record, seed in zip(records, seeds, strict=True)], clock


def packed(episode: Episode) -> dict:
  """An episode as JSON, without the chats between its turns."""
  arrays = lambda response: {name: _text(getattr(response, name), dtype) for name, dtype in ARRAYS.items()}
  images = lambda response: [_packed_image(image) for image in response.images]
  return {"turns": [{"response": {**_fields(turn.response), **arrays(turn.response), "images": images(turn.response)},
                     "verdict": {**_fields(turn.verdict), "chat": None}} for turn in episode.turns],
          **{name: [_packed_message(message) for message in getattr(episode, name)] for name in ("chat", "earlier")},
          "truncated": episode.truncated, "trouble": episode.trouble and _fields(episode.trouble),
          "asked": episode.asked, "columns": dict(episode.columns)}


def unpacked(record: dict, seed: int | str) -> Episode:
  """The episode of `packed`."""
  arrays = lambda response: {name: _numbers(response[name], dtype) for name, dtype in ARRAYS.items()}
  images = lambda response: tuple(map(_unpacked_image, response["images"]))
  turns = tuple(Turn(Response(**{**turn["response"], **arrays(turn["response"]), "images": images(turn["response"])}),
                     Verdict(**turn["verdict"])) for turn in record["turns"])
  chat, earlier = (tuple(map(_unpacked_message, record[name])) for name in ("chat", "earlier"))
  trouble = record["trouble"] and Trouble(**record["trouble"])
  return Episode(seed, turns, chat, record["truncated"], trouble, earlier, record["asked"], record["columns"])


def _fields(record) -> dict:
  return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _text(numbers: Sequence, dtype) -> str:
  return base64.b64encode(np.asarray(numbers, dtype).tobytes()).decode()


def _numbers(text: str, dtype) -> tuple:
  return tuple(np.frombuffer(base64.b64decode(text), dtype).tolist())


def _packed_message(message: Message) -> dict:
  image = message.image
  return {"role": message.role, "text": message.text, **({} if image is None else _packed_image(image))}


def _unpacked_message(record: dict) -> Message:
  if "image" not in record:
    return Message(record["role"], record["text"])
  return Message(record["role"], record["text"], _unpacked_image(record))


def _packed_image(image: np.ndarray) -> dict:
  return {"image": _text(image, image.dtype), "shape": image.shape}


def _unpacked_image(record: dict) -> np.ndarray:
  return np.frombuffer(base64.b64decode(record["image"]), np.uint8).reshape(record["shape"])
