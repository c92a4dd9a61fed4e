"""Episodes that several processes play together: each makes those of its own rows, and all are told of all."""

import base64
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from sftrl_jax.chat import Message
from sftrl_jax.envs.env import Env, Verdict
from sftrl_jax.parallel import hosts
from sftrl_jax.rollout.episodes import Clock, Episode, Response, Turn, play
from sftrl_jax.rollout.policy import Actor, policy


def play_together(env: Env, actor: Actor, params, key, temperature: float, numbers: Sequence[int], seeds: Sequence,
                  spent: list | None = None, group: int = 1, pause: Callable[[], None] = lambda: None
                  ) -> tuple[list[Episode], Clock]:
  """`play` of so many seeds as are decoded together, of which each process plays its share; everyone gets them all.

  The random keys of an episode follow from its number alone, so it does not matter who plays it.
  pause: called before every turn, equally often by all; it may end the process.
  """
  slots = actor.share.slots(actor.rollout.rows)
  slots = [slot for slot in slots if slot < len(numbers)] if hosts.several() else range(len(numbers))
  answer = policy(actor, params, key, temperature, [numbers[slot] for slot in slots], spent, group)

  def anyone(going_on: bool) -> bool:
    pause()
    return hosts.any_process(going_on)

  episodes, clock = play(env, answer, [seeds[slot] for slot in slots], anyone)
  if not hosts.several():
    return episodes, clock
  told: list = [None] * len(numbers)
  for process, some in enumerate(hosts.gathered([packed(episode) for episode in episodes])):
    for slot, line in zip(actor.share.slots(actor.rollout.rows, process), some, strict=False):
      told[slot] = line
  return [unpacked(line, seed) for line, seed in zip(told, seeds, strict=True)], clock


def packed(episode: Episode) -> dict:
  """An episode as JSON holds it, without the chats between its turns."""
  return {"turns": [{"reply": {**_fields(turn.reply), **{name: _text(getattr(turn.reply, name), kind)
                                                         for name, kind in KINDS.items()}},
                     "verdict": {**_fields(turn.verdict), "chat": None}} for turn in episode.turns],
          "chat": [_message(message) for message in episode.chat], "truncated": episode.truncated}


def unpacked(line: dict, seed) -> Episode:
  turns = tuple(Turn(Response(**{**turn["reply"], **{name: _numbers(turn["reply"][name], kind)
                                                  for name, kind in KINDS.items()}}),
                     Verdict(**turn["verdict"])) for turn in line["turns"])
  return Episode(seed, turns, tuple(_heard(message) for message in line["chat"]), line["truncated"])


KINDS = {"context": np.int32, "tokens": np.int32, "logprobs": np.float32}   # what a reply holds many of


def _fields(record) -> dict:
  return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _text(numbers: Sequence, kind) -> str:
  return base64.b64encode(np.asarray(numbers, kind).tobytes()).decode()


def _numbers(text: str, kind) -> tuple:
  return tuple(np.frombuffer(base64.b64decode(text), kind).tolist())


def _message(message: Message) -> dict:
  image = message.image
  shown = {} if image is None else {"image": _text(image, image.dtype), "shape": image.shape}
  return {"role": message.role, "text": message.text, **shown}


def _heard(told: dict) -> Message:
  if "image" not in told:
    return Message(told["role"], told["text"])
  image = np.frombuffer(base64.b64decode(told["image"]), np.uint8).reshape(told["shape"])
  return Message(told["role"], told["text"], image)
