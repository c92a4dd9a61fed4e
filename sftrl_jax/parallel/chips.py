"""Peak rates of accelerator chips, from the vendors' tables. This file imports no JAX."""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip.

  hbm_gib: memory; of a TPU, what its compiler lets a program use
  flops: FLOPs a second of bf16 matmuls, without sparsity
  bandwidth: bytes a second to and from HBM
  ici: bytes a second to and from all neighbours together (0: not used)
  cores: cores a chip, as counted in the names of TPU slices
  options: options of the TPU compiler's description
  kinds: the names that JAX gives such a device
  """

  kind: str
  hbm_gib: float
  flops: float
  bandwidth: float
  ici: float = 0.0
  cores: int = 1
  options: tuple[tuple[str, str], ...] = ()
  kinds: tuple[str, ...] = ()


TPUS = {
    "v4": Chip("v4", 30.75, 275e12, 1228e9, 300e9, 2, (("chip_config_name", "megacore"),), ("TPU v4",)),
    "v5e": Chip("v5e", 15.75, 197e12, 819e9, 200e9, kinds=("TPU v5 lite", "TPU v5e")),
    "v5p": Chip("v5p", 95.73, 459e12, 2765e9, 600e9, 2, kinds=("TPU v5", "TPU v5p")),
    "v6e": Chip("v6e", 31.24, 918e12, 1640e9, 448e9, kinds=("TPU v6 lite", "TPU v6e")),
}
V7X = Chip("v7x", 192.0, 2307e12, 7380e9, 600e9, 2)   # Ironwood; `sftrl plan` has published runs of it, and no slices
GPUS = {
    "a100": Chip("a100", 80.0, 312e12, 2039e9, kinds=("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe")),
    "h100": Chip("h100", 80.0, 989e12, 3350e9, kinds=("NVIDIA H100 80GB HBM3",)),
    "h200": Chip("h200", 141.0, 989e12, 4800e9, kinds=("NVIDIA H200",)),
}


def of(device_kind: str) -> Chip | None:
  """The chip of JAX's name for a device; None for a CPU and for a chip that is not listed."""
  return next((chip for chip in (*TPUS.values(), *GPUS.values()) if device_kind in chip.kinds), None)
