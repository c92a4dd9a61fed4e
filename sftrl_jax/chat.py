"""A conversation: environments write it, policies answer it, tokenizers render it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import numpy as np

ROLES = ("system", "user", "assistant", "tool")


@dataclasses.dataclass(frozen=True, eq=False)
class Message:
  """A message: `role` is system, user, assistant or tool; `image` is a uint8 array [Y, X, 3] before the text, or None.

  fields: what a chat template reads instead of {role, content}, such as reasoning_content and tool_calls; or None
  more_images: further pictures, whose places are the parts {"type": "image"} of `fields["content"]`, as is that of
    `image` then

  Raises ValueError for another role and TypeError for a text that is not a str. Images are compared by content.
  """

  role: str
  text: str
  image: np.ndarray | None = None
  fields: dict | None = None
  more_images: tuple[np.ndarray, ...] = ()

  def __post_init__(self):
    if self.role not in ROLES:
      raise ValueError(f"message role is {self.role!r}, but it must be one of {', '.join(ROLES)}.")
    if not isinstance(self.text, str):
      raise TypeError(f"message text is a {type(self.text).__name__}, but it must be a str.")

  def __eq__(self, value: object) -> bool:
    if not isinstance(value, Message):
      return NotImplemented
    mine, theirs = ((each.role, each.text, each.fields) for each in (self, value))
    return mine == theirs and len(self.images) == len(value.images) and all(map(_is_same, self.images, value.images))

  # Without image and fields, which have no hash; equal messages still have equal hashes.
  def __hash__(self):
    return hash((self.role, self.text))

  @property
  def images(self) -> tuple[np.ndarray, ...]:
    """All pictures, in the order in which they are read."""
    return () if self.image is None else (self.image, *self.more_images)


Chat = tuple[Message, ...]


def continues(before: Chat, response: str, chat: Chat) -> bool:
  """Whether a chat begins with the one that was answered before and the response to it."""
  answer = chat[len(before)] if len(chat) > len(before) else None
  return answer is not None and (answer.role, answer.text) == ("assistant", response) and chat[: len(before)] == before


def whole_chat(chat: Chat, response: str, feedback: str) -> Chat:
  """The chat with the last response and the feedback on it."""
  return (*chat, Message("assistant", response), *([Message("user", feedback)] if feedback else []))


def _is_same(left: np.ndarray, right: np.ndarray) -> bool:
  return left is right or (left.shape == right.shape and bool((left == right).all()))
