"""A decoder in numbers. Families are values of this class, not subclasses."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """A decoder-only transformer: RMSNorm, rotary positions, grouped-query attention, gated or plain MLP.

  vocab: tokens of the vocabulary (0: the tokenizer's size)
  width: channels of the residual stream
  layers: number of blocks
  heads: query heads
  kv_heads: key and value heads; a divisor of heads (0: as many as heads)
  channels: channels per head (0: width / heads)
  ffn: channels inside the MLP (0: 4 * width)
  mlp: "gated" is down(act(gate x) * up x), "plain" is down(act(up x))
  activation: silu, relu, or gelu (tanh form)
  rope_theta: base of the rotary frequencies
  norm_eps: epsilon of RMSNorm
  tied: unembed with the embedding table
  dtype: of activations and matmuls; softmax and log-probabilities are always f32
  remat: "full" recomputes each block in the backward pass (memory for 1/3 more FLOPs), "none" keeps activations
  unroll: blocks unrolled per step of the scan over layers; `layers` unrolls all (fast on CPU, slow to compile)
  init_std: standard deviation of embedding and unembedding at birth
  """

  vocab: int = 0
  width: int = 64
  layers: int = 3
  heads: int = 4
  kv_heads: int = 0
  channels: int = 0
  ffn: int = 0
  mlp: Literal["gated", "plain"] = "gated"
  activation: Literal["silu", "relu", "gelu"] = "silu"
  rope_theta: float = 10_000.0
  norm_eps: float = 1e-6
  tied: bool = False
  dtype: Literal["float32", "bfloat16"] = "float32"
  remat: Literal["none", "full"] = "full"
  unroll: int = 1
  init_std: float = 0.02

  def __post_init__(self):
    fill = lambda name, value: object.__setattr__(self, name, getattr(self, name) or value)
    for name in ("width", "layers", "heads", "unroll"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
    for name in ("kv_heads", "channels", "ffn"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1, or 0 for the default.")
    for name in ("rope_theta", "norm_eps", "init_std"):
      if not getattr(self, name) > 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be positive.")
    fill("kv_heads", self.heads)
    if self.heads % self.kv_heads:
      raise ValueError(f"kv_heads is {self.kv_heads}; it must divide heads = {self.heads}.")
    if not self.channels and self.width % self.heads:
      raise ValueError(f"heads is {self.heads}; it must divide width = {self.width}, or set channels.")
    fill("channels", self.width // self.heads)
    fill("ffn", 4 * self.width)
    if self.channels % 2:
      raise ValueError(f"channels is {self.channels}; rotary positions need an even number of channels per head.")
    for name, known in (("mlp", ("gated", "plain")), ("activation", ("silu", "relu", "gelu")),
                        ("dtype", ("float32", "bfloat16")), ("remat", ("none", "full"))):
      if getattr(self, name) not in known:
        raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}.")
