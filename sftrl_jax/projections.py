"""The matrices inside a block, in one table; and one for each other stack of blocks that models may have.

Sharding rules, adapters, optimizer labels, names in checkpoints, decoding matrices and FLOPs follow from it. To add a
projection, add an entry here and apply it in models/decoder.py; a new axis also needs its place in parallel/rules.py.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

STACK = "layers/block/"   # where a parameter tree has the blocks, stacked over the layers
TOWER = "vision/tower/layers/block/"   # the same of the tower that reads pictures
GLOBAL = "vision/tower/global_layers/block/"   # of the tower's second part, where it has one
CROSS = "cross_layers/block/"   # of blocks of the decoder that attend to pictures instead of text


class Axis(NamedTuple):
  """An axis of kernels: its letter in equations, and the field of the model's config that gives its size."""

  letter: str
  field: str


AXES = {"embed": Axis("d", "width"), "heads": Axis("h", "heads"), "kv_heads": Axis("k", "kv_heads"),
        "channels": Axis("c", "head_dim"), "ffn": Axis("f", "mlp_dim"),
        "tower_embed": Axis("e", "tower_width"), "tower_heads": Axis("g", "tower_heads"),
        "tower_channels": Axis("a", "tower_head_dim"), "tower_ffn": Axis("m", "tower_mlp_dim")}


def _always(config: Any) -> bool:
  return True


@dataclasses.dataclass(frozen=True)
class Projection:
  """A linear map at PATH of a stack, with a kernel [*reads, *writes] and perhaps a bias [*writes].

  path: PART/NAME, the module of the block and the name in it
  reads, writes: logical axes, of AXES
  hf: its name within a layer of a Hugging Face checkpoint, which has it as a weight [written, read]
  gguf: the same of a GGUF file
  present: whether the model of a DecoderConfig has it
  bias: the field of DecoderConfig that says whether the model has its bias ("": no model has one)
  """

  path: str
  reads: tuple[str, ...]
  writes: tuple[str, ...]
  hf: str
  gguf: str
  present: Callable[[Any], bool] = _always
  bias: str = ""

  @property
  def name(self) -> str:
    return self.path.rpartition("/")[2]

  @property
  def matrices(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """{leaf: (axes it reads, axes it writes)} of the kernel and of both factors of an adapter beside it."""
    return {"kernel": (self.reads, self.writes), "a": (self.reads, ("rank",)), "b": (("rank",), self.writes)}

  @property
  def weight_axes(self) -> str:
    """The kernel's axes -> a checkpoint's, such as "dhc -> hc d"; see checkpoints/families/table.py."""
    read, written = _letters(self.reads), _letters(self.writes)
    return f"{read}{written} -> {written} {read}"

  @property
  def bias_axes(self) -> str:
    return f"{_letters(self.writes)} -> {_letters(self.writes)}"

  def has_bias(self, config: Any) -> bool:
    return bool(self.bias) and getattr(config, self.bias)

  def shape(self, config: Any) -> tuple[int, ...]:
    """Of one layer's kernel."""
    return tuple(getattr(config, AXES[axis].field) for axis in (*self.reads, *self.writes))

  def size(self, config: Any) -> int:
    """Numbers of one layer's kernel."""
    return math.prod(self.shape(config))


def _letters(axes: tuple[str, ...]) -> str:
  return "".join(AXES[axis].letter for axis in axes)


def _gated(config: Any) -> bool:
  return config.mlp == "gated"


PROJECTIONS: dict[str, Projection] = {projection.path: projection for projection in (
    Projection("attn/q", ("embed",), ("heads", "channels"), "self_attn.q_proj", "attn_q", bias="qkv_bias"),
    Projection("attn/k", ("embed",), ("kv_heads", "channels"), "self_attn.k_proj", "attn_k", bias="qkv_bias"),
    Projection("attn/v", ("embed",), ("kv_heads", "channels"), "self_attn.v_proj", "attn_v", bias="qkv_bias"),
    Projection("attn/o", ("heads", "channels"), ("embed",), "self_attn.o_proj", "attn_output", bias="o_bias"),
    Projection("mlp/gate", ("embed",), ("ffn",), "mlp.gate_proj", "ffn_gate", present=_gated,
               bias="mlp_bias"),
    Projection("mlp/up", ("embed",), ("ffn",), "mlp.up_proj", "ffn_up", bias="mlp_bias"),
    Projection("mlp/down", ("ffn",), ("embed",), "mlp.down_proj", "ffn_down", bias="mlp_bias"),
)}

# The blocks of a tower of pictures.
_TOWER_HEADS = ("tower_heads", "tower_channels")
TOWER_PROJECTIONS: dict[str, Projection] = {projection.path: projection for projection in (
    Projection("attn/q", ("tower_embed",), _TOWER_HEADS, "self_attn.q_proj", "", bias="tower_biases"),
    Projection("attn/k", ("tower_embed",), _TOWER_HEADS, "self_attn.k_proj", "", bias="tower_biases"),
    Projection("attn/v", ("tower_embed",), _TOWER_HEADS, "self_attn.v_proj", "", bias="tower_biases"),
    Projection("attn/o", _TOWER_HEADS, ("tower_embed",), "self_attn.out_proj", "", bias="tower_biases"),
    Projection("mlp/up", ("tower_embed",), ("tower_ffn",), "mlp.fc1", "", bias="tower_mlp_biases"),
    Projection("mlp/down", ("tower_ffn",), ("tower_embed",), "mlp.fc2", "", bias="tower_mlp_biases"),
)}
# Every stack of blocks, and its projections. Blocks that attend to pictures have those of the decoder.
STACKS: dict[str, dict[str, Projection]] = {
    STACK: PROJECTIONS, CROSS: PROJECTIONS, TOWER: TOWER_PROJECTIONS, GLOBAL: TOWER_PROJECTIONS}

# Kernels of what reads pictures that are in no stack, and beside which adapters may stand: (axes read, axes written).
# A convolution reads the pixels of its window.
SINGLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "vision/connector/proj": (("ffn",), ("embed",)), "vision/connector/up": (("embed",), ("ffn",)),
    "vision/connector/down": (("ffn",), ("embed",)),
    **{f"vision/tower/conv/{number}": (("norm",) * 3, ("norm",)) for number in range(3)}}


def is_stacked(path: str) -> bool:
  """Whether a parameter has layers on its first axis."""
  return path.startswith(tuple(STACKS))


def stack_of(path: str) -> str:
  """The stack in which a parameter is; "" for one that is in none."""
  return next((stack for stack in STACKS if path.startswith(stack)), "")
