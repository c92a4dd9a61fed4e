"""How fast a run is, in what people compare: tokens, FLOPs and bytes a second, and shares of what its chips could."""

import jax

from sftrl_jax.parallel import chips
from sftrl_jax.training.position import Position

PREFIX = "throughput/"


def of_step(before: Position, after: Position, seconds: float, *, updating: float = 0.0, rolling: float = 0.0,
            read: float = 0.0) -> dict[str, float]:
  """Of one step that took so many seconds, all devices together where nothing else is said.

  mfu = FLOPs of the model (models/flops.py: recomputation under remat is not counted) / (seconds x devices x the bf16
  peak of a chip) (Chowdhery et al. 2022, appendix B); update_mfu is that of the updates alone, in their seconds.
  decode_bandwidth = bytes that sampling had to read / (seconds of rollouts x devices x a chip's bandwidth), prefill and
  waiting for hosts included. Shares of a chip that is not in parallel/chips.py, a CPU among them, are left out.

  updating, rolling: seconds of updates and of rollouts, where a step has both
  read: bytes that sampling had to read
  """
  devices, chip = jax.device_count(), chips.of(jax.devices()[0].device_kind)
  spent, trained = after.total_flops - before.total_flops, after.train_flops - before.train_flops
  told = {"tokens_per_second": (after.tokens - before.tokens) / seconds,
          "tflops_per_device": spent / seconds / devices / 1e12}
  if rolling:
    told["decode_bytes_per_second"] = read / rolling
  if chip:
    told["mfu"] = spent / (seconds * devices * chip.flops)
    if updating:
      told["update_mfu"] = trained / (updating * devices * chip.flops)
    if rolling:
      told["decode_bandwidth"] = read / (rolling * devices * chip.bandwidth)
  return {PREFIX + name: value for name, value in told.items()}


def chip_hours(position: Position) -> float:
  """Of the steps so far, evaluation and compilation left out."""
  return position.seconds * jax.device_count() / 3600


def said(told: dict[str, float]) -> str:
  """For the progress bar."""
  tokens, mfu = told.get(f"{PREFIX}tokens_per_second"), told.get(f"{PREFIX}mfu")
  if tokens is None:
    return ""
  short = f"{tokens / 1000:.1f}k" if tokens >= 1000 else f"{tokens:.0f}"
  return f"{short} tok/s" + (f", MFU {mfu:.0%}" if mfu is not None else "")
