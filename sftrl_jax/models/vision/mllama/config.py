"""The configuration of Llama-3.2-Vision."""

import dataclasses
import functools
from typing import Literal

from sftrl_jax.models import flops
from sftrl_jax.models.vision.siglip import TowerConfig
from sftrl_jax.pictures.processors import mllama as processors
from sftrl_jax.projections import PROJECTIONS

EXTRA_IDS = 8   # rows of the embedding behind those that the head has; the first is that of pictures


@dataclasses.dataclass(frozen=True)
class MllamaFields(TowerConfig):
  """A decoder with blocks that attend to pictures. `layers` counts the other ones, which attend to text. A picture is
  at most `tiles` tiles, one below another, and one more row of pixels with the id of its shape; image_height and
  image_width follow from these. `vocab` counts EXTRA_IDS that can be read and not written.

  tile: pixels of a side of a tile
  tiles: most tiles of a picture
  global_layers: gated blocks of the tower behind the others
  intermediate: blocks of the tower whose results are features too, from 0 on
  cross: which blocks of the decoder attend to pictures, counted from 0 over blocks of both kinds
  image_resample: the filter of resizing
  """

  tile: int = 64
  tiles: int = 4
  global_layers: int = 1
  intermediate: tuple[int, ...] = (0,)
  cross: tuple[int, ...] = (1,)
  image_resample: Literal["lanczos", "bicubic", "bilinear"] = "bilinear"
  tower_activation: Literal["gelu", "erf_gelu", "quick_gelu", "silu", "relu"] = "erf_gelu"
  tower_norm_eps: float = 1e-5
  tower_biases: bool = False

  def __post_init__(self):
    for name in ("tile", "tiles"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
    object.__setattr__(self, "image_height", self.tiles * self.tile + 1)
    object.__setattr__(self, "image_width", self.tile)
    for name in ("intermediate", "cross"):
      object.__setattr__(self, name, tuple(getattr(self, name)))
    super().__post_init__()
    if self.global_layers < 1:
      raise ValueError(f"global_layers is {self.global_layers}; it must be at least 1.")
    for name, count in (("intermediate", self.tower_layers), ("cross", self.layers + len(self.cross))):
      numbers = getattr(self, name)
      if not numbers or list(numbers) != sorted(set(numbers)) or not 0 <= numbers[0] <= numbers[-1] < count:
        raise ValueError(f"{name} is {numbers}; it must be ascending numbers of blocks, from 0 to {count - 1}.")
    if self.tie_embeddings:
      raise ValueError("tie_embeddings is True, but the embedding has more rows than the head: set it to False.")
    if self.pattern != ("global",):
      raise ValueError(f"pattern is {self.pattern}; blocks of this model are all 'global'.")
    if self.tower_side != self.tile // self.patch:
      raise ValueError(f"tower_side is {self.tower_side}; it must be tile // patch = {self.tile // self.patch}.")

  @property
  def image_tokens(self) -> int:
    return 1

  @property
  def extra_ids(self) -> int:
    """Ids of `vocab`, the last ones, that the head lacks."""
    return EXTRA_IDS

  @property
  def grid(self) -> tuple[int, int]:
    return self.tower_side, self.tower_side

  @property
  def tile_tokens(self) -> int:
    """Features of a tile: one for each patch, and one of the whole tile, which comes first."""
    return self.tower_side**2 + 1

  @property
  def padded_tile_tokens(self) -> int:
    """Tokens of a tile inside the tower: a multiple of 8."""
    return -(-self.tile_tokens // 8) * 8

  @property
  def picture_columns(self) -> int:
    """Columns of a cache for the features of the pictures of a row."""
    return self.images * self.tiles * self.tile_tokens

  @property
  def tower_output(self) -> int:
    """Channels of a feature of the tower."""
    return self.tower_width * (1 + len(self.intermediate))

  @property
  def shapes(self) -> tuple[tuple[int, int], ...]:
    """(rows, columns) of tiles that a picture may have; the id of a shape is its place here, from 1 on."""
    return processors.shapes(self.tiles)

  @functools.cached_property
  def order(self) -> tuple[str, ...]:
    """The kind of every block of the decoder, "text" or "picture"."""
    return tuple("picture" if number in self.cross else "text" for number in range(self.layers + len(self.cross)))

  @functools.cached_property
  def group(self) -> tuple[str, ...]:
    """The shortest order of blocks that the whole order repeats."""
    size = len(self.order)
    return next(self.order[:part] for part in range(1, size + 1)
                if size % part == 0 and self.order[:part] * (size // part) == self.order)

  def processor(self) -> processors.MllamaProcessor:
    """What makes tiles of pictures, for this model."""
    return processors.MllamaProcessor(self.tile, self.tiles, self.image_resample)

  def tower_flops(self) -> float:
    """With the keys and values that blocks of the decoder make of the features."""
    tokens, c = self.tiles * self.padded_tile_tokens, self
    patches = 2.0 * self.tiles * self.tower_side**2 * 3 * self.patch**2 * self.tower_width
    blocks = (self.tower_layers + self.global_layers) * self.block_flops(tokens, tokens)
    kept = self.tiles * self.tile_tokens
    keys = 2 * len(self.cross) * c.width * c.kv_heads * c.head_dim
    return patches + blocks + 2.0 * kept * (self.tower_output * c.width + keys)

  def flops(self, tokens: float, keys: float, unembedded: float) -> float:
    """FLOPs of the decoder, see models.build: its blocks of text, and those that attend to all places of pictures."""
    c = self
    size = lambda path: PROJECTIONS[path].size(c)
    of_pictures = sum(map(size, ("attn/q", "attn/o", "mlp/gate", "mlp/up", "mlp/down")))
    of_pictures += 2 * c.heads * c.head_dim * c.picture_columns
    head = c.width * (c.vocab - EXTRA_IDS)
    attention = 2 * c.layers * c.heads * c.head_dim * keys
    of_text = flops.matmul_parameters(c) - c.width * c.vocab + attention
    return 2.0 * (tokens * (of_text + len(c.cross) * of_pictures) + unembedded * head)
