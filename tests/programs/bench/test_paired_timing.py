"""Ratios from given seconds; nothing here is timed."""

import pytest

from sftrl_jax.programs.bench.paired_timing import Pairs, alternate, timed


def test_the_ratio_is_the_median_over_pairs():
  pairs = Pairs((1.0, 2.0, 10.0), (3.0, 2.0, 20.0))
  assert pairs.ratios == (3.0, 1.0, 2.0) and pairs.ratio == 2.0 and pairs.spread == (1.0, 3.0)
  assert pairs.seconds == 2.0 and pairs.their_seconds == 3.0
  # A neighbour that slows a whole pair down moves the medians of seconds, and not the ratio.
  assert Pairs((1.0, 2.0, 100.0), (3.0, 2.0, 200.0)).ratio == 2.0


def test_work_is_done_in_turns_after_a_warm_up_and_nobody_always_goes_first():
  order, clock = [], lambda work: work() or 1.0
  pairs = alternate(lambda: order.append("o"), lambda: order.append("t"), 3, clock)
  assert "".join(order) == "ot" + "ot" + "to" + "ot" and pairs == Pairs((1.0,) * 3, (1.0,) * 3)
  order.clear()
  alone = alternate(lambda: order.append("o"), None, 4, clock)
  assert "".join(order) == "ooooo" and alone.theirs == () and alone.ratios == () if not alone.ours else True


def test_work_may_count_its_own_seconds():
  assert timed(lambda: 7.5) == 7.5 and timed(lambda: None) < 1


def test_pairs_of_unequal_numbers_are_a_mistake():
  with pytest.raises(ValueError):
    _ = Pairs((1.0, 2.0), (1.0,)).ratios
