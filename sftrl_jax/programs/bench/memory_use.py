"""The memory of a piece of work: of this process on a CPU, else of its devices."""

import contextlib
import ctypes
import dataclasses
import os
from pathlib import Path

import jax

STATUS = Path("/proc/self/status")


@dataclasses.dataclass(frozen=True)
class MemoryUse:
  """Bytes in use on all local devices when a measurement begins, and the peak until then. peak: -1 if unknown."""

  used: int
  peak: int

  @classmethod
  def now(cls) -> "MemoryUse":
    """On CPU devices, the memory of this process, whose peak Linux is asked to reset."""
    if jax.default_backend() == "cpu":
      reset = STATUS.with_name("clear_refs")
      if not STATUS.is_file() or not os.access(reset, os.W_OK):
        return cls(0, -1)
      with contextlib.suppress(AttributeError):   # glibc keeps freed memory, which would count as used
        ctypes.CDLL(None).malloc_trim(0)
      reset.write_text("5")   # resets VmHWM, see proc(5)
      return cls(_status("VmRSS"), 0)
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return cls(sum(device.get("bytes_in_use", 0) for device in stats),
               sum(device.get("peak_bytes_in_use", 0) for device in stats))

  def increase(self) -> float | None:
    """The peak since then, above what was in use then; None where an earlier peak was higher."""
    if jax.default_backend() == "cpu":
      return None if self.peak < 0 else float(max(0, _status("VmHWM") - self.used))
    now = self.now()
    return float(now.peak - self.used) if now.peak > self.peak else None


def _status(name: str) -> int:
  """Bytes, from a line of /proc/self/status such as `VmRSS:  1024 kB`."""
  line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
  return int(line.split()[1]) * 1024
