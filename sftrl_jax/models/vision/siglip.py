"""The tower of SigLIP: patches of a picture as tokens of a transformer that attends in both directions.

Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training". Families of vision-language models put its results
into their decoders, each in its own way. Parts of it serve other towers, see mllama/tower.py.
"""

import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.models import kernels
from sftrl_jax.models.attention import attend_by_chunks
from sftrl_jax.models.cpu.headwise import attend_headwise
from sftrl_jax.models.decoder import Project, mark_saved, remat_policy
from sftrl_jax.models.layout import ROWS, constrain, platform
from sftrl_jax.models.vision.config import VisionConfig
from sftrl_jax.projections import TOWER_PROJECTIONS
from sftrl_jax.shapes import check

QUERIES = 1024   # patches of a picture whose scores exist at once; all 6,432 of Llama-3.2-Vision's take gigabytes
ACTIVATIONS = {"gelu": functools.partial(nn.gelu, approximate=True),
               "erf_gelu": functools.partial(nn.gelu, approximate=False),
               "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x), "silu": nn.silu, "relu": nn.relu}


@dataclasses.dataclass(frozen=True)
class TowerConfig(VisionConfig):
  """A decoder with a transformer over patches as its tower.

  tower_width: channels of the tower's residual stream
  tower_layers: blocks of the tower
  tower_heads: heads of the tower; a divisor of tower_width
  tower_mlp_dim: channels inside the tower's MLPs
  tower_activation: "gelu" (tanh form), "erf_gelu" (exact), "quick_gelu" (x sigmoid(1.702 x), CLIP), silu or relu
  tower_norm_eps: epsilon of the tower's LayerNorm
  tower_biases: a bias on the projections of the tower's attention
  patch: pixels of a side of a patch; pixels beyond the last whole patch are not read
  tower_side: patches of a side of the pictures that the table of positions is for
  image_mean: of pixels from 0 to 1, by channel; it is subtracted
  image_std: by which the rest is divided, by channel
  """

  image_height: int = 64
  image_width: int = 64
  tower_width: int = 64
  tower_layers: int = 2
  tower_heads: int = 4
  tower_mlp_dim: int = 128
  tower_activation: Literal["gelu", "erf_gelu", "quick_gelu", "silu", "relu"] = "gelu"
  tower_norm_eps: float = 1e-6
  tower_biases: bool = True
  patch: int = 16
  tower_side: int = 4
  image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
  image_std: tuple[float, ...] = (0.5, 0.5, 0.5)

  def __post_init__(self):
    super().__post_init__()
    for name in ("tower_width", "tower_layers", "tower_heads", "tower_mlp_dim", "patch", "tower_side"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
    if self.tower_width % self.tower_heads:
      raise ValueError(f"tower_heads is {self.tower_heads}; it must divide tower_width = {self.tower_width}.")
    if self.tower_activation not in ACTIVATIONS:
      raise ValueError(f"tower_activation is {self.tower_activation!r}; it must be one of {', '.join(ACTIVATIONS)}.")
    if not self.tower_norm_eps > 0:
      raise ValueError(f"tower_norm_eps is {self.tower_norm_eps}; it must be positive.")
    for name in ("image_mean", "image_std"):
      object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
      if len(getattr(self, name)) != 3:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be three numbers, of red, green and blue.")
    if min(self.image_std) <= 0:
      raise ValueError(f"image_std is {self.image_std}; each must be positive.")
    if min(self.image_height, self.image_width) < self.patch:
      raise ValueError(f"patch is {self.patch}, but a picture has {self.image_height} x {self.image_width} pixels: use "
                       "smaller patches or larger pictures.")

  @property
  def tower_head_dim(self) -> int:
    return self.tower_width // self.tower_heads

  @property
  def tower_mlp_biases(self) -> bool:
    return True

  @property
  def grid(self) -> tuple[int, int]:
    """Patches of a picture: rows and columns."""
    return self.image_height // self.patch, self.image_width // self.patch

  def block_flops(self, tokens: float, keys: float) -> float:
    """FLOPs of one block of the tower over `tokens` positions, each of which attends over `keys`."""
    width = self.tower_width
    return 2.0 * tokens * (4 * width * width + 2 * width * self.tower_mlp_dim + 2 * keys * width)

  def siglip_flops(self) -> float:
    """FLOPs of the patches and of all blocks, of one picture."""
    patches = self.grid[0] * self.grid[1]
    return (2.0 * patches * 3 * self.patch**2 * self.tower_width
            + self.tower_layers * self.block_flops(patches, patches))


class LayerNorm(nn.Module):
  """(x - mean) / sd * scale + bias over the last axis, in f32 (Ba et al. 2016)."""

  eps: float

  @nn.compact
  def __call__(self, x):
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
    bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
    centred = x.astype(jnp.float32)
    centred = centred - jnp.mean(centred, -1, keepdims=True)
    unit = centred * jax.lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + self.eps)
    wide = lambda leaf: jnp.expand_dims(leaf.astype(jnp.float32), range(x.ndim - 1))
    return (unit * wide(scale) + wide(bias)).astype(x.dtype)


def _project(config: TowerConfig, path: str, equation: str, gain: float = 1.0) -> Project:
  projection = TOWER_PROJECTIONS[path]
  return Project(config, projection, equation, gain, name=projection.name)


class TowerAttention(nn.Module):
  """Every token of a picture attends to all; but padding, tokens of tiles that are not there, not to padding. None: a
  tower without padding."""

  config: TowerConfig

  @nn.compact
  def __call__(self, x_BTD, padding_BT):
    c = self.config
    qkv = [_project(c, f"attn/{name}", "bte,ega->bgta")(x_BTD) for name in "qkv"]
    kernel = kernels.chosen(c, platform(), x_BTD.shape[1])
    if padding_BT is None and kernel != "blocks":
      padding_BT = jnp.zeros(x_BTD.shape[:2], bool)
    if kernel == "splash":
      mixed_BHTC = kernels.splash_of_tower(*qkv, padding_BT)
    elif kernel == "blocks":
      mixed_BHTC = attend_headwise(*qkv, padding_BT)
    else:
      mixed_BHTC = attend_by_chunks(*qkv, ~(padding_BT[:, :, None] & padding_BT[:, None, :]), QUERIES)
    mixed_BHTC = mark_saved(c, mixed_BHTC)
    return _project(c, "attn/o", "bgta,gae->bte", (2 * c.tower_layers) ** -0.5)(mixed_BHTC)


class TowerMlp(nn.Module):
  config: TowerConfig

  @nn.compact
  def __call__(self, x_BTD):
    c = self.config
    up_BTF = mark_saved(c, _project(c, "mlp/up", "bte,em->btm")(x_BTD))
    hidden_BTF = ACTIVATIONS[c.tower_activation](up_BTF)
    return _project(c, "mlp/down", "btm,me->bte", (2 * c.tower_layers) ** -0.5)(hidden_BTF)


class TowerBlock(nn.Module):
  """x + gate attention(norm(x)), then x + gate mlp(norm(x)); gated: gates are tanh of a parameter, else 1."""

  config: TowerConfig
  gated: bool = False

  @nn.compact
  def __call__(self, x_BTD, padding_BT):
    c = self.config
    norm = lambda name: LayerNorm(c.tower_norm_eps, name=name)
    x_BTD = x_BTD + self._gate("attn_gate", TowerAttention(c, name="attn")(norm("attn_norm")(x_BTD), padding_BT))
    return x_BTD + self._gate("mlp_gate", TowerMlp(c, name="mlp")(norm("mlp_norm")(x_BTD)))

  def _gate(self, name, x_BTD):
    if not self.gated:
      return x_BTD
    gate = self.param(name, nn.initializers.constant(np.pi / 4), (1,))
    return x_BTD * jnp.tanh(gate.astype(jnp.float32)).astype(x_BTD.dtype)[None, None]


class Scanned(nn.Module):
  """One step of the scan over layers."""

  config: TowerConfig

  @nn.compact
  def __call__(self, x_BTD, padding_BT):
    return constrain(TowerBlock(self.config, name="block")(x_BTD, padding_BT), ROWS), None


def patches(config: TowerConfig, images_BYXC: jax.Array) -> jax.Array:
  """patches_BPF of uint8 pictures, normalised in f32: (pixel / 255 - mean) / std. A patch is its pixels, row by row.

  ValueError for pictures of another size than the config's.
  """
  check(images_BYXC=images_BYXC)
  c, (rows, columns), side = config, config.grid, config.patch
  if images_BYXC.shape[1:] != (c.image_height, c.image_width, 3):
    raise ValueError(f"A picture is {tuple(images_BYXC.shape[1:])}, but the model reads "
                     f"{(c.image_height, c.image_width, 3)}.")
  mean, std = (np.asarray(values, np.float32).reshape(1, 1, 1, 3) for values in (c.image_mean, c.image_std))
  pixels = (images_BYXC.astype(jnp.float32) * np.float32(1 / 255) - mean) / std
  return cut(pixels[:, : rows * side, : columns * side], side)


def cut(pixels_BYXC: jax.Array, side: int) -> jax.Array:
  """patches_BPF [B, rows * columns, side * side * 3] of pictures whose sides are multiples of `side`."""
  B, Y, X, C = pixels_BYXC.shape
  apart = pixels_BYXC.reshape(B, Y // side, side, X // side, side, C).transpose(0, 1, 3, 2, 4, 5)
  return apart.reshape(B, (Y // side) * (X // side), side * side * C)


def positions(config: TowerConfig) -> np.ndarray:
  """Which entry of the table of positions each patch takes: [rows * columns], int32.

  A picture of other sizes than the table's is laid over it: patch i of n takes entry floor(i side / n) of each axis. By
  integers: fractions in floating point take a neighbour, in bfloat16 at every 16th patch.
  """
  rows, columns = (np.arange(count) * config.tower_side // count for count in config.grid)
  return (rows[:, None] * config.tower_side + columns[None, :]).reshape(-1).astype(np.int32)


class Siglip(nn.Module):
  """uint8 pictures to hidden states of their patches after the last norm, [B, P, tower_width], in config.dtype."""

  config: TowerConfig

  @nn.compact
  def __call__(self, images_BYXC):
    c = self.config
    x_BTD = PatchEmbedding(c, name="patch")(patches(c, images_BYXC))
    table_PD = self.param("positions", nn.initializers.normal(c.init_std), (c.tower_side**2, c.tower_width))
    x_BTD = constrain(x_BTD + jnp.take(table_PD, positions(c), axis=0).astype(x_BTD.dtype)[None], ROWS)
    scanned = Scanned if c.remat == "none" else nn.remat(Scanned, prevent_cse=False, policy=remat_policy(c))
    scan = nn.scan(scanned, variable_axes={"params": 0}, split_rngs={"params": True}, length=c.tower_layers,
                   in_axes=nn.broadcast, unroll=min(c.unroll, c.tower_layers))
    x_BTD, _ = scan(c, name="layers")(x_BTD, None)
    return LayerNorm(c.tower_norm_eps, name="final_norm")(x_BTD)


class PatchEmbedding(nn.Module):
  """A linear map of the pixels of a patch, kernel [rows, columns, colours, tower_width]."""

  config: TowerConfig
  bias: bool = True

  @nn.compact
  def __call__(self, patches_BPF):
    c = self.config
    fan_in = 3 * c.patch**2
    kernel = self.param("kernel", nn.initializers.normal(fan_in**-0.5), (c.patch, c.patch, 3, c.tower_width))
    x_BTD = jnp.einsum("bpf,fe->bpe", patches_BPF.astype(c.dtype), kernel.reshape(fan_in, -1).astype(c.dtype))
    if not self.bias:
      return x_BTD
    bias = self.param("bias", nn.initializers.zeros, (c.tower_width,))
    return x_BTD + bias.astype(x_BTD.dtype)[None, None]
