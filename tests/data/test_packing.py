"""The stream of packed rows: each pass has every example once, and a cursor is all that a resume needs."""

import json

import numpy as np
import pytest

from sftrl_jax.data import packing
from sftrl_jax.data.packing import account, held_batches, make_batches, packed, split
from sftrl_jax.data.rows import RowsConfig, load
from sftrl_jax.text.tokenizer import byte

ROWS, LENGTH = 3, 32


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
  """23 examples of 3 to 32 places, no two alike."""
  path = tmp_path_factory.mktemp("corpus") / "rows.jsonl"
  path.write_text("".join(json.dumps({"prompt": "p" * (7 * number % 13), "completion": f"{number:02d}" + "c" * number})
                          + "\n" for number in range(23)))
  return load(RowsConfig(str(path), length=LENGTH), byte())


def settings(corpus, **changes):
  return RowsConfig(corpus.report.path, length=LENGTH, **changes)


def examples_of(batch):
  """Every segment of a batch as (ids with the last target, flags), row by row."""
  for row in range(batch.targets_BT.shape[0]):
    segments = batch.inputs.segments_BT[row]
    for segment in range(1, segments.max() + 1):
      on = segments == segment
      assert batch.inputs.positions_BT[row][on].tolist() == list(range(on.sum()))
      tokens, targets, weights = (x[row][on].tolist() for x in (batch.inputs.tokens_BT, batch.targets_BT,
                                                                 batch.weights_BT))
      assert targets[:-1] == tokens[1:]
      yield (*tokens, targets[-1]), tuple(weights)
    assert not batch.weights_BT[row][segments == 0].any()


def written(corpus, examples):
  """What the examples of a corpus should look like in a batch."""
  sequences = []
  for index in examples:
    ids, learned = corpus.example(index)
    sequences.append((tuple(ids.tolist()), tuple(map(float, learned[1:]))))
  return sequences


@pytest.mark.parametrize("changes", [{}, dict(shuffle=False), dict(pack=False), dict(pack=False, shuffle=False)])
def test_every_pass_has_every_example_once_and_whole(corpus, changes):
  trained, _ = split(corpus, 0.0)
  next_batch, cursor, seen, sizes = make_batches(corpus, settings(corpus, **changes), trained, 5, ROWS), 0, [], []
  while cursor < 3 * corpus.count:
    batch, after = next_batch(cursor)
    here = list(examples_of(batch))
    assert len(here) == after - cursor and batch.targets_BT.shape == (ROWS, LENGTH)
    seen, cursor = seen + here, after
    sizes += (batch.inputs.segments_BT.max(axis=1)).tolist()
  everything = sorted(written(corpus, range(corpus.count)))
  orders = [seen[number * corpus.count : (number + 1) * corpus.count] for number in range(3)]
  assert all(sorted(order) == everything for order in orders)
  assert (orders[0] == orders[1]) == (not changes.get("shuffle", True))
  if not changes.get("pack", True):
    assert set(sizes) == {1}
    assert changes.get("shuffle", True) or orders[0] == written(corpus, range(corpus.count))
  else:
    assert max(sizes) > 1


def test_a_cursor_is_all_that_a_resume_needs(corpus):
  trained, _ = split(corpus, 0.0)
  make = lambda seed=5: make_batches(corpus, settings(corpus), trained, seed, ROWS)
  straight, cursor, cursors = [], 0, [0]
  for _ in range(12):
    batch, cursor = make()(cursor)   # a new stream every time: nothing is remembered but the cursor
    straight.append(batch)
    cursors.append(cursor)
  next_batch, next_of_six = make(), make(6)
  for step in (7, 3, 11, 0):   # in any order
    batch, after = next_batch(cursors[step])
    same = [np.array_equal(a, b) for a, b in zip(np.asarray(batch.inputs.tokens_BT), straight[step].inputs.tokens_BT,
                                                 strict=True)]
    assert all(same) and after == cursors[step + 1] and type(after) is int
  assert not np.array_equal(next_of_six(0)[0].inputs.tokens_BT, straight[0].inputs.tokens_BT)


def test_the_rows_of_several_processes_are_those_of_one(corpus):
  trained, _ = split(corpus, 0.0)
  make = lambda mine: make_batches(corpus, settings(corpus), trained, 5, ROWS, mine)(7)
  (whole, after), parts = make(None), [make(mine) for mine in ({1}, {0, 2})]
  assert [cursor for _, cursor in parts] == [after, after]
  for name in ("targets_BT", "weights_BT"):
    np.testing.assert_array_equal(sum(getattr(batch, name) for batch, _ in parts), getattr(whole, name))
  assert not parts[0][0].inputs.segments_BT[[0, 2]].any() and parts[0][0].inputs.segments_BT[1].any()


def test_rows_are_filled_well_and_never_over(corpus):
  source = np.random.default_rng(0)
  for high in (16, 100, 256):
    sizes = source.integers(1, high, 5000)
    members, ends = packed(sizes, source.permutation(5000), 256)
    assert sorted(members.tolist()) == list(range(5000)) and ends[-1] == 5000
    rows = [sizes[row].sum() for row in np.split(members, ends[:-1])]
    assert max(rows) <= 256 and sizes.sum() / (256 * len(rows)) > 0.95


def test_neighbours_in_the_order_stay_near_one_another():
  """A row is closed when too many are open, so that a pass without shuffling is read roughly in order."""
  sizes = np.full(4000, 60)
  members, _ = packed(sizes, np.arange(4000), 100)
  assert np.abs(members - np.arange(4000)).max() <= 2 * packing.OPEN


def test_what_is_held_out_is_never_trained_on_and_is_the_same_for_every_seed(corpus):
  trained, held = split(corpus, 0.2)
  assert len(held) == 5 and sorted([*trained, *held]) == list(range(corpus.count))
  batches = list(held_batches(corpus, settings(corpus), held, ROWS))
  held_out = sorted(example for batch in batches for example in examples_of(batch))
  assert held_out == sorted(written(corpus, held))
  assert all(batch.targets_BT.shape == (ROWS, LENGTH) for batch in batches)
  first = make_batches(corpus, settings(corpus), trained, 0, ROWS)
  batch, cursor = first(0)
  seen = list(examples_of(batch))
  while cursor < len(trained):
    batch, cursor = first(cursor)
    seen += examples_of(batch)
  assert not set(seen) & set(held_out)
  for share in (0.01, 0.99):
    with pytest.raises(ValueError, match=f"config.data.validation is {share}, which is {round(23 * share)} of 23"):
      split(corpus, share)


def test_the_account_tells_how_full_rows_are(corpus):
  trained, _ = split(corpus, 0.0)
  apart, together = (account(corpus, settings(corpus, pack=pack), trained, 0, ROWS) for pack in (False, True))
  assert apart.rows == 23 and together.rows < 23 and together.steps == together.rows / ROWS
  assert apart.filled == pytest.approx(corpus.sizes.sum() / (23 * LENGTH)) and together.filled > 0.8


def test_examples_that_are_held_out_and_trained_on_are_counted(corpus, tmp_path):
  assert account(corpus, settings(corpus), split(corpus, 0.2)[0], 0, ROWS).overlap == 0
  path = tmp_path / "rows.jsonl"
  path.write_text("".join(json.dumps({"text": "same" if number % 2 else f"{number}"}) + "\n" for number in range(20)))
  twice = load(RowsConfig(str(path), length=LENGTH), byte())
  trained, held = split(twice, 0.5)
  assert account(twice, settings(twice), trained, 0, ROWS).overlap == sum(held % 2) > 0
  assert twice.report.duplicates == 9
