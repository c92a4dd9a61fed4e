"""What has changed in a matrix, on matrices whose answer is known."""

import numpy as np
import pytest

from sftrl_jax.models import weight_change
from sftrl_jax.models.weight_change import change, changes, layers_of, part_of


def orthogonal(random, size):
  return np.linalg.qr(random.standard_normal((size, size)))[0]


def turned(size, planes, degrees):
  """The rotation of R^size by so many degrees in each plane of two axes."""
  matrix, angle = np.eye(size), np.radians(degrees)
  for a, b in planes:
    matrix[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
  return matrix


def with_values(random, values, rows, columns):
  """(U, matrix) with these singular values."""
  left, right = orthogonal(random, rows), orthogonal(random, columns)
  return left, left[:, :len(values)] @ np.diag(values) @ right[:, :len(values)].T


@pytest.mark.parametrize("degrees", [0.001, 30.0, 75.0])
def test_a_rotation_of_the_leading_subspace_is_measured_in_degrees(degrees):
  random = np.random.default_rng(0)
  left, start = with_values(random, np.arange(10, 0, -1.0), 12, 10)
  turn = left @ turned(12, [(0, 4), (1, 7)], degrees) @ left.T   # both leading vectors, into others
  for side, (before, after) in {"left": (start, turn @ start), "right": (start.T, (turn @ start).T)}.items():
    measured = change(before, after)
    other_side = {"left": "right", "right": "left"}[side]
    assert getattr(measured, side) == pytest.approx(degrees, rel=1e-6)
    assert getattr(measured, other_side) == pytest.approx(0.0, abs=1e-5)
    assert measured.spectrum == pytest.approx(0.0, abs=1e-12)
    assert measured.distance == pytest.approx(np.linalg.norm(after - before))


def test_a_rotation_inside_the_leading_subspace_is_none():
  left, start = with_values(np.random.default_rng(1), np.arange(10, 0, -1.0), 10, 10)
  after = left @ turned(10, [(0, 1)], 40.0) @ left.T @ start
  inside = change(start, after)
  assert max(inside.left, inside.right) < 1e-5 and inside.distance > 1


def test_scaling_turns_nothing_and_scales_the_spectrum():
  start = np.random.default_rng(2).standard_normal((7, 11))
  scaled = change(start, 1.5 * start)
  assert (scaled.left, scaled.right) == pytest.approx((0, 0), abs=1e-5)
  assert scaled.spectrum == pytest.approx(0.5) and scaled.distance == pytest.approx(0.5 * scaled.norm)
  assert scaled.moved == scaled.numbers == 77


def test_what_is_equal_has_not_changed():
  start = np.random.default_rng(3).standard_normal((5, 4))
  same = change(start, start.copy())
  assert (same.distance, same.moved, same.spectrum) == (0, 0, 0) and max(same.left, same.right) < 1e-5


def test_a_number_has_moved_by_more_than_its_thousandth():
  start = np.array([1.0, 1.0, -1.0, 0.0, 0.0, 1e-30])
  end = np.array([1.0005, 1.002, -0.998, 0.0, 1e-12, 2e-30])
  assert change(start, end).moved == 4 and change(end, start).moved == 4


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 1)])
def test_a_row_is_a_matrix_of_one_direction(shape):
  start = np.zeros(shape)
  start.flat[0] = 2.0
  end = np.roll(start, 1)
  measured = change(start, end)
  turned_side = 90.0 if start.size > 1 else 0.0
  expected = (0.0, turned_side) if shape[0] == 1 else (turned_side, 0.0)
  assert (measured.left, measured.right) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("start", "end"), [
    (np.zeros((3, 4)), np.ones((3, 4))), (np.ones((3, 4)), np.zeros((3, 4))), (np.zeros((3, 4)), np.zeros((3, 4))),
    (np.ones((3, 4)), np.full((3, 4), np.nan)), (np.zeros((0, 4)), np.zeros((0, 4))), (np.ones(3), np.zeros(3))])
def test_what_has_no_directions_has_no_angle(start, end):
  measured = change(start, end)
  assert measured.left is measured.right is None and measured.numbers == start.size


def test_matrices_of_another_shape_are_refused():
  with pytest.raises(ValueError, match=r"shape \(2, 3\) cannot be compared with one of shape \(3, 2\)"):
    change(np.zeros((3, 2)), np.zeros((2, 3)))


def test_a_stacked_kernel_is_a_matrix_a_layer():
  random = np.random.default_rng(4)
  start, end = random.standard_normal((2, 3, 8, 2, 4))   # [N, embed, heads, channels]
  q, o = "layers/block/attn/q/kernel", "layers/block/attn/o/kernel"
  assert layers_of(q, start).shape == (3, 8, 8) and layers_of(o, start.reshape(3, 2, 4, 8)).shape == (3, 8, 8)
  assert layers_of("embed", start[0, 0]).shape == (1, 2, 4) and layers_of("final_norm/scale", start[0, 0, 0]).shape == (
      1, 4)
  assert changes(q, start, end) == [change(*pair) for pair in zip(
      start.reshape(3, 8, 8), end.reshape(3, 8, 8), strict=True)]


def test_every_parameter_has_its_part():
  parts = {"embed": "embedding", "unembed": "head", "final_norm/scale": "norm", "layers/block/attn_norm/scale": "norm",
           "layers/block/attn/q/kernel": "attention", "layers/block/mlp/up/kernel": "mlp",
           "cross_layers/block/attn/v/kernel": "attention", "layers/block/mlp/up/bias": "mlp",
           "vision/tower/layers/block/mlp/up/kernel": "vision", "vision/connector/up/kernel": "vision"}
  assert {path: part_of(path) for path in parts} == parts
  assert set(parts.values()) == set(weight_change.PARTS)
