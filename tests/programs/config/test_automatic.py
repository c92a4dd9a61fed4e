"""Keys that may be "auto"."""

import pytest

from sftrl_jax.programs.config import automatic
from sftrl_jax.programs.config.automatic import MICROBATCHES, REMAT

CONFIG = {"batch": 64, "algorithm": "ppo", "ppo": {"minibatches": 2},
          "compute": {"microbatches": "auto", "logit_chunk": 0}, "model": {"remat": "auto", "layers": 2}}


@pytest.mark.parametrize(("rows", "shards"), [(1, 1), (12, 1), (64, 4), (96, 8), (360, 1), (7, 7)])
def test_every_count_divides_and_the_last_leaves_each_shard_a_row(rows, shards):
  counts = automatic.counts(rows, shards)
  assert counts[0] == 1 and counts[-1] == rows // shards
  for count in counts:
    assert rows % count == 0 and rows // count % shards == 0
  assert all(larger >= 2 * smaller for smaller, larger in zip(counts, counts[1:-1], strict=False))


def test_rows_that_no_number_splits_are_one_microbatch():
  assert automatic.counts(6, 4) == [1]


def test_an_update_has_the_rows_of_a_minibatch():
  assert automatic.rows_of_update(CONFIG) == 32 and automatic.rows_of_update({"batch": 64}) == 64


def test_the_leanest_replaces_auto_and_nothing_else():
  values = automatic.leanest(CONFIG, shards=4)
  assert values == {MICROBATCHES: 8, REMAT: automatic.REMATS[-1]} and automatic.asked(CONFIG) == automatic.KEYS
  tree = automatic.with_values(CONFIG, values)
  assert tree["compute"] == {"microbatches": 8, "logit_chunk": 0} and tree["model"]["layers"] == 2
  assert automatic.asked(tree) == () and automatic.leanest(tree, 4) == {} and automatic.asked(CONFIG)
