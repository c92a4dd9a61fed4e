"""What training has changed in the weights: distance, share of numbers moved, singular values and vectors.

All is computed on the host in f64, a matrix at a time. A parameter that is stacked over layers, [N, ...], is a matrix a
layer; a kernel [N, *reads, *writes] is the matrix [reads, writes] of its projection.

Sources: distance to the start (Chu et al. 2025 and after); share moved and rotation of leading subspaces (Zhu et al.
2025, arXiv 2511.08567; Mukherjee et al. 2025, arXiv 2505.11711); singular vectors that rotate while singular values
stay (arXiv 2509.12235).
"""

import dataclasses
import math

import numpy as np

from sftrl_jax.projections import STACKS, is_stacked, stack_of

MOVED = 1e-3   # share of a number by which it has to change
LEADING = 0.2   # share of the singular vectors that span the leading subspace
PARTS = ("embedding", "attention", "mlp", "norm", "head", "vision")
_READS = {f"{stack}{path}/kernel": len(each.reads) for stack, projections in STACKS.items()
          for path, each in projections.items()}


@dataclasses.dataclass(frozen=True)
class Change:
  """How a matrix or vector W differs from what it was at the start, W0.

  numbers: of W
  norm: |W0|, the root of the sum of squares
  distance: |W - W0|
  moved: entries with |w - w0| > MOVED max(|w|, |w0|). MOVED is below half the spacing of bf16, 2^-9 of a number or
    more, so a number that is left out is one that bf16 weights would mostly not show as changed (arXiv 2511.08567)
  spectrum: |s(W) - s(W0)| / |s(W0)| of the singular values s in descending order; None of a vector
  left, right: mean principal angle in degrees between the subspaces of W and of W0 that the leading k left (right)
    singular vectors span, k = ceil(LEADING min(W.shape)), but no more than the rank of either; None of a vector, and
    where a matrix is 0. An angle means little where singular values around the k-th are equal.
  """

  numbers: int
  norm: float
  distance: float
  moved: int
  spectrum: float | None = None
  left: float | None = None
  right: float | None = None


def part_of(path: str) -> str:
  """Of PARTS, the one that a parameter belongs to. path: in a tree of `model`"""
  if path.startswith("vision/"):
    return "vision"
  if path in ("embed", "unembed"):
    return "embedding" if path == "embed" else "head"
  return {"attn": "attention", "mlp": "mlp"}.get(path.removeprefix(stack_of(path)).partition("/")[0], "norm")


def layers_of(path: str, array: np.ndarray) -> np.ndarray:
  """The matrices [N, reads, writes] of a parameter, or vectors [N, channels]; N is 1 for what is not stacked."""
  array = np.asarray(array, np.float64)
  stacked = array if is_stacked(path) else array[None]
  if stacked.ndim < 3:
    return stacked.reshape(len(stacked), -1)
  reads = math.prod(stacked.shape[1:1 + _READS.get(path, stacked.ndim - 2)])
  return stacked.reshape(len(stacked), reads, -1)


def change(start: np.ndarray, end: np.ndarray) -> Change:
  """The Change of one matrix or vector. ValueError for two that differ in shape."""
  start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
  if start.shape != end.shape:
    raise ValueError(f"a matrix of shape {end.shape} cannot be compared with one of shape {start.shape}: give the "
                     "same parameter of one model before and after.")
  apart = np.abs(end - start)
  moved = int((apart > MOVED * np.maximum(np.abs(start), np.abs(end))).sum())
  measured = Change(start.size, float(np.linalg.norm(start)), float(np.linalg.norm(apart)), moved)
  if start.ndim != 2 or not start.size or not np.isfinite(start).all() or not np.isfinite(end).all():
    return measured
  return dataclasses.replace(measured, **_spectral(start, end))


def changes(path: str, start: np.ndarray, end: np.ndarray) -> list[Change]:
  """The Change of a parameter of `model`, one a layer."""
  return [change(*pair) for pair in zip(layers_of(path, start), layers_of(path, end), strict=True)]


def _spectral(start: np.ndarray, end: np.ndarray) -> dict[str, float | None]:
  """The fields of a Change that are of singular values and vectors."""
  from scipy import linalg  # a second to import
  (left_start, values_start, right_start), (left_end, values_end, right_end) = (
      np.linalg.svd(matrix, full_matrices=False) for matrix in (start, end))
  leading = min(math.ceil(LEADING * min(start.shape)), *(_rank(values, start.shape) for values in (
      values_start, values_end)))
  norm = np.linalg.norm(values_start)
  spectrum = float(np.linalg.norm(values_end - values_start) / norm) if norm else None
  if not leading:
    return {"spectrum": spectrum}
  angle = lambda a, b: float(np.degrees(linalg.subspace_angles(a[:, :leading], b[:, :leading])).mean())
  return {"spectrum": spectrum, "left": angle(left_start, left_end), "right": angle(right_start.T, right_end.T)}


def _rank(values: np.ndarray, shape: tuple[int, int]) -> int:
  """Singular values that are not rounding errors of f32, in which weights are stored."""
  return int((values > values[0] * max(shape) * np.finfo(np.float32).eps).sum())
