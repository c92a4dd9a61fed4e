"""The speed of a run: tokens, FLOPs and bytes a second, and their shares of what the chips can do."""

import jax

from sftrl_jax.parallel import chips
from sftrl_jax.training.position import Position

PREFIX = "throughput/"


def of_step(before: Position, after: Position, seconds: float, *, updating: float = 0.0, rolling: float = 0.0,
            read: float = 0.0) -> dict[str, float]:
  """Metrics of one step that took so many seconds; of all devices together, except where a name says per device.

  mfu = FLOPs of the model (models/flops.py: recomputation under remat does not count) / (seconds x devices x the bf16
  peak of a chip) (Chowdhery et al. 2022, appendix B); update_mfu is that of the updates alone, in their seconds.
  decode_bandwidth = bytes that sampling had to read / (seconds of rollouts x devices x a chip's bandwidth), where the
  seconds include prefill and waiting for hosts. A chip that parallel/chips.py lacks, such as a CPU, has no shares.

  updating, rolling: seconds of updates and of rollouts, where a step has both
  read: bytes that sampling had to read
  """
  devices, chip = jax.device_count(), chips.of(jax.devices()[0].device_kind)
  spent, trained = after.total_flops - before.total_flops, after.train_flops - before.train_flops
  rates = {"tokens_per_second": (after.tokens - before.tokens) / seconds,
           "tflops_per_device": spent / seconds / devices / 1e12}
  if rolling:
    rates["decode_bytes_per_second"] = read / rolling
  if chip:
    rates["mfu"] = spent / (seconds * devices * chip.flops)
    if updating:
      rates["update_mfu"] = trained / (updating * devices * chip.flops)
    if rolling:
      rates["decode_bandwidth"] = read / (rolling * devices * chip.bandwidth)
  return {PREFIX + name: value for name, value in rates.items()}


def chip_hours(position: Position) -> float:
  """Chip-hours of the steps so far, without evaluation and compilation."""
  return position.seconds * jax.device_count() / 3600


def summary(metrics: dict[str, float]) -> str:
  """Tokens a second and MFU, for the progress bar."""
  tokens, mfu = metrics.get(f"{PREFIX}tokens_per_second"), metrics.get(f"{PREFIX}mfu")
  if tokens is None:
    return ""
  short = f"{tokens / 1000:.1f}k" if tokens >= 1000 else f"{tokens:.0f}"
  return f"{short} tok/s" + (f", MFU {mfu:.0%}" if mfu is not None else "")
