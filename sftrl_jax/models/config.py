"""The configuration of a decoder. A family of models is a value of this class, not a subclass."""

import dataclasses
from typing import Literal, get_args, get_origin

LAYER_KINDS = ("global", "local", "unrotated")
MOST_LAYERS = 10_000   # far above any model; a pattern of kinds is written out for each


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """A decoder-only transformer: RMSNorm, rotary positions, grouped-query attention, gated or plain MLP. What only some
  families have is off by default.

  vocab: tokens of the vocabulary (0: the tokenizer's size)
  width: channels of the residual stream
  layers: number of blocks
  heads: query heads
  kv_heads: key and value heads; a divisor of heads (0: as many as heads)
  head_dim: channels per head (0: width / heads)
  mlp_dim: channels inside the MLP (0: 4 * width)
  mlp: "gated" is down(act(gate x) * up x), "plain" is down(act(up x))
  activation: silu, relu, or gelu (tanh form)
  rope_theta: base of the rotary frequencies
  norm_eps: epsilon of RMSNorm
  tie_embeddings: unembed with the embedding table
  dtype: of activations and matmuls; softmax and log-probabilities are always f32
  attention: attention kernel of training rows: "splash" (TPU), "cudnn" (GPU, bfloat16), "blocks" (long rows on a CPU),
    "xla" (anywhere), or "auto", the fastest that the devices have; decoding over a cache always uses "xla". Towers of
    pictures use splash, "blocks" (a head at a time), or "xla"
  remat: what the backward pass recomputes: "full" whole blocks (up to 1/3 more FLOPs), "light" cheap parts, "none"
    nothing; "offload" recomputes as "light" and keeps what that saves in the host's memory (of a CPU: as "light");
    "auto" (of a run) is replaced by the fastest of none, light and full that fits the memory
  unroll: blocks unrolled per step of the scan over layers; `layers` unrolls all (fast on CPU, slow to compile)
  flatten: whether matmuls have rows and tokens as one axis, which is equal to rounding and up to twice as fast on a
    CPU; "auto" is True where one CPU computes
  init_std: standard deviation of embedding and unembedding at initialisation
  window: tokens that a token of a local layer attends to at most, itself included (0: no local layers)
  pattern: kinds of layers, repeated over the layers and cut off at the last: "global", "local" (with a window) or
    "unrotated" (global, and without positions: SmolLM3)
  qkv_bias: a bias on queries, keys and values (Qwen2)
  o_bias: a bias on the output of attention (Llama's attention_bias is both)
  mlp_bias: a bias on every projection of the MLP
  qk_norm: RMSNorm over the channels of each query and key, before they are rotated (Qwen3, Gemma 3)
  qk_norm_whole: qk_norm is over the channels of all heads together (OLMo 2)
  pre_norms: RMSNorm before attention and before the MLP (OLMo 2 has post_norms only)
  post_norms: RMSNorm also after attention and after the MLP (Gemma, OLMo 2)
  norm_plus_one: RMSNorm multiplies by 1 + scale (Gemma)
  embed_scale: factor of embeddings, in the dtype of activations (Gemma: the square root of width)
  rope_local_theta: base of the rotary frequencies of local layers, which are then never stretched (0: as global ones)
  rope_scaling: how positions are stretched: none, linear (all frequencies / rope_factor), or llama3 and yarn (slow
    ones)
  rope_factor: by which factor rope_scaling stretches
  rope_low: llama3, yarn: turns within rope_context up to which a frequency is divided by rope_factor
  rope_high: llama3, yarn: turns within rope_context from which on a frequency stays
  rope_context: llama3, yarn: positions the family was first trained for
  rope_gain: factor of rotated queries and keys (yarn)
  rope_part: share of the channels of a head that are rotated, the first ones (Phi-4-mini: 0.75)
  query_scale: factor of queries (0: head_dim ** -0.5)
  attention_softcap: scores of attention become cap * tanh(score / cap), before the mask (Gemma 2; 0: they stay)
  residual_scale: factor of what attention and the MLP add to the residual stream (Granite)
  logits_divisor: logits are divided by it (Granite)
  logits_softcap: logits become cap * tanh(logit / cap), after that (Gemma 2; 0: they stay)
  context: most positions the family was trained for (0: unknown); information only, limits no shape
  """

  vocab: int = 0
  width: int = 64
  layers: int = 3
  heads: int = 4
  kv_heads: int = 0
  head_dim: int = 0
  mlp_dim: int = 0
  mlp: Literal["gated", "plain"] = "gated"
  activation: Literal["silu", "relu", "gelu"] = "silu"
  rope_theta: float = 10_000.0
  norm_eps: float = 1e-6
  tie_embeddings: bool = False
  dtype: Literal["float32", "bfloat16"] = "float32"
  attention: Literal["auto", "xla", "blocks", "splash", "cudnn"] = "auto"
  remat: Literal["none", "full", "light", "offload", "auto"] = "full"
  unroll: int = 1
  flatten: bool | Literal["auto"] = "auto"
  init_std: float = 0.02
  window: int = 0
  pattern: tuple[str, ...] = ("global",)
  qkv_bias: bool = False
  o_bias: bool = False
  mlp_bias: bool = False
  qk_norm: bool = False
  qk_norm_whole: bool = False
  pre_norms: bool = True
  post_norms: bool = False
  norm_plus_one: bool = False
  embed_scale: float = 1.0
  rope_local_theta: float = 0.0
  rope_scaling: Literal["none", "linear", "llama3", "yarn"] = "none"
  rope_factor: float = 1.0
  rope_low: float = 1.0
  rope_high: float = 4.0
  rope_context: int = 0
  rope_gain: float = 1.0
  rope_part: float = 1.0
  query_scale: float = 0.0
  attention_softcap: float = 0.0
  residual_scale: float = 1.0
  logits_divisor: float = 1.0
  logits_softcap: float = 0.0
  context: int = 0

  @property
  def kinds(self) -> tuple[str, ...]:
    """The kind of every layer, from the first to the last."""
    return tuple(self.pattern[index % len(self.pattern)] for index in range(self.layers))

  @property
  def rotated(self) -> int:
    """How many channels of a head are rotated, from the first on."""
    return int(self.head_dim * self.rope_part)

  def __post_init__(self):
    fill = lambda name, value: object.__setattr__(self, name, getattr(self, name) or value)
    for name in ("width", "layers", "heads", "unroll"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
    for name in ("layers", "unroll"):
      if getattr(self, name) > MOST_LAYERS:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at most {MOST_LAYERS}.")
    if self.vocab < 0:
      raise ValueError(f"vocab is {self.vocab}; it must be positive, or 0 for the tokenizer's size.")
    for name in ("kv_heads", "head_dim", "mlp_dim", "window", "rope_context", "context"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1, or 0 for the default.")
    for name in ("rope_theta", "norm_eps", "init_std", "embed_scale", "rope_low", "rope_high", "rope_gain",
                 "residual_scale", "logits_divisor"):
      if not getattr(self, name) > 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be positive.")
    fill("kv_heads", self.heads)
    if self.heads % self.kv_heads:
      raise ValueError(f"kv_heads is {self.kv_heads}; it must divide heads = {self.heads}.")
    if not self.head_dim and self.width % self.heads:
      raise ValueError(f"heads is {self.heads}; it must divide width = {self.width}, or set head_dim.")
    fill("head_dim", self.width // self.heads)
    fill("mlp_dim", 4 * self.width)
    if self.head_dim % 2:
      raise ValueError(f"head_dim is {self.head_dim}; rotary positions need an even number of channels per head.")
    if self.qk_norm_whole and not self.qk_norm:
      raise ValueError("qk_norm_whole is True, but qk_norm is False: it says over what qk_norm is, so it needs both.")
    for field in dataclasses.fields(DecoderConfig):
      known = get_args(field.type) if get_origin(field.type) is Literal else ()
      if known and getattr(self, field.name) not in known:
        raise ValueError(f"{field.name} is {getattr(self, field.name)!r}; it must be one of {', '.join(known)}.")
    self._check_layers()
    self._check_rotary()

  def _check_layers(self):
    if isinstance(self.pattern, str) or not self.pattern or set(self.pattern) - set(LAYER_KINDS):
      raise ValueError(f"pattern is {self.pattern!r}; it must be a list of {', '.join(map(repr, LAYER_KINDS))}, such "
                       "as ('local', 'global').")
    object.__setattr__(self, "pattern", tuple(self.pattern))
    if bool(self.window) != ("local" in self.pattern):
      raise ValueError(f"window is {self.window}, but pattern is {self.pattern}: local layers need a window of at "
                       "least 1, and without local layers it must be 0.")

  def _check_rotary(self):
    for name in ("rope_local_theta", "query_scale", "attention_softcap", "logits_softcap"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be positive, or 0 for the default.")
    if self.rope_local_theta and "local" not in self.pattern:
      raise ValueError(f"rope_local_theta is {self.rope_local_theta}, but pattern is {self.pattern}: without local "
                       "layers it must be 0.")
    if self.rope_factor < 1 or (self.rope_scaling == "none" and self.rope_factor != 1):
      raise ValueError(f"rope_factor is {self.rope_factor}, and rope_scaling is {self.rope_scaling!r}: it must be at "
                       "least 1, and with 'none' it must be 1.")
    if self.rotated % 2 or not 2 <= self.rotated <= self.head_dim:
      raise ValueError(f"rope_part is {self.rope_part}, which rotates {self.rotated} of head_dim = {self.head_dim} "
                       "channels: it must be above 0, at most 1, and give an even number of channels.")
    if self.rope_gain != 1 and self.rope_scaling != "yarn":
      raise ValueError(f"rope_gain is {self.rope_gain}, and rope_scaling is {self.rope_scaling!r}: without 'yarn' it "
                       "must be 1.")
    numbers = self.rope_context, self.rope_low, self.rope_high
    if self.rope_scaling in ("llama3", "yarn") and not (self.rope_context and self.rope_low < self.rope_high):
      raise ValueError(f"rope_scaling is {self.rope_scaling!r}, but rope_context, rope_low, rope_high are {numbers}: "
                       "it needs a context, and 0 < rope_low < rope_high.")
