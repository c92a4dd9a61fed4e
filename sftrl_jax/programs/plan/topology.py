"""Slices of TPU by the names they are rented under, and what one chip can do at most.

v4-N and v5p-N count TensorCores, of which a chip has two; v5e-N (also v5litepod-N) and v6e-N count chips. This file
imports no JAX: an unknown name is told at once.
"""

import dataclasses
import difflib
import math
import os
import re

from sftrl_jax.parallel.chips import TPUS as CHIPS, Chip
from sftrl_jax.programs.config.errors import ConfigError

# Chips of a slice -> how they are wired.
FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBIC = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8",
         1024: "8x8x16"}
WIRED = {"v4": CUBIC, "v5p": CUBIC, "v5e": FLAT, "v6e": FLAT}
ALIASES = {"v5litepod": "v5e"}
LOCAL = ("local", "cpu", "gpu")
# What the TPU compiler reads of a machine without TPUs. Several processes may compile at once; and it ends the process
# for a flag of XLA that it does not know, such as one of another XLA's.
FORCED = ("JAX_PLATFORMS", "XLA_FLAGS")
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1",
               "TPU_ACCELERATOR_TYPE": "v5litepod-16", "TPU_WORKER_HOSTNAMES": "localhost"}


@dataclasses.dataclass(frozen=True)
class Slice:
  """So many chips, wired as `shape` says; `copies` of them are joined by the data centre's network."""

  name: str
  chip: Chip
  shape: str
  copies: int = 1

  @property
  def chips(self) -> int:
    return math.prod(map(int, self.shape.split("x"))) * self.copies

  @property
  def hosts(self) -> int:
    one = self.chips // self.copies
    return self.copies * (1 if one <= 8 and self.chip.cores == 1 else one // 4)

  def __str__(self) -> str:
    return (f"{self.name}: {self.chips} chips ({self.shape}{f', {self.copies} slices' if self.copies > 1 else ''}), "
            f"{self.hosts} host{'s' * (self.hosts > 1)}, {self.chip.hbm_gib:g} GiB HBM a chip")


def names() -> list[str]:
  """Every slice by its name."""
  return [f"{kind}-{chips * CHIPS[kind].cores}" for kind, wired in WIRED.items() for chips in wired]


def parse(name: str) -> Slice:
  """The slice of this name, `2xv5e-16` being two of them; ConfigError, with the known ones, for another."""
  found = re.fullmatch(r"(?:(\d{1,3})x)?([a-z0-9]+)-(\d{1,5})", name)
  copies, kind, size = (int(found[1] or 1), ALIASES.get(found[2], found[2]), int(found[3])) if found else (1, "", 0)
  if kind in CHIPS and copies and size % CHIPS[kind].cores == 0 and size // CHIPS[kind].cores in WIRED[kind]:
    return Slice(name, CHIPS[kind], WIRED[kind][size // CHIPS[kind].cores], copies)
  known = "\n".join(f"  {kind}: {', '.join(one for one in names() if one.startswith(kind))}" for kind in CHIPS)
  raise ConfigError(f"--topology={name} is not known{_guess(name)}\n{known}\n  or local: the devices that are "
                    "here. v5litepod-N is v5e-N, and 2xv5e-16 are two slices. v4 and v5p count cores, two a chip.")


def larger(slice_: Slice) -> Slice | None:
  """The next larger slice of these chips; None for the largest."""
  sizes = [size for size in WIRED[slice_.chip.kind] if size * slice_.copies > slice_.chips]
  if not sizes or slice_.copies > 1:
    return None
  return parse(f"{slice_.chip.kind}-{min(sizes) * slice_.chip.cores}")


def prepare(name: str) -> None:
  """Sets what JAX and the TPU compiler read of the environment; before JAX is imported."""
  if name in ("cpu", "gpu"):
    os.environ["JAX_PLATFORMS"] = {"cpu": "cpu", "gpu": "cuda"}[name]
  if name not in LOCAL:
    for variable, value in ENVIRONMENT.items():
      os.environ[variable] = value if variable in FORCED else os.environ.get(variable, value)


def devices(slice_: Slice) -> list:
  """The devices of the slice, as the compiler describes them: nothing can run on them."""
  from jax.experimental import topologies
  shape = slice_.shape
  options = dict(slice_.chip.options)
  if slice_.chip.cores == 1:   # one host of up to 8 chips, as the machines are
    bounds = {"1x1": (1, 1, 1), "2x4": (2, 4, 1)}.get(shape)
    options |= {"chips_per_host_bounds": list(bounds)} if bounds else {}
  if slice_.copies > 1:
    options["num_slices"] = slice_.copies
  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=f"{slice_.chip.kind}:{shape}", **options)
  except (RuntimeError, ImportError) as error:
    raise ConfigError(f"--topology={slice_.name} needs the TPU compiler, which did not open: {_first_line(error)}. "
                      "Install it: pip install 'sftrl-jax[plan]' (or libtpu).") from error
  return list(found.devices)


def _guess(name: str) -> str:
  close = difflib.get_close_matches(name, names(), n=1, cutoff=0.6)
  return f": did you mean {close[0]}? There are:" if close else ". There are:"


def _first_line(error) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
