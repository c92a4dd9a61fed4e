"""Training runs on TPUs whose speed is published: what was trained, on what, how, and what was measured. Data only.

All are dense text models trained by MaxText in bf16 on one slice, with f32 parameters, AdamW, and an attention kernel
that skips masked blocks. Left out are runs in int8 and fp8, mixtures of experts, images and video, models whose layers
differ, and runs over several slices, whose network is not published.

MaxText has counted FLOPs in three ways, and each figure is in the count of its day:
- `parameters`, until 2024-05: 6 x all parameters x tokens, and half of the scores of attention (of causal attention)
- `all scores`, until 2025-07: 6 x the parameters of matrix products x tokens, and all scores
- `half of the scores`, since then: the same, with half of the scores
The tiers of v4, v5e and v5p were published on 2023-12-15 with the scripts and the base configuration of that commit.
Later commits changed batches, dimensions and the count, and left the figures as they were.
"""

import dataclasses

from sftrl_jax.models.config import DecoderConfig

MAXTEXT = "https://github.com/AI-Hypercomputer/maxtext/tree"
RECIPES = "https://github.com/AI-Hypercomputer/tpu-recipes/tree/c8cfe2f6/training"
TIERS = f"{MAXTEXT}/76bd53b0/MaxText/configs"
COUNTS = ("parameters", "all scores", "half of the scores")
ATTENTION = "attn/scores"   # in `saved`: what the backward pass reads of attention, beside queries, keys and values
QKV = ("attn/q", "attn/k", "attn/v")
QKVO = (*QKV, "attn/o")
PROJECTED = (*QKVO, "mlp/gate", "mlp/up", "mlp/down")


@dataclasses.dataclass(frozen=True)
class PublishedRun:
  """One run. Exactly as many of seconds, tflops and tokens_per_second as were published are not 0.

  model: key of MODELS; chip: kind, of parallel/chips.py; chips: of the slice
  rows: of a step, on one chip; length: tokens of a row
  saved: paths of projections, or ATTENTION, whose results the backward pass reads from memory of device or host
    instead of computing them again (MaxText's remat_policy)
  tensor: chips that share each matrix (tensor parallelism), or a row (context); parameters are split over all chips
  count: how the publisher counts FLOPs, of COUNTS
  seconds: of a step; tflops: of 1e12 counted FLOPs a second and chip; tokens_per_second: of a chip
  source: address of the figure
  """

  model: str
  chip: str
  chips: int
  rows: float
  length: int
  count: str
  source: str
  saved: tuple[str, ...] = ()
  tensor: int = 1
  seconds: float = 0.0
  tflops: float = 0.0
  tokens_per_second: float = 0.0

  @property
  def name(self) -> str:
    return f"{self.chip} x {self.chips} {self.model}" + (f" {self.length // 1024}k" if self.length > 8192 else "")


def _llama(width: int, layers: int, heads: int, kv_heads: int, mlp_dim: int, vocab: int) -> DecoderConfig:
  return DecoderConfig(vocab=vocab, width=width, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=128,
                       mlp_dim=mlp_dim, dtype="bfloat16")


def _tier(width: int, layers: int, heads: int, mlp_dim: int) -> DecoderConfig:
  """A tier of 2023: heads of 256 channels, a plain MLP, tied embeddings."""
  return DecoderConfig(vocab=32768, width=width, layers=layers, heads=heads, head_dim=256, mlp_dim=mlp_dim, mlp="plain",
                       tie_embeddings=True, dtype="bfloat16")


MODELS = {
    "tier-16b": _tier(5120, 32, 32, 32768), "tier-32b": _tier(10240, 32, 32, 32768),
    "tier-64b": _tier(10240, 64, 32, 32768), "tier-128b": _tier(10240, 64, 64, 65536),
    "tier-256b": _tier(20480, 64, 64, 65536), "tier-512b": _tier(20480, 128, 64, 65536),
    "tier-1024b": _tier(20480, 128, 128, 131072),
    "tier-22b": _tier(6144, 48, 24, 24576), "tier-52b": _tier(12288, 32, 32, 49152),
    "llama2-70b": _llama(8192, 80, 64, 8, 28672, 32000), "llama3.1-8b": _llama(4096, 32, 32, 8, 14336, 128256),
    "llama3.1-70b": _llama(8192, 80, 64, 8, 28672, 128256),
    "llama3.1-405b": _llama(16384, 126, 128, 8, 53248, 128256),
    "mistral-7b": _llama(4096, 32, 32, 8, 14336, 32000),
    "gpt3-175b": DecoderConfig(vocab=50304, width=12288, layers=96, heads=96, head_dim=128, mlp_dim=49152, mlp="plain",
                               tie_embeddings=True, dtype="bfloat16"),
}


def _tiers(chip: str, chips: int, model: str, rows: float, tflops: float, **more) -> PublishedRun:
  return PublishedRun(model, chip, chips, rows, 2048, COUNTS[0], f"{TIERS}/{chip}", tflops=tflops, **more)


def _trillium(chips: int, model: str, folder: str, rows: float, seconds: float, tflops: float, **more) -> PublishedRun:
  more = {"length": 8192, "saved": QKVO, "count": COUNTS[1], **more}
  return PublishedRun(model, "v6e", chips, rows, source=f"{RECIPES}/trillium/{folder}", seconds=seconds, tflops=tflops,
                      **more)


def _ironwood(chips: int, model: str, rows: float, seconds: float, tflops: float, **more) -> PublishedRun:
  more = {"length": 8192, "saved": (*QKV, ATTENTION), **more}
  return PublishedRun(model, "v7x", chips, rows, count=COUNTS[2], source=f"{RECIPES}/ironwood", seconds=seconds,
                      tflops=tflops, **more)


RUNS = (
    _tiers("v4", 64, "tier-22b", 16, 156), _tiers("v4", 192, "tier-52b", 10, 154),
    _tiers("v5e", 256, "tier-16b", 6, 120), _tiers("v5e", 256, "tier-32b", 4, 132),
    _tiers("v5e", 256, "tier-64b", 2, 118), _tiers("v5e", 256, "tier-128b", 1, 110, tensor=16),
    _tiers("v5p", 64, "tier-32b", 8, 328, saved=PROJECTED, tensor=4),
    _tiers("v5p", 64, "tier-64b", 4, 323, saved=PROJECTED, tensor=4),
    _tiers("v5p", 128, "tier-128b", 2, 315, saved=PROJECTED, tensor=8),
    _tiers("v5p", 256, "tier-128b", 2, 316, saved=PROJECTED, tensor=8),
    _tiers("v5p", 512, "tier-256b", 2, 308, saved=PROJECTED, tensor=8),
    _tiers("v5p", 512, "tier-512b", 2, 294, tensor=16),
    _tiers("v5p", 1024, "tier-1024b", 2, 254, tensor=16), _tiers("v5p", 2048, "tier-1024b", 2, 297, tensor=16),
    PublishedRun("llama2-70b", "v5p", 512, 4, 4096, COUNTS[2], f"{MAXTEXT}/e591f30c/docs/reference/models/tiering.md",
                 saved=(*QKVO, "mlp/down"), tflops=300.2, tokens_per_second=692),
    PublishedRun("llama3.1-405b", "v5p", 512, 2, 8192, COUNTS[2], f"{RECIPES}/v5p/Llama3.1-405B-MaxText",
                 saved=(ATTENTION, "mlp/down"), seconds=131.474, tflops=314.530),
    _trillium(8, "llama3.1-8b", "Llama3.1-8B-MaxText/v6e-8", 3, 3.443, 413.433),
    _trillium(16, "llama3.1-8b", "Llama3.1-8B-MaxText/v6e-16", 3, 3.393, 419.485),
    _trillium(32, "llama3.1-8b", "Llama3.1-8B-MaxText/v6e-32", 3, 3.495, 407.225),
    _trillium(64, "llama3.1-8b", "Llama3.1-8B-MaxText/v6e-64", 5, 5.652, 419.701),
    _trillium(128, "llama3.1-8b", "Llama3.1-8B-MaxText/v6e-128", 4, 4.602, 412.319),
    _trillium(256, "llama3.1-8b", "Llama3.1-8B-MaxText/v6e-256", 4, 4.546, 417.397),
    _trillium(32, "llama3.1-70b", "Llama3.1-70B-MaxText/v6e-32", 2, 17.790, 443.385, saved=QKV),
    _trillium(64, "llama3.1-70b", "Llama3.1-70B-MaxText/v6e-64", 2, 18.688, 422.091, saved=QKV),
    _trillium(128, "llama3.1-70b", "Llama3.1-70B-MaxText/v6e-128", 4, 34.786, 453.500, saved=QKV),
    _trillium(256, "llama3.1-70b", "Llama3.1-70B-MaxText/v6e-256", 5, 42.656, 462.297, saved=QKV),
    _trillium(256, "llama2-70b", "Llama2-70B-MaxText", 2, 9.052, 402.274, length=4096, saved=QKV),
    _trillium(8, "mistral-7b", "Mistral-7B-MaxText", 6, 6.320, 431.981),
    _trillium(256, "gpt3-175b", "GPT3-175B-MaxText/bf16", 3, 17.182, 384.891, length=2048, saved=()),
    _ironwood(64, "llama3.1-70b", 4, 12.20, 1207.05), _ironwood(256, "llama3.1-70b", 4, 12.27, 1199.67),
    _ironwood(256, "llama3.1-70b", 0.25, 34.02, 897.94, length=131072, tensor=4, saved=(*QKV, ATTENTION, "mlp/down")),
    _ironwood(256, "llama3.1-405b", 6, 98.34, 1261.40, saved=("attn/k", "attn/v", "mlp/down")),
)
