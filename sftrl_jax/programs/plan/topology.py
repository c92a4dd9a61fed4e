"""TPU slices by the names under which the cloud rents them.

v4-N and v5p-N count TensorCores, of which a chip has two; v5e-N (also v5litepod-N) and v6e-N count chips. This file
imports no JAX, so that an unknown name is an error at once.
"""

import dataclasses
import math
import os
import re

from sftrl_jax.parallel.chips import TPUS, Chip
from sftrl_jax.programs.config.errors import ConfigError, closest, first_line

# Chips of a slice -> its topology.
FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBIC = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8",
         1024: "8x8x16"}
WIRED = {"v4": CUBIC, "v5p": CUBIC, "v5e": FLAT, "v6e": FLAT}
ALIASES = {"v5litepod": "v5e"}
LOCAL = ("local", "cpu", "gpu")
# The environment that the TPU compiler needs on a machine without TPUs. Several processes may compile at once. The
# compiler ends the process if XLA_FLAGS has a flag that it does not know, such as one of another version of XLA.
FORCED = ("JAX_PLATFORMS", "XLA_FLAGS")
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1",
               "TPU_ACCELERATOR_TYPE": "v5litepod-16", "TPU_WORKER_HOSTNAMES": "localhost"}


@dataclasses.dataclass(frozen=True)
class Slice:
  """A slice of chips. shape: its topology, such as 4x4; copies: as many slices, joined by the data centre's network."""

  name: str
  chip: Chip
  shape: str
  copies: int = 1

  @property
  def chips(self) -> int:
    return math.prod(map(int, self.shape.split("x"))) * self.copies

  @property
  def hosts(self) -> int:
    chips = self.chips // self.copies
    return self.copies * (1 if chips <= 8 and self.chip.cores == 1 else chips // 4)

  def __str__(self) -> str:
    return (f"{self.name}: {self.chips} chips ({self.shape}{f', {self.copies} slices' if self.copies > 1 else ''}), "
            f"{self.hosts} host{'s' * (self.hosts > 1)}, {self.chip.hbm_gib:g} GiB HBM a chip")


def names() -> list[str]:
  """Every slice by its name."""
  return [f"{kind}-{chips * TPUS[kind].cores}" for kind, wired in WIRED.items() for chips in wired]


def parse(name: str) -> Slice:
  """The slice of this name; `2xv5e-16` is two slices. ConfigError, which lists the known names, for any other."""
  match = re.fullmatch(r"(?:(\d{1,3})x)?([a-z0-9]+)-(\d{1,5})", name)
  copies, kind, size = (int(match[1] or 1), ALIASES.get(match[2], match[2]), int(match[3])) if match else (1, "", 0)
  if kind in TPUS and copies and size % TPUS[kind].cores == 0 and size // TPUS[kind].cores in WIRED[kind]:
    return Slice(name, TPUS[kind], WIRED[kind][size // TPUS[kind].cores], copies)
  known = "\n".join(f"  {kind}: {', '.join(known for known in names() if known.startswith(kind))}" for kind in TPUS)
  close = closest(name, names())
  guess = f": did you mean {close}?" if close else "."
  raise ConfigError(f"--topology={name} is not known{guess} There are:\n{known}\n  or local: the devices of this "
                    "machine. v5litepod-N is v5e-N, and 2xv5e-16 is two slices. v4 and v5p count cores, two a chip.")


def larger(slice_: Slice) -> Slice | None:
  """The next larger slice of these chips; None for the largest."""
  sizes = [size for size in WIRED[slice_.chip.kind] if size * slice_.copies > slice_.chips]
  if not sizes or slice_.copies > 1:
    return None
  return parse(f"{slice_.chip.kind}-{min(sizes) * slice_.chip.cores}")


def prepare(name: str) -> None:
  """Sets the environment variables that JAX and the TPU compiler read; to be called before JAX is imported."""
  if name in ("cpu", "gpu"):
    os.environ["JAX_PLATFORMS"] = {"cpu": "cpu", "gpu": "cuda"}[name]
  if name not in LOCAL:
    for variable, value in ENVIRONMENT.items():
      os.environ[variable] = value if variable in FORCED else os.environ.get(variable, value)


def devices(slice_: Slice) -> list:
  """Descriptions of the slice's devices: programs can be compiled for them, and cannot run."""
  from jax.experimental import topologies
  shape = slice_.shape
  options = dict(slice_.chip.options)
  if slice_.chip.cores == 1:   # a slice of up to 8 chips has one host
    bounds = {"1x1": (1, 1, 1), "2x4": (2, 4, 1)}.get(shape)
    options |= {"chips_per_host_bounds": list(bounds)} if bounds else {}
  if slice_.copies > 1:
    options["num_slices"] = slice_.copies
  try:
    description = topologies.get_topology_desc(platform="tpu", topology_name=f"{slice_.chip.kind}:{shape}", **options)
  except (RuntimeError, ImportError) as error:
    raise ConfigError(f"--topology={slice_.name} needs the TPU compiler, which did not start: "
                      f"{first_line(error)[:300]}. Install it: pip install 'sftrl-jax[plan]' (or libtpu).") from error
  return list(description.devices)
