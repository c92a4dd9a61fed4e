"""Contents in parts: texts and pictures, and how the pictures of a row come to stand in its messages."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sftrl_jax.data.lines import BadRow

PICTURES = ("images", "image")   # columns of a row: a list of pictures, or one
SOURCES = ("image", "path", "url")   # keys of a part that names its own picture
CONTENTS = ("content", "value")
PLACEHOLDER = "<image>"          # what other formats write into a text for a picture


@dataclasses.dataclass(frozen=True)
class Shown:
  """A picture of a row. number: of row_pictures.py; image: uint8 [Y, X, 3] of its size, without its pixels."""

  number: int
  image: np.ndarray = dataclasses.field(compare=False, repr=False)


def is_picture(part: Any) -> bool:
  return isinstance(part, dict) and part.get("type") == "image"


def with_own_pictures(messages: Any, show: Callable[[Any, str], Shown], where: str) -> Any:
  """Messages whose parts that name a picture of their own hold it as Shown. show: (source, where) -> Shown"""
  if not isinstance(messages, list):
    return messages
  return [{**message, key: [_own(part, show, f"{where}[{number}].{key}[{place}]")
                            for place, part in enumerate(message[key])]} if (key := _parts_key(message)) else message
          for number, message in enumerate(messages)]


def _own(part: Any, show: Callable[[Any, str], Shown], where: str) -> Any:
  sources = [key for key in SOURCES if is_picture(part) and part.get(key) is not None]
  return {"type": "image", "image": show(part[sources[0]], where)} if sources else part


def spread(value: dict, columns: Sequence[str]) -> dict:
  """The row with the pictures of its column `images` in the messages of these columns, which are chats: the i-th stands
  at the i-th {"type": "image"}. Where all contents are texts, all come before the first text of the user, as in TRL.

  BadRow unless there are as many pictures as such parts.
  """
  shown = value.get("images") or []
  parts = [part for column in columns for _, part in _parts(value[column]) if is_picture(part)]
  waiting = [part for part in parts if not isinstance(part.get("image"), Shown)]
  if not shown and not waiting:
    return value
  if shown and not parts and not any(_parts_key(message) for column in columns for message in value[column]):
    return _before_the_text(value, columns, shown)
  if len(shown) != len(waiting):
    raise BadRow("pictures and their places differ", f"has {_count(len(shown), 'picture')}, but the messages have "
                 f'{_count(len(waiting), "part")} {{"type": "image"}}: give each picture its place, and each place its '
                 "picture", "images")
  rest = iter(shown)
  fill = lambda part: {"type": "image", "image": next(rest)} if is_picture(part) and not isinstance(
      part.get("image"), Shown) else part
  return {**value, **{column: [{**message, key: list(map(fill, message[key]))} if (key := _parts_key(message))
                               else message for message in value[column]] for column in columns}}


def _before_the_text(value: dict, columns: Sequence[str], shown: list[Shown]) -> dict:
  first = next(((column, number, key) for column in columns for number, message in enumerate(value[column])
                if isinstance(message, dict) and message.get("role", message.get("from")) in ("user", "human")
                for key in CONTENTS if isinstance(message.get(key), str)), None)
  if first is None:
    raise BadRow("pictures without a place", "has pictures, but no text of the user before which they could stand",
                 "images")
  column, number, key = first
  for place, message in enumerate(message for each in columns for message in value[each]):
    if any(isinstance(text := message.get(name), str) and PLACEHOLDER in text for name in CONTENTS
           if isinstance(message, dict)):
      raise BadRow("pictures named in a text", f"has pictures, and message {place + 1} spells {PLACEHOLDER}, which "
                   'stays text: give the content as a list of {"type": "image"} and {"type": "text", "text": ...}',
                   column)
  parts = [{"type": "image", "image": each} for each in shown]
  message = value[column][number]
  whole = {**message, key: [*parts, {"type": "text", "text": message[key]}]}
  return {**value, column: [*value[column][:number], whole, *value[column][number + 1:]]}


def _parts(messages: Any) -> Iterator[tuple[str, Any]]:
  """(key, part) of every part of a list of messages."""
  for message in messages if isinstance(messages, list) else ():
    key = _parts_key(message)
    yield from ((key, part) for part in (message[key] if key else ()))


def _parts_key(message: Any) -> str:
  """The key of a message whose content is a list of parts; "" where it is a text, or no message."""
  return next((key for key in CONTENTS if isinstance(message, dict) and isinstance(message.get(key), list)), "")


def _count(number: int, noun: str) -> str:
  return f"{number or 'no'} {noun}{'s' * (number != 1)}"
