"""A conversation: what an environment shows, what a policy answers, what a tokenizer renders."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import numpy as np

ROLES = ("system", "user", "assistant")


@dataclasses.dataclass(frozen=True, eq=False)
class Message:
  """One turn: `role` is system, user or assistant; `image` is a uint8 array [Y, X, 3] shown before the text, or None.

  Raises ValueError for another role and TypeError for a text that is not a str. Arrays are compared by content.
  """

  role: str
  text: str
  image: np.ndarray | None = None

  def __post_init__(self):
    if self.role not in ROLES:
      raise ValueError(f"message role is {self.role!r}, but it must be one of {', '.join(ROLES)}.")
    if not isinstance(self.text, str):
      raise TypeError(f"message text is a {type(self.text).__name__}, but it must be a str.")

  def __eq__(self, other):
    if not isinstance(other, Message):
      return NotImplemented
    return (self.role, self.text) == (other.role, other.text) and _same(self.image, other.image)

  # Arrays have no hash; equal messages still have equal hashes.
  def __hash__(self):
    return hash((self.role, self.text))


Chat = tuple[Message, ...]


def _same(image, other) -> bool:
  if image is None or other is None:
    return image is other
  return image is other or (image.shape == other.shape and bool((image == other).all()))
