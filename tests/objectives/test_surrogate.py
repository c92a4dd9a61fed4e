"""The clipped surrogate and its bounds, as functions of a ratio and an advantage."""

import types

import jax
import numpy as np
import pytest

from sftrl_jax.objectives.surrogate import clipped_surrogate, refuse_bounds

LOW, HIGH = 0.8, 1.3
RATIOS = np.float32([0.01, 0.5, 0.9, 1.0, 1.2, 1.5, 2.5, 3.5, 11.0, 180.0])
UP, DOWN = np.full_like(RATIOS, 2.0), np.full_like(RATIOS, -0.5)
NOISE = np.random.default_rng(0).normal(size=RATIOS.shape).astype(np.float32)


def loss(advantages, **bounds):
  return np.asarray(clipped_surrogate(RATIOS, advantages, LOW, HIGH, **bounds))


def pull(advantages, **bounds):
  """d loss / d log pi, which is ratio * d loss / d ratio."""
  of = lambda ratio, advantage: clipped_surrogate(ratio, advantage, LOW, HIGH, **bounds)
  return RATIOS * np.asarray(jax.vmap(jax.grad(of))(RATIOS, advantages))


def test_without_bounds_it_is_the_minimum_of_both_terms():
  for advantages in (UP, DOWN, NOISE):
    plain = -np.minimum(RATIOS * advantages, np.clip(RATIOS, LOW, HIGH) * advantages)
    np.testing.assert_array_equal(loss(advantages), plain)


def test_dual_clip_changes_negative_advantages_alone_and_bounds_their_loss():
  np.testing.assert_array_equal(loss(UP, dual_clip=3.0), loss(UP))
  np.testing.assert_array_equal(pull(UP, dual_clip=3.0), pull(UP))
  bounded, above = loss(DOWN, dual_clip=3.0), RATIOS > 3.0
  np.testing.assert_array_equal(bounded[~above], loss(DOWN)[~above])
  np.testing.assert_allclose(bounded[above], 3.0 * 0.5)
  assert (bounded[above] < loss(DOWN)[above]).all()
  assert (pull(DOWN, dual_clip=3.0)[above] == 0).all() and (pull(DOWN)[above] > 1).all()


def test_above_the_cap_the_clipped_term_stands_alone():
  above = RATIOS > 10.0
  for advantages in (UP, DOWN, NOISE):
    capped = loss(advantages, ratio_cap=10.0)
    np.testing.assert_array_equal(capped[~above], loss(advantages)[~above])
    np.testing.assert_allclose(capped[above], -HIGH * advantages[above])


def test_a_cap_pulls_as_a_dual_clip_of_the_same_number():
  for advantages in (UP, DOWN, NOISE):
    np.testing.assert_array_equal(pull(advantages, ratio_cap=3.0), pull(advantages, dual_clip=3.0))


def test_an_advantage_for_a_whole_row_is_broadcast():
  ratios = np.stack([RATIOS, RATIOS[::-1]])
  both = clipped_surrogate(ratios, np.float32([[2.0], [-0.5]]), LOW, HIGH, dual_clip=3.0)
  np.testing.assert_array_equal(both[0], loss(UP))
  np.testing.assert_array_equal(both[1], loss(DOWN, dual_clip=3.0)[::-1])


@pytest.mark.parametrize("changes, message", [
    ({"target_kl": -0.1}, "target_kl is -0.1"), ({"target_kl": float("nan")}, "target_kl is nan"),
    ({"dual_clip": 1.0}, "dual_clip is 1.0; it must be above 1"), ({"dual_clip": -3.0}, "dual_clip is -3.0"),
    ({"dual_clip": float("nan")}, "dual_clip is nan"), ({"ratio_cap": 0.5}, "ratio_cap is 0.5")])
def test_a_bound_that_bounds_nothing_is_refused(changes, message):
  bounds = {"target_kl": 0.0, "dual_clip": 0.0, "ratio_cap": 0.0}
  refuse_bounds(types.SimpleNamespace(**bounds))
  refuse_bounds(types.SimpleNamespace(**{**bounds, "target_kl": 0.02, "dual_clip": 3.0, "ratio_cap": 10.0}))
  with pytest.raises(ValueError, match=message):
    refuse_bounds(types.SimpleNamespace(**{**bounds, **changes}))
