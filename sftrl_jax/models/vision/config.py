"""The configuration of a decoder that reads pictures. Each family of such models derives its own from this."""

import abc
import dataclasses

from sftrl_jax.models.config import DecoderConfig

LARGEST = 2**14   # pixels of a side; the sizes of a picture are those of a compiled program


@dataclasses.dataclass(frozen=True)
class VisionConfig(DecoderConfig, abc.ABC):
  """A decoder in whose rows the features of pictures stand. Each family gives `image_tokens` and `tower_flops`.

  image_id: the id that stands where a feature of a picture comes (0: the tokenizer's)
  image_height: rows of pixels of a picture; a picture of another size is an error
  image_width: columns of pixels of a picture
  images: most pictures of a row; every row is computed with so many
  """

  image_id: int = 0
  image_height: int = 32
  image_width: int = 96
  images: int = 1

  def __post_init__(self):
    super().__post_init__()
    for name in ("image_height", "image_width", "images"):
      if not 1 <= getattr(self, name) <= LARGEST:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be from 1 to {LARGEST}.")
    if self.image_id < 0 or (self.vocab and self.image_id >= self.vocab):
      raise ValueError(f"image_id is {self.image_id}; it must be an id below vocab = {self.vocab}, or 0 for the "
                       "tokenizer's.")

  @property
  @abc.abstractmethod
  def image_tokens(self) -> int:
    """Features of a picture, which is as many placeholder ids as stand for it."""

  @property
  def barred_ids(self) -> tuple[int, ...]:
    """Ids that nothing writes, neither a policy nor a text: they have no probability."""
    return (self.image_id,)

  @abc.abstractmethod
  def tower_flops(self) -> float:
    """FLOPs of the features of one picture, forward."""
