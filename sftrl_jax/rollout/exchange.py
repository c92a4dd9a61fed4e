"""Episodes that several processes play together: each plays those of its own rows, then all exchange them."""

import base64
import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Env, Verdict
from sftrl_jax.parallel import hosts
from sftrl_jax.rollout.episodes import JUDGING, Clock, Episode, Judging, Response, Trouble, Turn, begin
from sftrl_jax.rollout.policy import Actor, Cost, policy

ARRAYS = {"context": np.int32, "tokens": np.int32, "logprobs": np.float32}   # long fields of a Response


@dataclasses.dataclass(frozen=True)
class PlayContext:
  """What episodes are played with.

  params: decoding parameters
  key: an episode's random keys follow from it and from the episode's number alone
  group: episodes that begin with one prompt, standing together: 1, or the actor's
  rollout_costs: a list that gets the Cost of every turn, or None
  before_turn: called before every turn, equally often by all processes; it may end the process
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
  """`play` of as many seeds as are decoded together. Each process plays its share, and returns all episodes.

  numbers: of the episodes. Random keys follow from them, so it does not matter which process plays an episode.
  """
  return begin_together(context, numbers, seeds)()


def begin_together(context: PlayContext, numbers: Sequence[int], seeds: Sequence[int | str]
                   ) -> Callable[[], tuple[list[Episode], Clock]]:
  """`play_together` up to the last verdicts: returns the function that waits for them, and returns what it does.

  Processes call it, and the function, in the same order.
  numbers: of the episodes. Random keys follow from them, so it does not matter which process plays an episode.
  """
  actor, rows = context.actor, context.actor.rollout.rows
  slots = [slot for slot in actor.share.slots(rows) if slot < len(numbers)] if hosts.several() else range(len(numbers))
  answer = policy(actor, context.params, context.key, context.temperature, [numbers[slot] for slot in slots],
                  context.rollout_costs, context.group)

  def any_process(going_on: bool) -> bool:
    context.before_turn()
    return hosts.any_process(going_on)

  end = begin(context.env, answer, [seeds[slot] for slot in slots], any_process, context.judging)
  return (lambda: _exchanged(actor, seeds, *end())) if hosts.several() else end


def _exchanged(actor: Actor, seeds: Sequence[int | str], episodes: list[Episode], clock: Clock
               ) -> tuple[list[Episode], Clock]:
  """All episodes from this process's own, in the order of the seeds."""
  rows, records = actor.rollout.rows, [None] * len(seeds)
  for process, shared in enumerate(hosts.gathered([packed(episode) for episode in episodes])):
    for slot, record in zip(actor.share.slots(rows, process), shared, strict=False):
      records[slot] = record
  return [unpacked(record, seed) for record, seed in zip(records, seeds, strict=True)], clock


def packed(episode: Episode) -> dict:
  """An episode as JSON, without the chats between its turns."""
  return {"turns": [{"response": {**_fields(turn.response), **{name: _text(getattr(turn.response, name), dtype)
                                                               for name, dtype in ARRAYS.items()}},
                     "verdict": {**_fields(turn.verdict), "chat": None}} for turn in episode.turns],
          **{name: [_packed_message(message) for message in getattr(episode, name)] for name in ("chat", "earlier")},
          "truncated": episode.truncated, "trouble": episode.trouble and _fields(episode.trouble)}


def unpacked(record: dict, seed: int | str) -> Episode:
  """The episode of `packed`."""
  turns = tuple(Turn(Response(**{**turn["response"], **{name: _numbers(turn["response"][name], dtype)
                                                        for name, dtype in ARRAYS.items()}}),
                     Verdict(**turn["verdict"])) for turn in record["turns"])
  chat, earlier = (tuple(map(_unpacked_message, record[name])) for name in ("chat", "earlier"))
  return Episode(seed, turns, chat, record["truncated"], record["trouble"] and Trouble(**record["trouble"]), earlier)


def _fields(record) -> dict:
  return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _text(numbers: Sequence, dtype) -> str:
  return base64.b64encode(np.asarray(numbers, dtype).tobytes()).decode()


def _numbers(text: str, dtype) -> tuple:
  return tuple(np.frombuffer(base64.b64decode(text), dtype).tolist())


def _packed_message(message: Message) -> dict:
  image = message.image
  pixels = {} if image is None else {"image": _text(image, image.dtype), "shape": image.shape}
  return {"role": message.role, "text": message.text, **pixels}


def _unpacked_message(record: dict) -> Message:
  if "image" not in record:
    return Message(record["role"], record["text"])
  image = np.frombuffer(base64.b64decode(record["image"]), np.uint8).reshape(record["shape"])
  return Message(record["role"], record["text"], image)
