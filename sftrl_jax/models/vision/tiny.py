"""A small vision-language model: a convolutional stem whose features are the cells of a picture, such as one a card.

Three convolutions halve each side; pixel shuffle joins the places of a cell, an MLP of two layers connects them to the
decoder, and each cell adds an embedding of its place. The MLP's last matrix begins far below the embeddings: so a cell
is known by its place before it is read. With one of their size, or without places, reading begins much later.
"""

import dataclasses

import jax
import jax.numpy as jnp

from sftrl_jax.models import lora
from sftrl_jax.models.vision.config import VisionConfig
from sftrl_jax.models.vision.model import VisionModel, project
from sftrl_jax.shapes import check

KERNELS = (5, 3, 3)   # sides of the convolutions' windows, which move by 2 pixels
HALVED = 2 ** len(KERNELS)   # pixels of a side for one place behind them


@dataclasses.dataclass(frozen=True)
class TinyVisionConfig(VisionConfig):
  """A decoder with a convolutional tower, of which a picture has a feature for each cell.

  cell: pixels of a cell's side, such as those of a card, or of one view of a street
  channels: of the convolutions
  connector: channels inside the connector
  connector_std: standard deviation of the connector's last matrix at initialisation
  pixel_scale: pixels 0 to 255 are read as -pixel_scale to pixel_scale
  """

  cell: int = 32
  channels: tuple[int, ...] = (8, 16, 32)
  connector: int = 128
  connector_std: float = 0.002
  pixel_scale: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    object.__setattr__(self, "channels", tuple(self.channels))
    if len(self.channels) != len(KERNELS) or min(self.channels) < 1:
      raise ValueError(f"channels is {self.channels}; it must be {len(KERNELS)} positive numbers, such as (8, 16, 32).")
    if self.connector < 1 or not self.connector_std > 0:
      raise ValueError(f"connector is {self.connector} and connector_std {self.connector_std}; both must be positive.")
    if not self.pixel_scale > 0:
      raise ValueError(f"pixel_scale is {self.pixel_scale}; it must be positive: 1 reads pixels as -1 to 1.")
    if self.cell < HALVED or self.cell % HALVED:
      raise ValueError(f"cell is {self.cell}; it must be a multiple of {HALVED}, the pixels of a side that the "
                       "convolutions turn into one place.")
    if self.image_height % self.cell or self.image_width % self.cell:
      raise ValueError(f"image_height and image_width are {self.image_height} and {self.image_width}; each must be a "
                       f"multiple of {self.cell}, the pixels of one feature: change them, or cell.")

  @property
  def image_tokens(self) -> int:
    return self.image_height * self.image_width // self.cell**2

  @property
  def places(self) -> int:
    """Places of a cell's side, behind the convolutions."""
    return self.cell // HALVED

  def tower_flops(self) -> float:
    pixels, read, total = self.image_height * self.image_width, 3, 0
    for side, written in zip(KERNELS, self.channels, strict=True):
      pixels //= 4
      total += pixels * side * side * read * written
      read = written
    joined = self.places**2 * read
    return 2.0 * (total + self.image_tokens * self.connector * (joined + self.width))

  def build(self) -> "TinyVision":
    return TinyVision(self)


@dataclasses.dataclass(frozen=True)
class TinyVision(VisionModel):
  """The functions of the small vision-language model."""

  config: TinyVisionConfig

  def init_vision(self, key: jax.Array) -> dict:
    """Kernels are normal by fan-in, times sqrt(2) behind a relu of a convolution; no biases."""
    c, read, tower = self.config, 3, {}
    for number, (side, written) in enumerate(zip(KERNELS, c.channels, strict=True)):
      gain = 2.0 if number else 1.0
      tower[str(number)] = {"kernel": _normal(key, number, (side, side, read, written),
                                              (gain / (side * side * read)) ** 0.5)}
      read = written
    joined = c.places**2 * read
    connector = {"up": {"kernel": _normal(key, len(KERNELS), (joined, c.connector), joined**-0.5)},
                 "down": {"kernel": _normal(key, len(KERNELS) + 1, (c.connector, c.width), c.connector_std)},
                 "places": _normal(key, len(KERNELS) + 2, (c.image_tokens, c.width), c.init_std)}
    return {"tower": {"conv": tower}, "connector": connector}

  def features(self, params: dict, images_BIYXC: jax.Array) -> jax.Array:
    """features_BFD: relu of each convolution, pixel shuffle, then relu(x up) down + the embedding of the place."""
    check(images_BIYXC=images_BIYXC)
    c, connector = self.config, params["vision"]["connector"]
    conv = lora.merge(params["vision"]["tower"]["conv"])   # whose kernels are smaller than what they read
    B, I, *sizes = images_BIYXC.shape
    if tuple(sizes) != (c.image_height, c.image_width, 3):
      raise ValueError(f"A picture is {tuple(sizes)}, but the model reads {(c.image_height, c.image_width, 3)}.")
    x = (c.pixel_scale * (images_BIYXC.astype(jnp.float32) / 127.5 - 1.0)).astype(c.dtype).reshape(B * I, *sizes)
    convolve = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    for number in range(len(KERNELS)):
      x = jax.nn.relu(convolve(x, conv[str(number)]["kernel"]))
    _, rows, columns, channels = x.shape
    side = c.places
    x = x.reshape(B * I, rows // side, side, columns // side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    x_BFD = x.reshape(B, I * c.image_tokens, side**2 * channels)
    places_FD = jnp.tile(connector["places"].astype(x.dtype), (I, 1))
    hidden_BFE = jax.nn.relu(project("bfd,de->bfe", x_BFD, connector["up"]))
    return project("bfe,ed->bfd", hidden_BFE, connector["down"]) + places_FD[None]


def _normal(key: jax.Array, number: int, shape: tuple[int, ...], std: float) -> jax.Array:
  return std * jax.random.normal(jax.random.fold_in(key, number), shape)
