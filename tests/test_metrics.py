"""Sums are added exactly; division comes last."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.metrics import Mean, Peak, floats, masked_mean, masked_peak, merge, row_sum, zeros_like_metrics


def ragged(seed=0, rows=8, length=5):
  random = np.random.default_rng(seed)
  mask = (np.arange(length)[None, :] < random.integers(0, length + 1, rows)[:, None]).astype(np.float32)
  return random.normal(size=(rows, length)).astype(np.float32), mask


@pytest.mark.parametrize("pieces", [1, 2, 4, 8])
def test_the_mean_of_a_batch_is_that_of_its_microbatches(pieces):
  values, mask = ragged()
  split = [masked_mean(v, m) for v, m in zip(np.split(values, pieces), np.split(mask, pieces), strict=True)]
  whole = split[0]
  for piece in split[1:]:
    whole = whole + piece
  np.testing.assert_allclose(whole.value(), values[mask > 0].mean(), rtol=1e-6)
  assert whole.weight == mask.sum()


def test_a_mean_of_nothing_is_zero_and_so_is_its_gradient():
  assert Mean(jnp.float32(0), jnp.float32(0)).value() == 0
  assert jax.grad(lambda x: Mean(x, jnp.float32(0)).value())(1.0) == 0


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_the_mask_hides_may_be_anything(poison):
  values, mask = ragged()
  dirty = np.where(mask > 0, values, poison)
  assert masked_mean(dirty, mask).value() == masked_mean(values, mask).value()
  assert masked_peak(dirty, mask).value() == values[mask > 0].max()
  np.testing.assert_allclose(jax.grad(lambda x: masked_mean(x, mask).total)(dirty), mask)


def test_a_mask_may_weigh():
  mean = masked_mean(np.float32([1, 2, 4]), np.float32([0.5, 0, 2]))
  np.testing.assert_allclose([mean.total, mean.weight], [8.5, 2.5])


def test_half_precision_is_summed_in_f32():
  mean = masked_mean(jnp.ones(4096, jnp.bfloat16), jnp.ones(4096, bool))
  assert (mean.total, mean.weight, mean.total.dtype) == (4096, 4096, jnp.float32)


def test_the_larger_peak_stays_and_a_peak_of_nothing_is_the_smallest():
  assert (Peak(jnp.float32(1)) + Peak(jnp.float32(3))).value() == 3
  zeros_like_metrics = masked_peak(np.zeros((2, 2)), np.zeros((2, 2)))
  assert (zeros_like_metrics + Peak(jnp.float32(-7))).value() == -7


def test_metrics_are_merged_by_name_and_carried_through_a_scan():
  values, mask = ragged()
  measure = lambda v, m: {"mean": masked_mean(v, m), "top": masked_peak(v, m)}

  @jax.jit
  def scanned(values, mask):
    add = lambda carry, piece: (merge(carry, measure(*piece)), None)
    return jax.lax.scan(add, measure(values[0], mask[0]), (values[1:], mask[1:]))[0]

  told, whole = floats(scanned(values, mask)), floats(measure(values, mask))
  assert told == pytest.approx(whole, rel=1e-6)


def test_numbers_to_print_are_floats():
  told = floats({"loss": Mean(jnp.float32(6), jnp.float32(4)), "top": Peak(jnp.float32(2)), "rate": jnp.float32(0.5)})
  assert told == {"loss": 1.5, "top": 2.0, "rate": 0.5}
  assert {type(value) for value in told.values()} == {float}


def test_a_sum_of_thousands_is_rounded_as_little_as_its_rows_are():
  """In one go it is 16 times further off; a whole run on other devices would whiten other advantages."""
  values = np.random.default_rng(0).normal(-1.14, 0.05, (32, 40)).astype(np.float32)
  exact = values.astype(np.float64).sum()
  compiled = jax.jit(row_sum).lower(values).compile()
  assert abs(float(compiled(values)) / exact - 1) < 1e-7 and compiled.as_text().count(" reduce(") == 2


def test_nothing_changes_nothing_even_a_peak_below_zero():
  metrics = {"loss": Mean(jnp.float32(-3.0), jnp.float32(2.0)), "top": Peak(jnp.float32(-5.0)), "count": jnp.float32(4)}
  blank = zeros_like_metrics(jax.eval_shape(lambda: metrics))
  assert floats(merge(blank, metrics)) == floats(merge(metrics, blank)) == floats(metrics)
