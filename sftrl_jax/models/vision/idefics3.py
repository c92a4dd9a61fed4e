"""Idefics3 and SmolVLM: SigLIP's patches, joined by pixel shuffle, in the rows of a Llama-like decoder.

Laurencon et al. 2024, "Building and better understanding vision-language models"; Marafioti et al. 2025, "SmolVLM". A
picture is read as one tile, or as several tiles and the whole picture once more, small. Every tile is a picture of the
row here; ids of markers stand between their placeholders, see pictures/processors/idefics3.py.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from sftrl_jax.models.vision.model import VisionModel, project
from sftrl_jax.models.vision.siglip import Siglip, TowerConfig
from sftrl_jax.pictures.processors import idefics3 as processors
from sftrl_jax.shapes import check


@dataclasses.dataclass(frozen=True)
class Idefics3Config(TowerConfig):
  """A decoder with SigLIP's tower and pixel shuffle. image_height and image_width are the sides of a tile, which are
  equal.

  shuffle: patches of a side that become one feature
  image_longest: pixels to which the longer side of a picture is resized before it is cut into tiles
  image_splitting: whether pictures are cut into tiles
  image_resample: the filter of resizing
  layout: the model_type in config.json: "idefics3" or "smolvlm", which compute the same
  """

  shuffle: int = 2
  image_longest: int = 256
  image_splitting: bool = True
  image_resample: Literal["lanczos", "bicubic", "bilinear"] = "lanczos"
  layout: Literal["idefics3", "smolvlm"] = "idefics3"

  def __post_init__(self):
    super().__post_init__()
    if self.image_height != self.image_width:
      raise ValueError(f"image_height and image_width are {self.image_height} and {self.image_width}; tiles are "
                       "square, so they must be equal.")
    if self.shuffle < 1 or self.grid[0] % self.shuffle:
      raise ValueError(f"shuffle is {self.shuffle}; it must divide the {self.grid[0]} patches of a side of a tile.")
    self.processor()   # whose errors come before anything is made of the config
    if self.layout not in ("idefics3", "smolvlm"):
      raise ValueError(f"layout is {self.layout!r}; it must be one of idefics3, smolvlm.")

  @property
  def image_tokens(self) -> int:
    return (self.grid[0] // self.shuffle) ** 2

  def tower_flops(self) -> float:
    return self.siglip_flops() + 2.0 * self.image_tokens * self.shuffle**2 * self.tower_width * self.width

  def processor(self) -> processors.Idefics3Processor:
    """What makes tiles and placeholders of pictures, for this model."""
    return processors.Idefics3Processor(self.image_height, self.image_longest, self.image_splitting,
                                        self.image_resample, self.image_tokens)

  def build(self) -> "Idefics3":
    return Idefics3(self)


@dataclasses.dataclass(frozen=True)
class Idefics3(VisionModel):
  """The functions of Idefics3 and SmolVLM."""

  config: Idefics3Config

  def init_vision(self, key: jax.Array) -> dict:
    c = self.config
    tower_key, connector_key = jax.random.split(key)
    blank = jnp.zeros((1, c.image_height, c.image_width, 3), jnp.uint8)
    read = c.shuffle**2 * c.tower_width
    kernel = read**-0.5 * jax.random.normal(connector_key, (read, c.width))
    return {"tower": Siglip(c).init(tower_key, blank)["params"], "connector": {"proj": {"kernel": kernel}}}

  def features(self, params: dict, images_BIYXC: jax.Array) -> jax.Array:
    """features_BFD: patches of the tower, shuffle x shuffle of them joined, times the connector's kernel."""
    check(images_BIYXC=images_BIYXC)
    c, parts = self.config, params["vision"]
    B, I = images_BIYXC.shape[:2]
    flat_BYXC = images_BIYXC.reshape(B * I, *images_BIYXC.shape[2:])
    x_BTD = pixel_shuffle(Siglip(c).apply({"params": parts["tower"]}, flat_BYXC), c.grid, c.shuffle)
    return project("bte,ed->btd", x_BTD, parts["connector"]["proj"]).reshape(B, I * c.image_tokens, c.width)


def pixel_shuffle(x_BTD: jax.Array, grid: tuple[int, int], shuffle: int) -> jax.Array:
  """Joins the channels of `shuffle` x `shuffle` neighbours, row by row: [B, T / shuffle^2, shuffle^2 D]."""
  (rows, columns), (B, _, D) = grid, x_BTD.shape
  apart = x_BTD.reshape(B, rows // shuffle, shuffle, columns // shuffle, shuffle, D).transpose(0, 1, 3, 2, 4, 5)
  return apart.reshape(B, (rows // shuffle) * (columns // shuffle), shuffle**2 * D)
