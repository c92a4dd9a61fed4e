"""The peaks of this machine, measured: matmuls and memory, by the same compiler that runs the model."""

import dataclasses
import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sftrl_jax.programs.bench.paired_timing import timed
from sftrl_jax.programs.runtime.process import cores

LONG = 0.02   # seconds that one matmul should take, so that its launch does not count
REPEATS = 5
MEGABYTES = 256   # moved by one measurement of bandwidth: more than the caches of a CPU


@dataclasses.dataclass(frozen=True)
class MachinePeak:
  """FLOP/s of square matmuls by dtype, and bytes/s to and from memory, of one device."""

  float32: float
  bfloat16: float
  bandwidth: float
  device: str
  devices: int
  threads: int

  def matmul(self, dtype: str) -> float:
    return getattr(self, dtype)


def measure(long: float = LONG, megabytes: int = MEGABYTES) -> MachinePeak:
  """Takes about a second. Each peak is the best of several runs, since other processes only slow a run down."""
  device = jax.devices()[0]
  return MachinePeak(_matmul("float32", long), _matmul("bfloat16", long), _bandwidth(megabytes), device.device_kind,
                     jax.device_count(), threads())


def threads() -> int:
  """CPU threads that XLA uses: NPROC, which mesh.cpu_threads sets, else those that this process may use."""
  nproc = os.environ.get("NPROC", "")
  if nproc.isdecimal() and int(nproc):
    return int(nproc)
  return cores()


def _matmul(dtype: str, long: float) -> float:
  """FLOP/s of a square matmul, of the smallest power of two that takes `long` seconds."""
  multiply = jax.jit(lambda a, b: a @ b)
  size, seconds = 256, 0.0
  while True:
    left, right = (jax.random.normal(jax.random.key(i), (size, size), jnp.dtype(dtype)) for i in range(2))
    seconds = _best(functools.partial(multiply, left, right))
    if seconds >= long or size >= 16_384:
      return 2 * size**3 / seconds
    size *= 2


def _bandwidth(megabytes: int) -> float:
  """Bytes/s: the better of reading a matrix, as decoding reads weights, and of updating an array in place."""
  count = megabytes * 2**20 // 4
  columns = 1024
  matrix, vector = jnp.ones((count // columns, columns)), jnp.ones(columns)
  read = _best(functools.partial(jax.jit(lambda m, v: m @ v), matrix, vector))
  held = [jnp.ones(count)]
  scale = jax.jit(lambda x: x * 1.0001, donate_argnums=0)

  def in_place() -> jax.Array:
    held[0] = scale(held[0])
    return held[0]

  return max(4 * count / read, 8 * count / _best(in_place))


def _best(work: Callable[[], jax.Array]) -> float:

  def run() -> None:
    jax.block_until_ready(work())

  run()
  return min(timed(run) for _ in range(REPEATS))
